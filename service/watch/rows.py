"""Which rows of a table a guard is fed, and how bad each is.

A guard of one version sees that version's rows; one that compares arms sees both, of this rollout
only, with the chance that each row was the canary's. A guard of a slice sees the rows in it.
"""

from __future__ import annotations

import numpy as np

from detectors import losses
from detectors.base import F64, I64, Bool, Rows
from detectors.sampled import weighted_loss
from service.watch.detect import Guard
from service.watch.early import Early, arrive, serve, weigh_delays
from service.watch.silence import share_rows
from service.watch.state import Model, Plan
from service.watch.tables import Table
from service.watch.weights import among_two, planned


def feed(guard: Guard, version: str, table: Table, base: int, model: Model) -> int | None:
    """Feed a guard what a table brings; once, the index of the row that made it fire.

    Parameters
    ----------
    base : int
        Ordinal of the table's first row.
    """
    if guard.early is not None and table.sort != "final":
        at = _hear(guard, guard.early, version, table, base, model)
        return None if guard.latched else at
    rows = rows_for(guard, version, table, base, model)
    if guard.early is not None and guard.early.check is not None and rows is not None:
        weigh_delays(guard.early.check, rows, table, base)
    if guard.votes is None:
        reading = None if rows is None else guard.feed(rows)
        # Where labels decide on arrival, the matured ones only show how high the rate is.
        shown_only = guard.early is not None and guard.early.decides
        if reading is None or reading.fired_at is None or guard.latched or shown_only:
            return None
        return reading.fired_at - base
    ballot = None if rows is None else guard.ballot(rows)
    cast = guard.votes.take(ballot, base, table.when_ms, table.unit)
    if not len(cast.closer):
        return None
    fired_at = guard.detector.update(cast.rows).fired_at
    if fired_at is None or guard.latched:
        return None
    return int(cast.closer[fired_at - int(cast.rows.position[0])])


def _hear(
    guard: Guard, early: Early, version: str, table: Table, base: int, model: Model
) -> int | None:  # fmt: skip
    """Let a guard hear predictions as they are served, and labels as they come."""
    if early.check is not None:
        rows = rows_for(guard, version, table, base, model)
        if rows is None or early.check.standing != "equal":
            return None
        fired_at = early.detector.update(rows).fired_at
        return None if fired_at is None else int(fired_at) - base
    own = table.version == _index(table, version)
    if guard.slice is not None:
        own = own & table.in_slice(*guard.slice)
    if table.sort == "served":
        serve(early, guard.spec.signal, table, own, base)
        return None
    return arrive(early, guard.spec.signal, table, own, base, model.horizon_ms)


def rows_for(guard: Guard, version: str, table: Table, base: int, model: Model) -> Rows | None:
    """Select a guard's rows of one version from a table; None when it has none.

    Parameters
    ----------
    base : int
        Ordinal of the table's first row.
    """
    signal = guard.spec.signal
    own = table.version == _index(table, version)
    if signal == "traffic_share":
        return share_rows(guard.spec, version, table, base, model)
    if signal.startswith("feature:"):
        values = table.features.get(signal)
        if values is None:
            return None
        index = np.flatnonzero(~np.isnan(values) & own)
        loss = values[index]
    elif guard.spec.sampled_at_least is not None:
        index, loss = _weighted(signal, table)
    else:
        index, loss = losses.select(signal, table.columns)
    if guard.slice is not None:
        inside = table.in_slice(*guard.slice)[index]
        index, loss = index[inside], loss[inside]
    if guard.arms == "paired":
        return _paired(guard, version, table, base, model, index, loss)
    keep = own[index]
    index, loss = index[keep], loss[keep]
    if not len(index):
        return None
    return Rows(loss.astype(np.float64), base + index, table.when_ms[index])


def _weighted(signal: str, table: Table) -> tuple[I64, F64]:
    """Every prediction; a bad one counts for as many as its label stands for, others for none."""
    columns = table.columns
    known = columns.positive_predicted >= 0 if signal == "fp_per_prediction" else columns.wrong >= 0
    if signal == "fp_per_prediction":
        bad = (columns.positive_predicted == 1) & (columns.positive_label == 0)
    else:
        bad = columns.wrong == 1
    index = np.flatnonzero(known)
    return index, weighted_loss(bad, table.sampled)[index]


def _paired(guard: Guard, version: str, table: Table, base: int, model: Model,
            index: np.ndarray, loss: F64) -> Rows | None:  # fmt: skip
    plan = model.plan
    if plan is None:
        return None
    canary = table.version[index] == _index(table, version)
    stable = table.version[index] == _index(table, plan.stable)
    # What was served before this rollout began belongs to another comparison.
    since = plan.steps[0][0] if plan.steps else 0
    keep = (canary | stable) & (table.served_ms[index] >= since)
    index, loss, canary = index[keep], loss[keep], canary[keep]
    if not len(index):
        return None
    weight = canary_share(table.weight[index], canary, table.served_ms[index], plan, version)
    return Rows(loss.astype(np.float64), base + index, table.when_ms[index], canary, weight)


def canary_share(
    weight: F64, canary: Bool, served_ms: np.ndarray, plan: Plan, version: str
) -> F64:  # fmt: skip
    """The canary's assigned probability when each row was served, NaN where nobody said it.

    What the router stamped on the prediction comes first, then the rollout's weight at that time.
    With several canaries a stamp tells one of the two weights only, so the plan counts.
    """
    if plan.others:
        return among_two(plan, version, served_ms)
    stamped = np.where(canary, weight, 1 - weight)
    if plan.inferred or not plan.steps or not np.isnan(stamped).any():
        return np.asarray(stamped, np.float64)
    return np.where(np.isnan(stamped), planned(plan.steps, served_ms), stamped)


def _index(table: Table, version: str) -> int:
    return table.versions.index(version) if version in table.versions else -1
