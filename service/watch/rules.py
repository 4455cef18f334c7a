"""Gather what the do-no-harm rules look at, and ask them. The rules stand in `service/harm.py`.

Holds, the kill switch and what is known of the whole fleet are read by the shell, immediately
before a command would be sent, and come in as facts.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.policies import Policy
from service import harm
from service.harm import Fleet, Refuse, Wish
from service.watch import ledger
from service.watch.plan import role_of
from service.watch.state import Case, Model
from service.watch.weights import canaries_of


class Facts(NamedTuple):
    """What the rules look at, besides policy and state."""

    now_wall_ms: int
    held: str | None
    """Why automatic action is held, or None; an unreadable switch is a reason too."""
    both_moved: bool = False
    stable_ill: bool = False
    automatic: bool = True
    fleet: Fleet | None = None
    frozen: str | None = None
    """Why nothing is promoted now, or None."""


def refusal(case: Case, model: Model, policy: Policy, facts: Facts) -> Refuse | None:
    """Give the first rule that forbids the command of a case, or None.

    Examples
    --------
    >>> case = Case("i", "v2", None, "r", 0)
    >>> refusal(case, Model("m"), Policy(model="m", mode="enforce"), Facts(0, None)).reason
    'no_target'
    """
    return harm.judge(wish_of(case, model, policy, facts))


def wish_of(case: Case, model: Model, policy: Policy, facts: Facts) -> Wish:
    """Write down everything that the rules look at."""
    plan, promotes = model.plan, case.kind == "promotion"
    last_ms = model.rollbacks[-1] if model.rollbacks else None
    return Wish(
        automatic=facts.automatic,
        promotes=promotes,
        tries=case.hop - case.base,
        mode=policy.mode,
        roles=plan is None or not plan.inferred or (policy.roles == "inferred" and not promotes),
        target=_target(case, model),
        target_fault=_fault_of_target(case, model, policy),
        serves=_serves(case, model),
        planned=case.kind == "promotion" or role_of(model, case.version) != "extra",
        restored=not promotes and _is_stable(case, model)
        and ledger.just_restored(model, case.version, policy),
        retries=policy.retries,
        proven=case.proven and not _in_trouble(case, model),
        both_moved=facts.both_moved,
        stable_ill=facts.stable_ill,
        age_ms=facts.now_wall_ms - model.now_ms,
        max_age_ms=policy.max_decision_age.ms,
        since_rollback_ms=None if last_ms is None else facts.now_wall_ms - last_ms,
        cooldown_ms=policy.cooldown.ms,
        spent=harm.within(model.rollbacks, facts.now_wall_ms, policy.budget.per.ms),
        budget=policy.budget.rollbacks,
        tripped=model.tripped,
        fleet=facts.fleet,
        frozen=facts.frozen,
        held=facts.held,
    )  # fmt: skip


def _target(case: Case, model: Model) -> str | None:
    if model.plan is None or case.stable is None or case.stable == case.version:
        return None
    return case.version if case.kind == "promotion" else case.stable


def _serves(case: Case, model: Model) -> bool:
    plan = model.plan
    if plan is None:
        return False
    if case.kind == "promotion":
        return (plan.canary, plan.stable) == (case.version, case.stable)
    return case.version in (plan.stable, *canaries_of(plan))


def _is_stable(case: Case, model: Model) -> bool:
    return model.plan is not None and case.version == model.plan.stable


def _fault_of_target(case: Case, model: Model, policy: Policy) -> str | None:
    plan, target = model.plan, _target(case, model)
    if plan is None or target is None:
        return None
    if ledger.quarantined(model, target, policy):
        return "quarantined"
    if case.kind == "promotion" or target == plan.stable or case.hop > case.base:
        return None
    # A target of the ledger must be one still, and the failing stable alone.
    return "no_target" if plan.canary is not None else ledger.fault_of(model, target, policy)


def _in_trouble(case: Case, model: Model) -> bool:
    """Whether an incident that acts is open about a canary or its stable."""
    return any(
        other.version in (case.version, case.stable) and other.kind == "breach"
        and not other.closed and other.wanted != "alert"
        for other in model.cases.values()
    )  # fmt: skip
