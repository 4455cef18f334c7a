"""The post-mortem: told from entries and verdicts, in three forms, safe against what names hold."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from schemas.incidents import Entry, Incident, fold
from schemas.verdicts import GuardVerdict, Verdict
from service.report.blocks import Figure, Table
from service.report.curves import Curve, Mark, draw
from service.report.facts import harm_of, spans_of
from service.report.html import to_html
from service.report.markdown import to_markdown
from service.report.story import report_of
from tests.builders import NOW, an_entry

EVIL = "v2<script>alert(1)</script>\u202e\x00`|**"


def a_guard(n: int, evidence: float, estimate: float) -> GuardVerdict:
    """What an error guard said."""
    return GuardVerdict(
        name="error max_increase=0.15", signal="error", verdict="breach", estimate=estimate,
        lower=estimate - 0.1, upper=estimate + 0.1, stable_estimate=0.1, evidence=evidence,
        threshold=5.0, n=n, limit=0.15,
    )  # fmt: skip


def a_history(version: str = "v2") -> list[Verdict]:
    """The canary got worse over ten seconds before the breach; 100 rows a second."""
    return [
        Verdict(
            model="m", version=version, rollout_id="r", verdict="inconclusive", reason="too_few",
            text="t", guards=[a_guard(100 * n, n / 2, 0.1 + n / 50)], roles="declared",
            decided_at=NOW - 10_000 + 1000 * n, position={}, predictions=200 * n, share=0.2,
        )
        for n in range(11)
    ]  # fmt: skip


def an_incident(version: str = "v2") -> Incident:
    """Breach, command, receipt, proof."""
    evidence = {name: getattr(a_guard(1000, 5.1, 0.3), name)
                for name in GuardVerdict.__struct_fields__}  # fmt: skip
    command = {"command_id": "c1", "action": "rollback", "from_version": version,
               "to_version": "v1", "adapter": "router", "mode": "enforce", "hop": 1}  # fmt: skip
    receipt = {"command_id": "c1", "status": "applied", "to_version": "v1",
               "before": {"v1": 80, version: 20}, "after": {"v1": 100, version: 0}}  # fmt: skip
    told: list[tuple[Any, int, dict[str, Any], str]] = [
        ("opened", 0, {"breach_id": "b", "stable": "v1", "rollout_id": "r", "guard": "g",
                       "evidence": evidence, "guards": [evidence], "position": {"offset": 7},
                       "config_digest": "d1"}, f"error of {version} is 30%"),
        ("withheld", 5, {}, "Not sent: an operator holds automatic action."),
        ("command", 40, command, f"Rollback from {version} to v1 ordered"),
        ("receipt", 300, receipt, "The platform has applied it."),
        ("verified", 1500, {"command_id": "c1"}, "Verified from traffic."),
    ]  # fmt: skip
    entries: list[Entry] = [
        an_entry(kind=kind, at=NOW + after, data=data, text=text, version=version, model="m",
                 reason="applied" if kind == "receipt" else "x")
        for kind, after, data, text in told
    ]  # fmt: skip
    incident = fold(entries)
    assert incident is not None
    return incident


def test_spans_and_harm_are_what_the_record_says() -> None:
    """If this breaks, the report states figures that nobody measured."""
    incident, history = an_incident(), a_history()

    assert (10_000, 40, 260, 1200, 1500) == spans_of(incident, history)
    harm = harm_of(incident, history)
    assert harm is not None
    assert (200.0, 100.0) == (
        round(harm.per_thousand, 6),
        round(harm.at_least_per_thousand or 0, 6),
    )
    assert 0.2 * 100 * 3600 == round(harm.per_hour or 0, 6)


def test_without_a_rollback_or_history_nothing_is_invented() -> None:
    """If this breaks, a report claims harm that was not avoided, or stops for lack of curves."""
    incident = an_incident()
    assert (None, 40) == spans_of(incident, [])[:2]
    alone = harm_of(incident, [])
    assert alone is not None
    assert alone.per_hour is None
    incident.rolled_back_to = None
    assert harm_of(incident, a_history()) is None
    assert not [b for b in report_of(incident, []).blocks if isinstance(b, Figure)]


def test_the_report_has_the_curves_and_the_refusals() -> None:
    """If this breaks, a reader cannot see how it came to the rollback, or what held it up."""
    report = report_of(an_incident(), a_history())

    figures = [block.caption for block in report.blocks if isinstance(block, Figure)]
    assert ["error max_increase=0.15: what was seen, with its anytime interval where one is known",
            "error max_increase=0.15: evidence against its threshold, nats",
            "Share of the model's traffic"] == figures  # fmt: skip
    cells = [cell for b in report.blocks if isinstance(b, Table) for row in b.rows for cell in row]
    assert "Not sent: an operator holds automatic action." in cells
    assert "v1 80 %, v2 20 %" in cells


class Tags(HTMLParser):
    """Collects what a browser would see as elements."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note an element, and any handler or address on it."""
        self.seen |= {tag, *(name for name, _ in attrs)}


def test_names_cannot_become_markup() -> None:
    """If this breaks, a model's name runs a script in the reader's browser."""
    report = report_of(an_incident(EVIL), a_history(EVIL))
    html, markdown = to_html(report), to_markdown(report)

    assert not {"script", "img", "iframe", "href", "src", "onclick"} & Tags(html).seen
    assert "svg" in Tags(html).seen
    assert "\u202e" not in html + markdown
    assert "\x00" not in html + markdown
    body = markdown.partition("<details>")[0]
    assert "<script>" not in body.replace("\\<", "")


def test_a_curve_needs_two_moments() -> None:
    """If this breaks, one verdict makes a division by zero instead of a report."""
    assert draw("t", [Curve("a", "canary", [(5, 1.0)])], [], str) is None
    svg = draw("t", [Curve("a", "canary", [(5, 0.0), (9, 0.0)])], [Mark(7, "x")], str)
    assert svg is not None
    assert svg.startswith("<svg")
