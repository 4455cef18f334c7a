"""Who is stable and who is canary: from rollout events, or inferred from traffic without any.

Inferred: the version seen first is stable and a new one is its canary; its weight is unknown. When
another one appears, the version that carried most of the recent traffic is stable. Verdicts say
that roles are inferred, and acting on them needs the policy's word.
"""

from __future__ import annotations

from schemas.events import Rollout
from schemas.ids import rollout_id
from schemas.policies import Policy
from schemas.times import to_ms
from service.watch.ledger import succeed
from service.watch.state import Model, Plan
from service.watch.weights import canaries_of

MAX_STEPS = 64

MOST_EXTRA = 8
"""Versions judged at most that no rollout event has named."""


def follow(model: Model, event: Rollout) -> bool:
    """Take in a rollout event; True when who serves what changed.

    An event older than the plan in force is history: it changes nothing.
    """
    at_ms = to_ms(event.at)
    plan = model.plan
    if plan is not None and not plan.inferred and at_ms < plan.at_ms:
        return False
    canary, weight, others = _canaries(event)
    same = (
        plan is not None
        and not plan.inferred
        and (plan.stable, plan.canary, set(plan.others)) == (event.stable, canary, set(others))
    )
    if same and plan is not None:
        kept = all(plan.others[name][-1][1] == share for name, share in others.items())
        if plan.weight == weight and kept and event.rollout_id in (None, plan.rollout_id):
            return False
        plan.weight, plan.at_ms, plan.source = weight, at_ms, event.source
        plan.steps = [*plan.steps, (at_ms, weight or 0.0)][-MAX_STEPS:]
        for name, share in others.items():
            plan.others[name] = [*plan.others[name], (at_ms, share)][-MAX_STEPS:]
        plan.rollout_id = event.rollout_id or plan.rollout_id
    else:
        model.plan = Plan(
            stable=event.stable, canary=canary, weight=weight,
            rollout_id=event.rollout_id
            or rollout_id(model.name, event.stable, canary, at_ms),
            at_ms=at_ms, inferred=False, source=event.source, steps=[(at_ms, weight or 0.0)],
            others={name: [(at_ms, share)] for name, share in others.items()},
        )  # fmt: skip
        for name in (event.stable, *canaries_of(model.plan)):
            model.version(name).named = True
    for version in model.versions.values():
        version.in_plan = 0
    succeed(model, event.stable, at_ms)
    return True


def _canaries(event: Rollout) -> tuple[str | None, float | None, dict[str, float]]:
    """The first canary with its weight, and the others; a list alone gives its first."""
    others = {each.version: each.weight for each in event.canaries or []}
    if event.canary is not None:
        return event.canary, event.weight, others
    first = next(iter(others), None)
    return (None, None, {}) if first is None else (first, others.pop(first), others)


def live(model: Model, policy: Policy | None) -> list[str]:
    """The versions that are judged: stable, canaries, and those that serve without a name in it."""
    plan = model.plan
    if plan is None:
        return []
    named = [plan.stable, *canaries_of(plan)]
    if plan.inferred or policy is None:
        return named
    extra = [
        version.name for version in model.versions.values()
        if not version.named and version.in_plan >= policy.min_rows
    ]  # fmt: skip
    return [*named, *extra[:MOST_EXTRA]]


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
    """`stable`, `canary`, `retired` when only an earlier plan names it, `extra` when none does."""
    plan = model.plan
    if plan is not None and version == plan.stable:
        return "stable"
    if plan is not None and version in canaries_of(plan):
        return "canary"
    known = model.versions.get(version)
    is_extra = plan is not None and not plan.inferred and known is not None and not known.named
    return "extra" if is_extra else "retired"
