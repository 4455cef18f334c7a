"""Turn what happened into entries of its incident.

Why. The log must tell the whole story to someone who was asleep: what was found, what was ordered,
what came of it, and why nothing was done where nothing was done.

How. Pure: the same message gives the same entry, under an id derived from the incident, the kind of
entry and the message's own id. Writing an entry again changes nothing, so a message that comes
twice is harmless. `recorded_at` is an argument and no part of an id.

The first breach of an incident opens it; every later one is evidence. Only the log knows which was
first, so the caller says by which breach the incident was opened.

Refused here: judging. A breach whose action is `alert` opens an incident like any other, and its
text says that no rollback follows.
"""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.commands import Command
from schemas.facts import Breach, Progress, Receipt
from schemas.ids import entry_id
from schemas.incidents import Entry, EntryKind

_RECEIVED = {
    "applied": "The platform has applied it",
    "already_there": "The platform was already there",
    "superseded": "Someone else had moved traffic first; nothing was changed",
    "refused": "The command was refused",
    "expired": "The command came too late and was dropped",
    "failed": "The platform did not apply it",
    "partial": "The platform applied only a part of it",
}


def entry_of_breach(breach: Breach, opened_by: str | None, recorded_at: int) -> Entry:
    """Open the incident, or add evidence to it.

    Parameters
    ----------
    opened_by : str or None
        `breach_id` of the breach that opened the incident; None: nothing has opened it yet.
    """
    first = opened_by is None or opened_by == breach.breach_id
    kind: EntryKind = "opened" if first else "evidence"
    text = f"Alert only: {breach.text}" if breach.action == "alert" else breach.text
    return Entry(
        entry_id=entry_id(breach.incident_id, kind, breach.breach_id),
        incident_id=breach.incident_id,
        model=breach.model,
        version=breach.version,
        kind=kind,
        at=breach.decided_at,
        recorded_at=recorded_at,
        reason=breach.reason,
        text=text,
        data=_data(breach),
    )


def entry_of_command(command: Command, recorded_at: int) -> Entry:
    """Note that an order went out."""
    by = "" if command.actor == "rollbackd" else f" by {command.actor}"
    again = f", try {command.hop}" if command.hop > 1 else ""
    dry = "Dry run: " if command.dry_run else ""
    return Entry(
        entry_id=entry_id(command.incident_id, "command", command.command_id),
        incident_id=command.incident_id,
        model=command.model,
        version=command.from_version,
        kind="command",
        at=command.issued_at,
        recorded_at=recorded_at,
        reason=command.action,
        text=f"{dry}{_order(command)} ordered{by} on {command.adapter}{again}. {command.reason}",
        data=_data(command),
    )


def entry_of_receipt(receipt: Receipt, recorded_at: int) -> Entry:
    """Note what came of an order."""
    detail = receipt.detail.get("reason") or receipt.detail.get("error") or ""
    text = f"{_RECEIVED[receipt.status]} ({receipt.adapter})"
    return Entry(
        entry_id=entry_id(receipt.incident_id, "receipt", f"{receipt.command_id}:{receipt.status}"),
        incident_id=receipt.incident_id,
        model=receipt.model,
        version=receipt.from_version,
        kind="receipt",
        at=receipt.finished_at,
        recorded_at=recorded_at,
        reason=receipt.status,
        text=f"{text}: {detail}" if detail else f"{text}.",
        data=_data(receipt),
    )


def entry_of_progress(progress: Progress, version: str, recorded_at: int) -> Entry:
    """Note what `watch` knows of an incident; its kinds are entries of the same name.

    Parameters
    ----------
    version : str
        The incident's version, which the message itself does not name.
    """
    return Entry(
        entry_id=entry_id(progress.incident_id, progress.kind, progress.progress_id),
        incident_id=progress.incident_id,
        model=progress.model,
        version=version,
        kind=progress.kind,
        at=progress.at,
        recorded_at=recorded_at,
        reason=progress.reason,
        text=progress.text,
        data=_data(progress),
    )


def _order(command: Command) -> str:
    if command.action == "shift" and command.weight is not None:
        return f"Shift of {command.from_version} to {command.weight:.0%}"
    if command.action == "hold":
        return f"Hold of {command.from_version}"
    if command.action == "promote":
        return f"Promotion of {command.to_version}"
    return f"Rollback from {command.from_version} to {command.to_version}"


def _data(message: Any) -> dict[str, Any]:
    """The whole message as plain data; what is not finite becomes null."""
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(message))
    return plain
