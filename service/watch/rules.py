"""May this decision become a command? The do-no-harm rules, on one page; they can only say no.

Each rule looks at plain facts and answers with its word, or not at all. The first refusal counts;
it is written on the incident and counted, never passed over in silence. Holds and the kill switch
are read by the shell, immediately before a command would be sent, and come in as facts.

A person's order passes the rules that bind only automatic action.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.policies import Policy
from service.watch.ledger import fault_of, just_restored, quarantined
from service.watch.state import Case, Model


class Facts(NamedTuple):
    """What the rules look at, besides policy and state."""

    now_wall_ms: int
    held: str | None
    """Why automatic action is held, or None; an unreadable switch is a reason too."""
    both_moved: bool = False
    stable_ill: bool = False
    automatic: bool = True


REFUSALS = {
    "observe": "the policy only observes; it would have acted",
    "roles": "stable and canary are inferred from traffic, and the policy does not permit that",
    "no_target": "there is no version that is known good to return to",
    "quarantined": "the version to return to was itself rolled back a short while ago",
    "unproven": "the canary no longer passes, or an incident about it or its stable is open",
    "superseded": "the version no longer serves under the current plan",
    "one_hop": "this incident has used up its tries, or the version was itself only just restored",
    "both_moved": "stable became worse together with the canary; a rollback cures nothing",
    "stable_ill": "the stable version fails its own objectives; it is no target",
    "stale": "the decision is older than the policy permits",
    "cooldown": "this model was rolled back automatically a short while ago",
    "hold": "an operator holds automatic action",
}


def refusal(case: Case, model: Model, policy: Policy, facts: Facts) -> str | None:
    """Name the first rule that forbids the command of a case, or None.

    Examples
    --------
    >>> case = Case("i", "v2", None, "r", 0)
    >>> refusal(case, Model("m"), Policy(model="m", mode="enforce"), Facts(0, None))
    'no_target'
    """
    plan = model.plan
    if facts.automatic and policy.mode == "observe":
        return "observe"
    if case.kind == "promotion":
        return _promotion(case, model, policy, facts)
    if plan is None or case.stable is None or case.stable == case.version:
        return "no_target"
    if case.hop == 0 and case.version not in (plan.stable, plan.canary):
        return "superseded"
    if quarantined(model, case.stable, policy):
        return "quarantined"
    if case.hop == 0 and case.stable != plan.stable:
        # A target of the ledger must still be one, and the failing stable still be alone.
        if plan.canary is not None:
            return "no_target"
        if (fault := fault_of(model, case.stable, policy)) is not None:
            return fault
        if facts.automatic and just_restored(model, case.version, policy):
            return "one_hop"
    if case.hop > policy.retries:
        return "one_hop"
    if not facts.automatic:
        return None
    return _automatic(case, model, policy, facts)


def _promotion(case: Case, model: Model, policy: Policy, facts: Facts) -> str | None:
    plan = model.plan
    if plan is None or (plan.canary, plan.stable) != (case.version, case.stable):
        return "superseded"
    if plan.inferred:
        return "roles"
    if not case.proven:
        return "unproven"
    if quarantined(model, case.version, policy):
        return "quarantined"
    if any(c.version in (case.version, case.stable) and c.kind == "breach" and not c.closed
           and c.wanted != "alert" for c in model.cases.values()):  # fmt: skip
        return "unproven"
    if case.hop - case.base > policy.retries:
        return "one_hop"
    if facts.stable_ill:
        return "stable_ill"
    if facts.now_wall_ms - model.now_ms > policy.max_decision_age.ms:
        return "stale"
    return "hold" if facts.held else None


def _automatic(case: Case, model: Model, policy: Policy, facts: Facts) -> str | None:
    if model.plan is not None and model.plan.inferred and policy.roles != "inferred":
        return "roles"
    if facts.both_moved:
        return "both_moved"
    if facts.stable_ill:
        return "stable_ill"
    if facts.now_wall_ms - model.now_ms > policy.max_decision_age.ms:
        return "stale"
    since_ms = facts.now_wall_ms - model.last_rollback_ms
    # A clock that moved back counts as still cooling down; a second try is the same rollback.
    if case.hop == 0 and model.last_rollback_ms and since_ms < policy.cooldown.ms:
        return "cooldown"
    return "hold" if facts.held else None
