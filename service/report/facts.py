"""What can be said of an incident from its entries and the verdicts around it. Pure.

Times: decisions carry event time, deeds carry wall time; spans between the two kinds are therefore
as good as the producers' clocks, and the report says so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from schemas.incidents import Entry, Incident
from schemas.verdicts import GuardVerdict, Verdict

HOUR_MS = 3600 * 1000
SHARES = frozenset({
    "error_rate", "error", "false_positive_rate", "false_negative_rate", "fp_per_prediction",
})  # fmt: skip
"""Signals whose estimate is a share of bad predictions, so that harm can be counted."""


class Spans(NamedTuple):
    """How long each part took, ms; None where the story did not come so far."""

    detect: int | None
    """From the canary's first verdict to the breach."""
    command: int | None
    apply: int | None
    verify: int | None
    """From the receipt to the proof."""
    restore: int | None
    """From the breach to the proof."""


class Harm(NamedTuple):
    """Bad predictions that a rollback avoided, estimated."""

    signal: str
    per_thousand: float
    """More bad ones than with stable, per 1,000 rows that the guard judges (for a false-positive
    rate: per 1,000 true negatives)."""
    at_least_per_thousand: float | None
    """By the anytime lower bound; None where the guard gives none."""
    per_hour: float | None
    """At the canary's last traffic; None where that is not known."""
    base: str
    """Against what."""


class Guarded(NamedTuple):
    """One guard over time."""

    name: str
    points: list[tuple[int, GuardVerdict]]


def breaches_of(incident: Incident) -> list[GuardVerdict]:
    """The evidence of each guard that breached, in order."""
    found = [e.data.get("evidence") for e in incident.entries if e.kind in ("opened", "evidence")]
    return [_guard(one) for one in found if isinstance(one, dict)]


def guards_of(incident: Incident) -> list[GuardVerdict]:
    """All guards as they stood at the first breach."""
    opened = next((e for e in incident.entries if e.kind == "opened"), None)
    found = opened.data.get("guards") if opened is not None else None
    return [_guard(one) for one in found or [] if isinstance(one, dict)]


def _guard(data: dict[str, Any]) -> GuardVerdict:
    known = {name: data[name] for name in GuardVerdict.__struct_fields__ if name in data}
    return GuardVerdict(**known)


def spans_of(incident: Incident, history: Sequence[Verdict]) -> Spans:
    """How long detection, command, application and proof took."""
    breach = _at(incident, "opened")
    command, receipt = _at(incident, "command"), _at(incident, "receipt")
    proof = _at(incident, "verified")
    own = [v.decided_at for v in history if v.version == incident.version
           and v.rollout_id == incident.rollout_id and v.role == "canary"]  # fmt: skip
    return Spans(
        _between(min(own, default=None), breach), _between(breach, command),
        _between(command, receipt), _between(receipt, proof), _between(breach, proof),
    )  # fmt: skip


def _at(incident: Incident, kind: str) -> int | None:
    times = [entry.at for entry in incident.entries if entry.kind == kind]
    return times[0] if times else None


def _between(first: int | None, last: int | None) -> int | None:
    return None if first is None or last is None or last < first else last - first


def harm_of(incident: Incident, history: Sequence[Verdict]) -> Harm | None:
    """Estimate what the rollback avoided; None when nothing was rolled back or counted."""
    if incident.rolled_back_to is None:
        return None
    guard = next((g for g in breaches_of(incident) if g.signal in SHARES and g.estimate), None)
    if guard is None or guard.estimate is None:
        return None
    base, named = guard.stable_estimate, f"{incident.stable}'s share at that time"
    if base is None:
        base, named = guard.limit, "the limit"
    if base is None:
        return None
    lower = None if guard.lower is None else max(0.0, guard.lower - base)
    excess = guard.estimate - base
    rate = rate_of(incident, guard.name, history)
    per_hour = None if rate is None else excess * rate * HOUR_MS
    at_least = None if lower is None else 1000 * lower
    return Harm(guard.signal, 1000 * excess, at_least, per_hour, named)


def rate_of(incident: Incident, guard: str, history: Sequence[Verdict]) -> float | None:
    """Rows of the version that a guard saw, per ms, up to the breach; None when that is unknown."""
    line = over_time(history, incident.version).get(guard)
    known = [(at, g.n) for at, g in line.points if at <= incident.opened_at] if line else []
    if len(known) < 2 or known[-1][0] <= known[0][0] or known[-1][1] <= known[0][1]:
        return None
    return (known[-1][1] - known[0][1]) / (known[-1][0] - known[0][0])


def over_time(history: Iterable[Verdict], version: str) -> dict[str, Guarded]:
    """Each guard of a version over time, by name."""
    found: dict[str, Guarded] = {}
    for verdict in history:
        if verdict.version != version:
            continue
        for guard in verdict.guards:
            line = found.setdefault(guard.name, Guarded(guard.name, []))
            line.points.append((verdict.decided_at, guard))
    return found


def refused_of(incident: Incident) -> list[Entry]:
    """What was not done, or not with effect, and why."""
    return [
        entry for entry in incident.entries
        if entry.kind in ("withheld", "rejected", "unverified", "escalated", "paged")
        or (entry.kind == "receipt" and entry.reason not in ("applied", "already_there"))
    ]  # fmt: skip
