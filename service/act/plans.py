"""What a platform says, what would be written, and how the two compare. Data and pure questions.

Why. Whether a command still fits what serves, and whether a read-back is what was asked for, is the
same on every platform. Asked here once, over shares in percent, an adapter only translates.

The order in which an adapter's `plan` asks matters: a known target first; then whether it serves
already, so that a repeat is `already_there` and never `superseded`; then what was expected; then
whether the target can take traffic.

Refused here: any reading, any writing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any, Literal, NamedTuple

from msgspec import Struct

from schemas.commands import Command
from schemas.facts import ReceiptStatus

Settled = Literal["settled", "pending", "mixed", "reverted"]
"""As wanted; still moving; something between; back where it was."""

POINT = 1.0
"""How far, in percent, a share may lie from the one asked for: weights are whole numbers."""


class Current(Struct, frozen=True, kw_only=True):
    """What a platform says at one moment."""

    shares: dict[str, float] | None
    """Percent of each version that the platform lists; None: it cannot be asked."""
    ready: dict[str, bool] | None = None
    """Which versions could take traffic; None: the platform does not say."""
    lingering: list[str] = []
    """Versions without a share that still get the requests of old sessions."""
    transition: bool = False
    """The platform is moving; nothing may be written."""
    owner: str = ""
    raw: dict[str, Any] = {}
    """What was read, without secrets, for undo and audit."""


class Plan(Struct, frozen=True, kw_only=True):
    """What would be written."""

    wanted: dict[str, float]
    """Percent by version when it is done; empty: the command moves no traffic."""
    before: dict[str, float] | None = None
    requests: list[dict[str, str]] = []
    """In order, as plain data; empty: nothing to do."""
    diff: str = ""
    """The same for a person."""
    touches: list[str] = []
    lock: str = "advisory"
    """`advisory`: the platform has no precondition, the read-back decides."""
    undo: list[str] = []
    notes: list[str] = []
    """What a person should know about this platform's way of keeping the change."""


class Refusal(NamedTuple):
    """Why nothing is written."""

    status: ReceiptStatus
    rule: str
    reason: str
    text: str


class Applied(Struct, frozen=True, kw_only=True):
    """What a platform answered to a write."""

    status: ReceiptStatus | None = None
    """Its own word for what came of it; None: it has none."""
    shares: dict[str, float] | None = None
    """What it says serves now, for platforms that cannot be asked later."""
    handle: str = ""
    """Not empty: accepted, and this is where to follow it."""
    retry_after_s: float | None = None
    text: str = ""
    log: list[dict[str, Any]] = []
    """Requests as made: what, status; no bodies, no secrets."""


def wanted_shares(command: Command) -> dict[str, float]:
    """Percent by version when a command is done; empty for `hold`, which moves no traffic."""
    if command.action == "hold":
        return {}
    if command.action == "promote":
        return {command.to_version: 100.0}
    parts = {version: 100 * share for version, share in command.keeps.items()}
    if command.action == "shift":
        parts[command.from_version] = 100 * (command.weight or 0.0)
    parts[command.to_version] = 100 - sum(parts.values())
    return {version: part for version, part in parts.items() if part > 0}


def differs(now: Current, wanted: Mapping[str, float]) -> str:
    """Say how what serves differs from what is wanted; empty: it does not."""
    if not wanted:
        return ""
    shares = now.shares or {}
    for version in sorted({*shares, *wanted}):
        share, goal = shares.get(version, 0.0), wanted.get(version, 0.0)
        # Nothing must be nothing: a rest of half a percent is a version that still serves.
        if (share > 0) != (goal > 0) or abs(share - goal) > POINT:
            return f"{version} has {share:g} %, not {goal:g} %"
    clinging = [version for version in now.lingering if not wanted.get(version)]
    return f"{clinging[0]} still gets old sessions" if clinging else ""


def compare(now: Current, plan: Plan) -> Settled:
    """Judge a read-back: settled, still moving, back where it was, or something between."""
    if now.transition:
        return "pending"
    if not differs(now, plan.wanted):
        return "settled"
    if plan.before is not None and not differs(now, plan.before):
        return "reverted"
    return "mixed"


def fault_of_target(command: Command, known: Collection[str]) -> Refusal | None:
    """Refuse versions that the settings do not map to anything on the platform."""
    for version in (command.to_version, command.from_version):
        if version not in known:
            text = f"version {version!r} is not mapped to a server; add it to the adapter's map"
            return Refusal("refused", "H1", "no_target", text)
    return None


def fault_of_expected(now: Current, command: Command) -> Refusal | None:
    """Compare and set: refuse when somebody else moved it since the command was made.

    Which versions serve must be what the command expects. How much each has may have changed (a
    running step is no reason to leave a bad version in), except for a shift, which builds on it.
    """
    if now.shares is None:
        return None
    expected = command.expected
    serving = {version for version, share in now.shares.items() if share > 0}
    named = {version for version in (expected.stable, expected.canary) if version is not None}
    named |= set(command.keeps)
    # A canary that waits at weight 0, or one that has all, is part of the plan without a share.
    needed = set(named)
    if expected.weight == 0:
        needed.discard(expected.canary or "")
    if expected.weight == 1:
        needed.discard(expected.stable or "")
    if not needed <= serving <= named:
        found = ", ".join(sorted(serving)) or "nothing"
        text = f"{found} serves, where {', '.join(sorted(named))} was expected"
        return Refusal("superseded", "H2", "superseded", text)
    canary, weight = expected.canary, expected.weight
    if command.action == "shift" and canary is not None and weight is not None:
        share = now.shares.get(canary, 0.0)
        if abs(share - 100 * weight) > POINT:
            text = f"{canary} has {share:g} %, where {100 * weight:g} % was expected"
            return Refusal("superseded", "H2", "superseded", text)
    return None


def fault_of_ready(now: Current, wanted: Mapping[str, float]) -> Refusal | None:
    """Refuse to send traffic to what is not there or cannot take it."""
    for version, share in wanted.items():
        if share <= 0 or now.ready is None:
            continue
        if version not in now.ready:
            text = f"version {version!r} does not exist on the platform"
            return Refusal("refused", "H1", "no_target", text)
        if not now.ready[version]:
            text = f"version {version!r} is not ready to take traffic"
            return Refusal("refused", "H1", "not_ready", text)
    return None
