"""A canary that should serve and does not: what `traffic_share` guards are fed, and their words.

Why. A canary whose instances die, or whose telemetry is lost, shows no bad prediction; no other
guard sees it. That it is *unknown* says its verdict. Whether somebody is told, the release is held
or the canary is taken out is the policy's choice, made by a guard on `traffic_share` and its
`action`.

How. Every prediction that was served while the plan gave the canary a share is a row: the canary's,
or another's. `min` and `max` are shares of all of them, tested like any rate. `max_decrease` speaks
of the share that was assigned, which moves with the steps: given a prediction, was it the stable's?
That is the canary test with the arms exchanged, under each row's own assigned share, at a ratio of
1 / (1 - max_decrease). Without any row nothing is tested: when all telemetry is lost, nothing is
said about the canary alone.

Rows of the first seconds after a change of weight do not count; routers need a moment.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Rows
from schemas.policies import GuardSpec
from schemas.verdicts import GuardVerdict
from service.watch.state import Model, Plan, Version
from service.watch.tables import Table
from service.watch.weights import among_two, planned, steps_of, weight_of

SETTLE_MS = 5000
"""Event time after a change of weight in which shares do not count."""

NEWEST = 3
"""Seconds of served time whose share is told."""


def share_rows(
    spec: GuardSpec, version: str, table: Table, base: int, model: Model
) -> Rows | None:  # fmt: skip
    """Select the rows of a guard on `traffic_share`; None when there are none.

    Parameters
    ----------
    base : int
        Ordinal of the table's first row.
    """
    plan = model.plan
    if plan is None:
        return None
    assigned, counts = _assigned(plan, version, table)
    own = table.version == (table.versions.index(version) if version in table.versions else -1)
    if spec.max_decrease is not None:
        stable = table.versions.index(plan.stable) if plan.stable in table.versions else -1
        if not plan.inferred and plan.steps:
            assigned = among_two(plan, version, table.served_ms)
        counts &= (own | (table.version == stable)) & (assigned > 0) & (assigned < 1)
    elif spec.min is not None and not plan.inferred:
        counts &= assigned > spec.min
    index = np.flatnonzero(counts)
    if not len(index):
        return None
    position, when_ms = base + index, table.when_ms[index]
    if spec.max_decrease is not None:
        bad = np.ones(len(index))
        return Rows(bad, position, when_ms, ~own[index], 1 - assigned[index])
    loss = own if spec.max is not None else ~own
    return Rows(loss[index].astype(np.float64), position, when_ms)


def _assigned(plan: Plan, version: str, table: Table) -> tuple[np.ndarray, np.ndarray]:
    """The canary's assigned share at each row, and whether the row counts at all; (n,) each."""
    if plan.inferred or not plan.steps:
        return np.full(len(table), np.nan), table.served_ms >= plan.at_ms
    steps = steps_of(plan, version)
    begins = np.array([at_ms for at_ms, _ in steps])
    step = np.searchsorted(begins, table.served_ms, side="right") - 1
    settled = table.served_ms >= begins[np.maximum(step, 0)] + SETTLE_MS
    return planned(steps, table.served_ms), (step >= 0) & settled


def share_now(model: Model, version: str) -> float | None:
    """The version's share of the newest predictions; None without any."""
    newest = [model.shares[bucket] for bucket in sorted(model.shares)[-NEWEST:]]
    total = sum(sum(bucket.values()) for bucket in newest)
    return sum(bucket.get(version, 0) for bucket in newest) / total if total else None


def share_limit(spec: GuardSpec, model: Model, version: str) -> float | None:
    """The lowest share that a guard accepts of a canary now; None: it is another limit."""
    if spec.max_decrease is None:
        return spec.min
    weight = weight_of(model.plan, version) if model.plan is not None else None
    return None if weight is None else (1 - spec.max_decrease) * weight


def sentence(entry: GuardVerdict, version: Version) -> str:
    """Say in words that a canary's share is proved to be too small."""
    share = "unknown" if entry.estimate is None else f"{entry.estimate:.1%}"
    limit = "its limit" if entry.limit is None else f"{entry.limit:.1%}"
    return (
        f"{version.name} serves {share} of the predictions of late, proved to be below {limit}, "
        "while the other versions go on: it gets no traffic, or its telemetry is lost "
        f"(evidence {entry.evidence or 0:.1f} of {entry.threshold or 0:.1f} nats)."
    )
