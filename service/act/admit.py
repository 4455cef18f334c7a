"""May this command be carried out at all? A pure answer, before any platform is asked.

Why. A command travels; between its decision and its execution its owner can be replaced, its time
can pass, and a person can say stop. These questions are asked here, in this order, once; those that
can change until the last moment (H4, H5, H10) are asked again right before each write.

What binds whom: H6 to H11 bind automatic commands only. What a person ordered passes a hold and the
mode, but never a lower fence, an expiry or a missing expectation.

The rules themselves stand in `service/harm.py`, beside those that `watch` asks.

Refused here: knowing platforms. Whether a version exists, serves or is ready is `plan`'s question,
with the platform's fresh answer at hand. Budgets and cool-downs are `watch`'s.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from schemas.commands import Action, Command
from service import harm
from service.harm import Refuse as Refuse

AUTOMATIC = "rollbackd"
"""The actor of a command that no person ordered."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]")


class Allow(NamedTuple):
    """Nothing speaks against it."""


class Live(NamedTuple):
    """What is true at this moment."""

    now_ms: int
    """Wall time."""
    fence: int
    """The highest fence seen for the command's model."""
    stop: str | None
    """Why no automatic action may be taken (a hold, the kill switch, or doubt about them)."""
    can: frozenset[Action] | None
    """The verbs of the command's adapter; None: this process has no such adapter."""


def fault_of_command(command: Command, key: bytes) -> str | None:
    """Say why a signed message is no order about one model, or None.

    Such a message gets no receipt: it names no incident that could hold it.
    """
    for name in ("command_id", "incident_id"):
        if not _ID.fullmatch(getattr(command, name)):
            return f"command.{name} must be 1 to 128 of letters, digits, - and _"
    if fault := _fault_of_name(command.model):
        return f"command.model {fault}"
    if key != command.model.encode():
        return "the message's key is not its model"
    return None


def admit(command: Command, live: Live) -> Allow | Refuse:
    """Judge a command by what is true now."""
    return _fault_of_words(command, live) or standing(command, live) or Allow()


def standing(command: Command, live: Live) -> Refuse | None:
    """Ask what can change until the last moment; asked again right before each write."""
    automatic = command.actor == AUTOMATIC
    return (
        harm.fence(command.fence, live.fence, command.model)
        or harm.expiry(command.expires_at, live.now_ms)
        or harm.switch(live.stop, automatic)
    )


def _fault_of_words(command: Command, live: Live) -> Refuse | None:
    """Ask what the command itself says: one model, one target, one known verb."""
    if live.can is None:
        text = f"there is no adapter {command.adapter!r} here; see `adapters` in rollbackd.yaml"
        return Refuse("H13", "unknown_adapter", text, {"adapter": command.adapter})
    if command.action not in live.can:
        text = f"the adapter {command.adapter!r} cannot {command.action}"
        return Refuse("H13", "unknown_verb", text, {"can": sorted(live.can)})
    for name in ("from_version", "to_version"):
        if fault := _fault_of_name(getattr(command, name)):
            return Refuse("H13", "no_target", f"command.{name} {fault}", {})
    if command.from_version == command.to_version:
        text = "the command names the same version as the one to leave and the one to serve"
        return Refuse("H13", "no_target", text, {})
    if command.action == "shift" and not (command.weight is not None and 0 <= command.weight <= 1):
        return Refuse("H13", "no_weight", "a shift needs a weight in [0, 1]", {})
    return harm.expectation(command.expected.stable) or harm.permission(
        command.mode, command.actor == AUTOMATIC
    )


def _fault_of_name(name: str) -> str | None:
    if not 1 <= len(name) <= 128:
        return "must have 1 to 128 characters"
    if _CONTROL.search(name):
        return "must hold no control characters"
    return "must name exactly one, without wildcards" if "*" in name else None
