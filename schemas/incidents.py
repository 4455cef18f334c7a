"""An incident: the durable story from breach to resolution, as the fold of its entries.

Entries are appended and never changed; each has an id derived from what caused it, so that writing
one twice changes nothing. The incident itself is not stored: it is what the entries add up to.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

from msgspec import Struct

EntryKind = Literal[
    "opened", "evidence", "proposed", "withheld", "approved", "rejected", "command", "receipt",
    "verified", "unverified", "escalated", "paged", "acknowledged", "note", "resolved",
]  # fmt: skip
State = Literal[
    "open", "withheld", "proposed", "commanded", "applied", "verified", "unverified", "failed",
    "resolved",
]  # fmt: skip

_STATE_AFTER: dict[str, State] = {
    "opened": "open",
    "withheld": "withheld",
    "proposed": "proposed",
    "approved": "proposed",
    "rejected": "resolved",
    "command": "commanded",
    "verified": "verified",
    "unverified": "unverified",
    "resolved": "resolved",
}
_AFTER_RECEIPT: dict[str, State] = {
    "applied": "applied",
    "already_there": "applied",
    "superseded": "resolved",
}
_FINAL = frozenset({"verified", "resolved"})


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
    """Add entries up, in the order in which they were recorded; None when there are none."""
    incident: Incident | None = None
    for entry in entries:
        if incident is None:
            incident = Incident(
                incident_id=entry.incident_id, model=entry.model, version=entry.version,
                state="open", opened_at=entry.at, updated_at=entry.at,
                reason=entry.reason, text=entry.text,
            )  # fmt: skip
        _absorb(incident, entry)
    return incident


def _absorb(incident: Incident, entry: Entry) -> None:
    incident.entries = [*incident.entries, entry]
    incident.updated_at = max(incident.updated_at, entry.at)
    after = _STATE_AFTER.get(entry.kind)
    if entry.kind == "opened":
        # Topics have no common order: the breach may be recorded after its command and receipt.
        after = None
        incident.text, incident.reason, incident.version = entry.text, entry.reason, entry.version
        incident.opened_at = entry.at
        incident.stable = entry.data.get("stable")
        incident.rollout_id = entry.data.get("rollout_id", "")
        incident.guards = [*incident.guards, str(entry.data.get("guard", ""))]
    elif entry.kind == "evidence":
        incident.guards = [*incident.guards, str(entry.data.get("guard", ""))]
    elif entry.kind == "command":
        incident.commands = [*incident.commands, str(entry.data.get("command_id", ""))]
        incident.mode = str(entry.data.get("mode", ""))
        after = None if _has_receipt(incident, entry) else after
    elif entry.kind == "receipt":
        status = str(entry.data.get("status", ""))
        incident.receipts = [*incident.receipts, status]
        after = _AFTER_RECEIPT.get(status, "failed")
        if after == "applied":
            incident.rolled_back_to = str(entry.data.get("to_version", "")) or None
    # A late entry of an earlier kind must not reopen what traffic has confirmed.
    if after is not None and (
        incident.state not in _FINAL or entry.kind in ("verified", "resolved")
    ):
        incident.state = after


def _has_receipt(incident: Incident, command: Entry) -> bool:
    command_id = command.data.get("command_id")
    return any(
        entry.kind == "receipt" and entry.data.get("command_id") == command_id
        for entry in incident.entries
    )
