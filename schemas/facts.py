"""Facts: what was found and what came of an order. Past tense; `schemas/commands.py` has orders."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from schemas.verdicts import GuardVerdict, Roles

ReceiptStatus = Literal[
    "applied", "already_there", "superseded", "refused", "expired", "failed", "partial"
]
BreachAction = Literal["rollback", "hold", "alert"]


class Breach(Struct, frozen=True, kw_only=True):
    """A guard's objective failed, with its evidence."""

    breach_id: str
    incident_id: str
    model: str
    version: str
    rollout_id: str
    guard: str
    signal: str
    action: BreachAction
    reason: str
    text: str
    evidence: GuardVerdict
    stable: str | None
    roles: Roles
    decided_at: int
    """Event time, epoch ms."""
    position: dict[str, int | str]
    config_digest: str
    guards: list[GuardVerdict] = []
    """All guards at that moment, frozen for the record."""
    weight: float | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """What came of one command, by the platform's own account."""

    command_id: str
    status: ReceiptStatus
    before: dict[str, float]
    """Version -> percent before, as read."""
    after: dict[str, float]
    detail: dict[str, Any]
    adapter: str
    started_at: int
    finished_at: int
    attempts: int
    model: str
    incident_id: str
    action: str = "rollback"
    from_version: str = ""
    to_version: str = ""


ProgressKind = Literal[
    "proposed", "withheld", "approved", "rejected", "verified", "unverified", "escalated", "paged",
    "proven",
]  # fmt: skip


class Progress(Struct, frozen=True, kw_only=True):
    """What `watch` knows of an incident between and after breach, command and receipt."""

    progress_id: str
    incident_id: str
    model: str
    kind: ProgressKind
    reason: str
    """One word: the rule that withheld a command, or what verification saw."""
    text: str
    at: int
    """Event time, epoch ms; wall time for people's orders."""
    command_id: str | None = None
    command: Any = None
    """The proposed command, so that an approval can be bound to it."""
    evidence: dict[str, Any] = {}


class DeadLetter(Struct, frozen=True, kw_only=True):
    """Refused input: why, from where, and the original bytes."""

    reason: str
    topic: str
    partition: int
    offset: int
    at: int
    """Wall time of the refusal, epoch ms."""
    key: bytes | None = None
    value: bytes = b""
    """The original bytes (base64 in JSON), cut at 64 KiB."""
    size: int = 0
    """Length of the original in bytes."""
