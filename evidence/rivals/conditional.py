"""rollbackd's conditional labels, put together as `watch` does: a delay check holds the reins.

Labels on arrival feed a canary guard on half of alpha, but only while the delay check has seen that
both arms' bad labels are equally late; matured labels feed another on the other half.

Rows here are predictions in the order in which they were made: `loss` is 0 for a good one, else
after how many further predictions its bad label came.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Rows
from detectors.canary_guard import CanaryGuard
from detectors.delay_check import DelayCheck
from evidence.cells import Judge
from evidence.worlds import STEP_MS

BATCH = 250


def conditional(horizon: int, alpha: float = 0.01) -> Judge:
    """Judge with a horizon of so many predictions; the last prediction made before the alarm."""

    def judge(rows: Rows) -> int | None:
        arrived, matured = CanaryGuard(alpha=alpha / 2), CanaryGuard(alpha=alpha / 2)
        check, n = DelayCheck(horizon * STEP_MS), len(rows.loss)
        served = np.arange(n)
        bad = rows.loss > 0
        comes = np.where(bad, served + rows.loss, np.inf)
        for first in range(0, n + horizon, BATCH):
            now = range(first, first + BATCH)
            ripe = served[max(now.start - horizon, 0) : max(now.stop - horizon, 0)]
            told = bad[ripe] & (rows.loss[ripe] <= horizon)
            matured.update(_part(rows, ripe, told.astype(np.float64)))
            known = ripe[told]
            check.update(_part(rows, known, rows.loss[known] * STEP_MS))
            here = np.flatnonzero((comes >= now.start) & (comes < now.stop))
            if check.standing == "equal":
                here = here[np.argsort(comes[here], kind="stable")]
                said = _part(rows, here, np.ones(len(here)))
                arrived.update(said._replace(position=first * n + np.arange(len(here))))
            if matured.reading().fired_at is not None or arrived.reading().fired_at is not None:
                return min(now.stop, n) - 1
        return None

    return judge


def _part(rows: Rows, chosen: np.ndarray, loss: np.ndarray) -> Rows:
    if rows.canary is None or rows.weight is None:
        raise ValueError("rows of two arms expected")
    return Rows(loss, chosen, rows.time_ms[chosen], rows.canary[chosen], rows.weight[chosen])
