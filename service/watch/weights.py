"""How traffic was to be shared when each row was served. Pure.

A canary is compared with the stable on the rows of both, and given that a row is one of theirs, the
chance that it is the canary's is its weight over the sum of both weights. With one canary that is
its weight; with several, what the others have belongs to neither.
"""

from __future__ import annotations

import numpy as np

from detectors.base import F64, I64
from service.watch.state import Plan

Steps = list[tuple[int, float]]
"""(from, weight), oldest first."""


def canaries_of(plan: Plan) -> list[str]:
    """The canaries, the one that the plan names first before the others."""
    return [*([plan.canary] if plan.canary is not None else []), *plan.others]


def steps_of(plan: Plan, canary: str) -> Steps:
    """One canary's weight over time, of this rollout."""
    return plan.others.get(canary, plan.steps)


def weight_of(plan: Plan, canary: str) -> float | None:
    """One canary's weight now; None: unknown."""
    if canary in plan.others:
        return plan.others[canary][-1][1]
    return plan.weight


def planned(steps: Steps, served_ms: I64) -> F64:
    """The weight at each time, shape (n,); before the first step it is that of the first."""
    begins = np.array([at_ms for at_ms, _ in steps])
    weights = np.array([share for _, share in steps], np.float64)
    found: F64 = weights[np.maximum(np.searchsorted(begins, served_ms, side="right") - 1, 0)]
    return found


def among_two(plan: Plan, canary: str, served_ms: I64) -> F64:
    """The chance that a row of the canary or the stable is the canary's, by plan, shape (n,)."""
    own = planned(steps_of(plan, canary), served_ms)
    if not plan.others:
        return own
    taken = np.zeros(len(served_ms))
    for name in canaries_of(plan):
        taken = taken + planned(steps_of(plan, name), served_ms)
    both = own + np.maximum(0.0, 1 - taken)
    share: F64 = np.divide(own, both, out=np.full(len(own), np.nan), where=both > 0)
    return share
