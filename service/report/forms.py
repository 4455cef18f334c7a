"""The forms in which a report is written, and what it is told from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec

from schemas.incidents import Incident
from schemas.verdicts import Verdict
from service.report.facts import harm_of, spans_of
from service.report.html import to_html
from service.report.markdown import to_markdown
from service.report.story import report_of

AROUND_MS = 6 * 3600 * 1000
"""How far before and after an incident its report looks."""


class Log(Protocol):
    """Where incidents are found."""

    def incident(self, prefix: str) -> Incident | None:
        """Give one incident with its entries."""
        ...


class History(Protocol):
    """Where verdicts over time are found."""

    def between(self, model: str, first_ms: int, last_ms: int) -> list[Verdict]:
        """Give a model's verdicts of a span of event time, oldest first."""
        ...


def told(log: Log, history: History, prefix: str) -> tuple[Incident, list[Verdict]] | None:
    """Find an incident by its id or a beginning only it has, with the verdicts around it."""
    one = log.incident(prefix)
    if one is None:
        return None
    first, last = one.opened_at - AROUND_MS, one.updated_at + AROUND_MS
    return one, history.between(one.model, first, last)


def _as_json(incident: Incident, history: Sequence[Verdict]) -> str:
    harm = harm_of(incident, history)
    data = {
        "incident": incident, "spans_ms": spans_of(incident, history)._asdict(),
        "harm": harm._asdict() if harm else None, "history": history,
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n"


WRITERS: dict[str, Callable[[Incident, Sequence[Verdict]], str]] = {
    "html": lambda incident, history: to_html(report_of(incident, history)),
    "md": lambda incident, history: to_markdown(report_of(incident, history)),
    "json": _as_json,
}
