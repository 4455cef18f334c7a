"""What automatic rollbacks cost a model: its own budget, and the breaker behind it. Pure.

A rollback that is sent is a wall time in the model's state, so it survives whatever is killed; a
second try of the same incident costs nothing more. When a budget has refused once, the model is
*tripped*: its breaker stays open until every rollback of the budget's time is over, not only one,
so that a version that turns bad and well again at the pace of the budget is left to a person.
"""

from __future__ import annotations

from schemas.commands import Command
from schemas.policies import Policy
from service import harm
from service.watch.state import Model

MOST_ROLLBACKS = 100
"""Wall times that are remembered per model."""


def spend(model: Model, command: Command, tries: int) -> None:
    """A command goes out; only an automatic rollback's first try costs."""
    if command.actor != "rollbackd" or command.action != "rollback":
        return
    model.last_rollback_ms = command.issued_at
    model.tripped = False
    if not tries:
        model.rollbacks = [*model.rollbacks, command.issued_at][-MOST_ROLLBACKS:]


def trip(model: Model, refused: harm.Refuse) -> None:
    """A budget said no: the breaker opens."""
    if refused.reason == "budget":
        model.tripped = True


def left(model: Model, policy: Policy, now_wall_ms: int) -> int:
    """How many automatic rollbacks the model has left."""
    if model.tripped:
        return 0
    spent = harm.within(model.rollbacks, now_wall_ms, policy.budget.per.ms)
    return max(0, policy.budget.rollbacks - spent)
