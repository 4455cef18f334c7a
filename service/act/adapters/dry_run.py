"""The adapter that changes nothing: it shows what would be done, and says so in every receipt.

It is the default of a policy that names no adapter. It has no platform to read, so it believes what
a command expects; what it was told to do within a rollout it remembers (in memory), so that the
same order twice is answered as on a real platform.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Adapter, Ask, Pace
from service.act.plans import (
    Applied,
    Current,
    Plan,
    Refusal,
    differs,
    fault_of_expected,
    wanted_shares,
)


@plugin("dry_run")
@dataclass
class DryRun(Adapter):
    """Tells what a real adapter would do."""

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "hold", "promote"})
    dry: ClassVar[bool] = True

    _told: dict[str, tuple[str, dict[str, float]]] = field(default_factory=dict, init=False)
    """model -> (rollout, percent by version) as last told."""

    @property
    def pace(self) -> Pace:
        """Nothing takes time."""
        return Pace(call_s=5.0, settle_s=0.0, poll_s=1.0)

    async def current(self, ask: Ask) -> Current:
        """Give what was last told about this rollout, else what the command expects."""
        rollout, shares = self._told.get(ask.command.model, ("", {}))
        if rollout == ask.command.rollout_id:
            return Current(shares=shares)
        return Current(shares=_expected_shares(ask.command))

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Plan as if there were a platform."""
        wanted = wanted_shares(command)
        if wanted and not differs(now, wanted):
            return Plan(wanted=wanted, before=now.shares)
        if refusal := fault_of_expected(now, command):
            return refusal
        words = ", ".join(f"{version} {share:g} %" for version, share in wanted.items())
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[{"do": command.action}],
            diff=f"would {command.action}: {words or 'stop at what serves now'}",
            notes=["a dry run: no platform was asked and none was changed"],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Remember it, nothing else."""
        if plan.wanted:
            self._told[ask.command.model] = (ask.command.rollout_id, dict(plan.wanted))
        return Applied(status="applied", text="nothing was changed")

    async def missing(self) -> list[str]:
        """Nothing can be missing."""
        return []


def _expected_shares(command: Command) -> dict[str, float]:
    expected = command.expected
    share = 100 * (expected.weight or 0.0) if expected.canary is not None else 0.0
    if expected.canary is not None and expected.weight is None:
        share = 50.0  # unknown, but it serves
    shares = {} if expected.stable is None else {expected.stable: 100 - share}
    return shares if expected.canary is None else {**shares, expected.canary: share}
