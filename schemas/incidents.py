"""An incident: the durable story from breach to resolution, as the fold of its entries.

Entries are appended and never changed; each has an id derived from what caused it, so that writing
one twice changes nothing. The incident itself is not stored: it is what the entries add up to.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from msgspec import Struct

EntryKind = Literal[
    "opened", "evidence", "proposed", "withheld", "approved", "rejected", "command", "receipt",
    "verified", "unverified", "escalated", "paged", "acknowledged", "note", "resolved", "proven",
]  # fmt: skip
State = Literal[
    "open", "withheld", "proposed", "commanded", "applied", "verified", "unverified", "failed",
    "resolved",
]  # fmt: skip

_AFTER: dict[str, tuple[State, int]] = {
    "opened": ("open", 0),
    "withheld": ("withheld", 1),
    "proposed": ("proposed", 2),
    "approved": ("proposed", 3),
    "command": ("commanded", 4),
    "receipt": ("failed", 5),
    "unverified": ("unverified", 6),
    "verified": ("verified", 8),
    "rejected": ("resolved", 9),
    "resolved": ("resolved", 9),
}
"""The state after an entry of a kind, and its place in the story of one hop."""

_WITHHELD_AGAIN = 7
"""Place of a next hop that is withheld: after what traffic said about the last one."""

_AFTER_RECEIPT: dict[str, State] = {
    "applied": "applied",
    "already_there": "applied",
    "superseded": "resolved",
}
_FINAL = frozenset({"verified", "resolved"})
_FOR_EVER = 1_000_000
"""Hop of what nothing later can undo."""


class Entry(Struct, frozen=True, kw_only=True):
    """One thing that happened in an incident."""

    entry_id: str
    incident_id: str
    model: str
    version: str
    kind: EntryKind
    at: int
    """When it happened, epoch ms: event time for decisions, wall time for what was done."""
    recorded_at: int
    """When it was written, wall time, epoch ms."""
    reason: str
    text: str
    data: dict[str, Any] = {}
    """The message it came from, whole."""


class Incident(Struct, kw_only=True):
    """What the entries of one incident add up to."""

    incident_id: str
    model: str
    version: str
    state: State
    kind: str = "breach"
    """`breach`, or `promotion`: the record of a canary's way up."""
    opened_at: int
    updated_at: int
    reason: str
    text: str
    stable: str | None = None
    rollout_id: str = ""
    mode: str = ""
    guards: list[str] = []
    commands: list[str] = []
    receipts: list[str] = []
    rolled_back_to: str | None = None
    entries: list[Entry] = []


def fold(entries: Iterable[Entry]) -> Incident | None:
    """Add entries up, in the order in which they were recorded; None when there are none.

    Topics have no common order, so a breach may be recorded after its command and an approval
    after the receipt. The state is that of the entry that comes last in the story, not in the log.
    """
    incident: Incident | None = None
    for entry in entries:
        if incident is None:
            incident = Incident(
                incident_id=entry.incident_id, model=entry.model, version=entry.version,
                state="open", opened_at=entry.at, updated_at=entry.at,
                reason=entry.reason, text=entry.text,
            )  # fmt: skip
        _absorb(incident, entry)
    if incident is not None:
        incident.state = _state(incident.entries)
    return incident


def _absorb(incident: Incident, entry: Entry) -> None:
    incident.entries = [*incident.entries, entry]
    incident.updated_at = max(incident.updated_at, entry.at)
    if entry.kind == "opened":
        incident.text, incident.reason, incident.version = entry.text, entry.reason, entry.version
        incident.opened_at = entry.at
        incident.stable = entry.data.get("stable")
        incident.rollout_id = entry.data.get("rollout_id", "")
        incident.guards = [*incident.guards, str(entry.data.get("guard", ""))]
    elif entry.kind == "proven":
        incident.kind, incident.text, incident.reason = "promotion", entry.text, entry.reason
        incident.version = entry.version
    elif entry.kind == "evidence":
        incident.guards = [*incident.guards, str(entry.data.get("guard", ""))]
    elif entry.kind == "command":
        incident.commands = [*incident.commands, str(entry.data.get("command_id", ""))]
        incident.mode = str(entry.data.get("mode", ""))
    elif entry.kind == "receipt":
        status = str(entry.data.get("status", ""))
        incident.receipts = [*incident.receipts, status]
        rolled_back = entry.data.get("action", "rollback") == "rollback"
        if _AFTER_RECEIPT.get(status) == "applied" and rolled_back:
            incident.rolled_back_to = str(entry.data.get("to_version", "")) or None


def _state(entries: list[Entry]) -> State:
    hops: dict[Any, int] = {
        entry.data.get("command_id"): int(entry.data.get("hop") or 1)
        for entry in entries
        if entry.kind == "command"
    }
    state: State = "open"
    latest = (0, 0)
    for entry in entries:
        if entry.kind not in _AFTER:
            continue
        after, place = _AFTER[entry.kind]
        if entry.kind == "receipt":
            after = _AFTER_RECEIPT.get(str(entry.data.get("status", "")), after)
        hop = _FOR_EVER if after in _FINAL else _hop(entry, hops)
        if entry.kind == "withheld" and hop:
            place = _WITHHELD_AGAIN
        # Of two receipts of one command the later recorded counts: it was carried out again.
        if (hop, place) >= latest:
            state, latest = after, (hop, place)
    return state


def _hop(entry: Entry, hops: Mapping[Any, int]) -> int:
    """Which try an entry speaks of; 0: none yet."""
    command_id = entry.data.get("command_id")
    if command_id in hops:
        return hops[command_id]
    # Its command is still to be recorded, so it belongs to a newer try than all that are.
    return max(hops.values(), default=0) + 1 if entry.kind in ("receipt", "unverified") else 0
