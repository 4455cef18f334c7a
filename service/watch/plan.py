"""Who is stable and who is canary: from rollout events, or inferred from traffic without any.

Inferred: the version seen first is stable and a new one is its canary; its weight is unknown. When
another one appears, the version that carried most of the recent traffic is stable. Verdicts say
that roles are inferred, and acting on them needs the policy's word.
"""

from __future__ import annotations

from schemas.events import Rollout
from schemas.ids import rollout_id
from schemas.times import to_ms
from service.watch.ledger import succeed
from service.watch.state import Model, Plan

MAX_STEPS = 64


def follow(model: Model, event: Rollout) -> bool:
    """Take in a rollout event; True when who serves what changed.

    An event older than the plan in force is history: it changes nothing.
    """
    at_ms = to_ms(event.at)
    plan = model.plan
    if plan is not None and not plan.inferred and at_ms < plan.at_ms:
        return False
    weight = event.weight if event.canary is not None else None
    same_pair = (
        plan is not None
        and not plan.inferred
        and ((plan.stable, plan.canary) == (event.stable, event.canary))
    )
    if same_pair and plan is not None:
        if plan.weight == weight and event.rollout_id in (None, plan.rollout_id):
            return False
        plan.weight, plan.at_ms, plan.source = weight, at_ms, event.source
        plan.steps = [*plan.steps, (at_ms, weight or 0.0)][-MAX_STEPS:]
        plan.rollout_id = event.rollout_id or plan.rollout_id
    else:
        model.plan = Plan(
            stable=event.stable, canary=event.canary, weight=weight,
            rollout_id=event.rollout_id
            or rollout_id(model.name, event.stable, event.canary, at_ms),
            at_ms=at_ms, inferred=False, source=event.source, steps=[(at_ms, weight or 0.0)],
        )  # fmt: skip
        for name in filter(None, (event.stable, event.canary)):
            model.version(name)
    for version in model.versions.values():
        version.in_plan = 0
    succeed(model, event.stable, at_ms)
    return True


def infer(model: Model, version: str, served_ms: int) -> bool:
    """Take in the first prediction of a version; True when that changes the inferred roles."""
    plan = model.plan
    if plan is not None and not plan.inferred:
        return False
    if plan is None:
        model.plan = Plan(
            stable=version, rollout_id=rollout_id(model.name, version, None, served_ms),
            at_ms=served_ms,
        )  # fmt: skip
        succeed(model, version, served_ms)
        return True
    if version in (plan.stable, plan.canary):
        return False
    stable = _busiest(model) or plan.stable
    model.plan = Plan(
        stable=stable, canary=version, at_ms=served_ms,
        rollout_id=rollout_id(model.name, stable, version, served_ms),
    )  # fmt: skip
    succeed(model, stable, served_ms)
    return True


def _busiest(model: Model) -> str | None:
    """The version with most recent traffic; ties go to the one known longer."""
    totals: dict[str, int] = {}
    for bucket in model.shares.values():
        for name, count in bucket.items():
            totals[name] = totals.get(name, 0) + count
    order = list(model.versions)
    live = [name for name in totals if name in model.versions]
    return max(live, key=lambda name: (totals[name], -order.index(name)), default=None)


def role_of(model: Model, version: str) -> str:
    """`stable`, `canary`, or `retired` when the plan does not name it."""
    plan = model.plan
    if plan is not None and version == plan.stable:
        return "stable"
    if plan is not None and version == plan.canary:
        return "canary"
    return "retired"
