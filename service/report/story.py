"""The report as blocks: what happened, how it is known, what was done, what is left to people."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import msgspec

from schemas.incidents import Incident
from schemas.times import to_text
from schemas.verdicts import GuardVerdict, Verdict
from service.report import facts
from service.report.blocks import Blank, Block, Data, Figure, Heading, Paragraph, Report, Table
from service.report.curves import Curve, Mark, draw, steps

MOST_FIGURES = 4
"""Guards that breached and are drawn."""
MARKED = {"opened": "breach", "command": "command", "receipt": "receipt", "verified": "verified"}
QUESTIONS = (
    "Why was this version worse?", "Why was it not found before the rollout?",
    "Who was affected, and what do they need to know?", "What will be changed, by whom, by when?",
)  # fmt: skip


def report_of(incident: Incident, history: Sequence[Verdict]) -> Report:
    """Tell an incident.

    Parameters
    ----------
    incident : Incident
        With its entries.
    history : sequence of Verdict
        Verdicts of its model around it, oldest first; may be empty, then curves are missing.
    """
    blocks = [*_summary(incident, history), *_timeline(incident), *_curves(incident, history),
              *_evidence(incident), *_deeds(incident), *_harm(incident, history),
              *_people(), *_appendix(incident)]  # fmt: skip
    return Report(f"{incident.model} {incident.version}", incident.state, blocks)


def _summary(incident: Incident, history: Sequence[Verdict]) -> Iterator[Block]:
    yield Paragraph(incident.text)
    spans = facts.spans_of(incident, history)
    parts = [
        ("found after the canary began", spans.detect), ("from breach to command", spans.command),
        ("from command to the platform's receipt", spans.apply),
        ("from receipt to the proof from traffic", spans.verify),
        ("from breach to proof", spans.restore),
    ]  # fmt: skip
    rows = [(what, span(took)) for what, took in parts if took is not None]
    if rows:
        yield Table(("how long", "took"), rows, frozenset({1}))
        yield Paragraph("Decisions carry event time, deeds carry wall time; a span between the two "
                        "is as good as the producers' clocks.")  # fmt: skip


def _timeline(incident: Incident) -> Iterator[Block]:
    yield Heading("What happened")
    rows = [(_when(entry.at), entry.kind, entry.text)
            for entry in sorted(incident.entries, key=lambda e: e.at)]  # fmt: skip
    yield Table(("when (UTC)", "what", "in words"), rows)


def _curves(incident: Incident, history: Sequence[Verdict]) -> Iterator[Block]:
    marks = [Mark(entry.at, MARKED[entry.kind]) for entry in incident.entries
             if entry.kind in MARKED]  # fmt: skip
    own = facts.over_time(history, incident.version)
    names = list(dict.fromkeys(guard.name for guard in facts.breaches_of(incident)))
    drawn = [figure for name in names[:MOST_FIGURES] if name in own
             for figure in _of_guard(own[name], incident, marks)]  # fmt: skip
    drawn += _shares(incident, history, marks)
    if drawn:
        yield Heading("Over time")
        yield from drawn


def _of_guard(line: facts.Guarded, incident: Incident, marks: Sequence[Mark]) -> Iterator[Figure]:
    signal = line.points[0][1].signal
    points = [(at, g) for at, g in line.points if g.estimate is not None]
    band = [(at, g.lower, g.upper) for at, g in points
            if g.lower is not None and g.upper is not None]  # fmt: skip
    curves = [
        Curve(incident.version, "canary", [(at, g.estimate or 0.0) for at, g in points], band)
    ]
    stable = [(at, g.stable_estimate) for at, g in points if g.stable_estimate is not None]
    if stable:
        curves.append(Curve(incident.stable or "stable", "stable", stable))
    elif points and points[-1][1].limit is not None:
        limit = points[-1][1].limit
        ends = [(points[0][0], limit), (points[-1][0], limit)]
        curves.append(Curve("limit", "limit", ends, dashed=True))
    words = f"{line.name}: what was seen, with its anytime interval where one is known"
    if (svg := draw(words, curves, marks, shown_as(signal))) is not None:
        yield Figure(words, svg)
    proof = [(at, g.evidence) for at, g in line.points if g.evidence is not None]
    threshold = next((g.threshold for _, g in reversed(line.points) if g.threshold), None)
    if not proof or threshold is None:
        return
    limit_line = Curve("threshold", "limit", [(proof[0][0], threshold), (proof[-1][0], threshold)],
                       dashed=True)  # fmt: skip
    words = f"{line.name}: evidence against its threshold, nats"
    svg = draw(words, [Curve("evidence", "canary", proof), limit_line], marks, "{:.3g}".format)
    if svg is not None:
        yield Figure(words, svg)


def _shares(
    incident: Incident, history: Sequence[Verdict], marks: Sequence[Mark]
) -> Iterator[Figure]:
    def line(name: str | None, tone: str, of: Callable[[Verdict], float | None]) -> Curve | None:
        points = [(v.decided_at, share) for v in history
                  if v.version == name and (share := of(v)) is not None]  # fmt: skip
        end = max((v.decided_at for v in history), default=0)
        return Curve(name or "", tone, list(steps(points, end))) if points else None

    pairs = ((incident.version, "canary"), (incident.stable, "stable"))
    for words, of in (("Share of the model's traffic", lambda v: v.share),
                      ("Share of predictions with a label", lambda v: v.coverage)):  # fmt: skip
        curves = [c for name, tone in pairs if (c := line(name, tone, of)) is not None]
        if (svg := draw(words, curves, marks, "{:.0%}".format)) is not None:
            yield Figure(words, svg)


def _evidence(incident: Incident) -> Iterator[Block]:
    guards = facts.guards_of(incident) or facts.breaches_of(incident)
    if not guards:
        return
    yield Heading("What the guards saw at the breach")
    heads = ("guard", "verdict", "estimate", "interval", "stable", "limit", "evidence", "rows")
    yield Table(heads, [_guard_row(guard) for guard in guards], frozenset(range(2, 8)))
    yield Paragraph("Evidence is the log of an e-value, in nats: at its threshold the chance of a "
                    "false alarm over the version's whole life is at most the guard's part of "
                    "alpha. A guard without evidence gives no such promise.")  # fmt: skip


def _guard_row(guard: GuardVerdict) -> Sequence[str]:
    shown = shown_as(guard.signal)

    def number(value: float | None) -> str:
        return "–" if value is None else shown(value)

    interval = f"{number(guard.lower)} to {number(guard.upper)}"
    proof = "–" if guard.evidence is None else f"{guard.evidence:.1f} of {guard.threshold:.1f}"
    limit = "–" if guard.limit is None else f"{guard.limit:g}"
    return (guard.name, guard.verdict, number(guard.estimate), interval,
            number(guard.stable_estimate), limit, proof, f"{guard.n:,}")  # fmt: skip


def _deeds(incident: Incident) -> Iterator[Block]:
    commands = [e.data for e in incident.entries if e.kind == "command"]
    receipts = {e.data.get("command_id"): e.data for e in incident.entries if e.kind == "receipt"}
    yield Heading("What was done")
    rows = []
    for command in commands:
        came = receipts.get(command.get("command_id"), {})
        rows.append((
            str(command.get("action")), f"{command.get('from_version')} → "
            f"{command.get('to_version')}", str(command.get("adapter")),
            str(came.get("status", "no receipt")), _percents(came.get("before")),
            _percents(came.get("after")), str(command.get("command_id"))[:12],
        ))  # fmt: skip
    if rows:
        heads = ("order", "from → to", "adapter", "receipt", "before", "after", "command")
        yield Table(heads, rows)
    else:
        yield Paragraph("No command was sent.")
    refused = facts.refused_of(incident)
    if refused:
        yield Heading("What was not done, and why")
        yield Table(("when (UTC)", "what", "in words"),
                    [(_when(e.at), e.kind, e.text) for e in refused])  # fmt: skip


def _percents(shares: object) -> str:
    if not isinstance(shares, dict) or not shares:
        return "–"
    return ", ".join(f"{name} {share:g} %" for name, share in sorted(shares.items()))


def _harm(incident: Incident, history: Sequence[Verdict]) -> Iterator[Block]:
    harm = facts.harm_of(incident, history)
    if harm is None:
        return
    yield Heading("What the rollback avoided (estimated)")
    least = ("" if harm.at_least_per_thousand is None
             else f" (at least {harm.at_least_per_thousand:.1f} by the anytime bound)")  # fmt: skip
    hour = ("" if harm.per_hour is None
            else f" At its traffic, that is about {harm.per_hour:,.0f} an hour.")  # fmt: skip
    yield Paragraph(
        f"{incident.version} gave about {harm.per_thousand:.1f} more bad predictions "
        f"({harm.signal}) per 1,000 rows that this signal speaks of than {harm.base}{least}.{hour} "
        "It assumes that the version would have gone on as it was."
    )


def _people() -> Iterator[Block]:
    yield Heading("For people")
    yield from (Blank(question) for question in QUESTIONS)


def _appendix(incident: Incident) -> Iterator[Block]:
    yield Heading("To check")
    opened = next((e for e in incident.entries if e.kind == "opened"), None)
    data = opened.data if opened is not None else {}
    rows = [("incident", incident.incident_id), ("rollout", incident.rollout_id),
            ("settings", str(data.get("config_digest", "–"))),
            ("deciding event", msgspec.json.encode(data.get("position", {})).decode())]  # fmt: skip
    yield Table(("name", "value"), rows)
    for entry in incident.entries:
        text = msgspec.json.format(msgspec.json.encode(entry), indent=2).decode()
        yield Data(f"{entry.kind} {to_text(entry.at)}", text)


def _when(at: int) -> str:
    # A no-break space, so that a narrow column does not tear day and time apart.
    return to_text(at).replace("T", "\N{NO-BREAK SPACE}").rstrip("Z")


def shown_as(signal: str) -> Callable[[float], str]:
    """How a signal's values are written."""
    if signal == "latency_ms":
        return "{:.0f} ms".format
    if signal in facts.SHARES or signal in ("accuracy", "precision", "recall", "traffic_share",
                                            "label_coverage"):  # fmt: skip
        return "{:.1%}".format
    return "{:.4g}".format


def span(took_ms: int) -> str:
    """Write a span for people.

    Examples
    --------
    >>> span(350), span(12_400), span(7_500_000)
    ('0.35 s', '12.4 s', '2 h 5 min')
    """
    if took_ms < 10_000:
        return f"{took_ms / 1000:.2f} s"
    if took_ms < 120_000:
        return f"{took_ms / 1000:.1f} s"
    minutes = took_ms // 60_000
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
