"""Orders: what is to be done. Imperative, with an expiry; `schemas/facts.py` says what was done."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

Action = Literal["rollback", "shift", "hold", "promote"]
Mode = Literal["observe", "propose", "enforce"]


class Expected(Struct, frozen=True):
    """What serves, as last known: the compare-and-set of a command."""

    stable: str | None
    canary: str | None
    weight: float | None


class Command(Struct, frozen=True, kw_only=True):
    """One order about one model and one target. There are no wildcards and no lists here."""

    command_id: str
    action: Action
    model: str
    rollout_id: str
    from_version: str
    to_version: str
    weight: float | None = None
    """Only for `shift`: the wanted share of `from_version`, in [0, 1]."""
    keeps: dict[str, float] = {}
    """Other canaries, which keep their shares, in [0, 1]."""
    expected: Expected
    incident_id: str
    issued_at: int
    expires_at: int
    """Epoch ms of wall time; an expired command is dropped and said to be."""
    fence: int
    """Only grows per model; an adapter refuses a lower one."""
    mode: Mode
    reason: str
    adapter: str
    hop: int = 1
    """1 for the first try, 2 after an unverified first one."""
    dry_run: bool = False
    actor: str = "rollbackd"
    """Who ordered it: rollbackd itself, or a person."""


class Order(Struct, frozen=True, kw_only=True):
    """What a person wants: approval of a proposed command, or a command of their own."""

    order_id: str
    kind: Literal["approve", "reject", "rollback", "promote"]
    model: str
    command_id: str | None = None
    """The proposal that is approved or rejected."""
    actor: str
    reason: str
    at: int
    """Wall time, epoch ms."""


class Hold(Struct, frozen=True, kw_only=True):
    """An operator's dated "do not act". `model` is a model's name, or `*` for the kill switch."""

    model: str
    active: bool
    reason: str
    actor: str
    at: int
    until: int | None = None
    """Wall time at which it ends by itself, epoch ms; None: until released."""
