"""rollbackd's optimistic rate guard, as shipped, fed predictions as they are made and labels as
they come.

Rows here are predictions in the order in which they were made: `loss` what turned out to be true,
`weight` after how many further predictions the label came. Batches are of a hundred predictions
and then of the bad labels that came meanwhile, so an alarm may be named up to a hundred late.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Rows
from detectors.optimistic import Labels
from detectors.optimistic_rate import OptimisticRate
from evidence.cells import Judge
from evidence.worlds import STEP_MS

BATCH = 100


def optimistic(limit: float, horizon: int) -> Judge:
    """Judge with a horizon of so many predictions; the last prediction made before the alarm."""

    def judge(rows: Rows) -> int | None:
        if rows.weight is None:
            raise ValueError("rows with the delay of their label expected")
        guard = OptimisticRate(limit=limit, horizon_ms=horizon * STEP_MS)
        n, labels = len(rows.loss), np.flatnonzero(rows.loss > 0)
        comes = labels + rows.weight[labels]
        order = np.argsort(comes, kind="stable")
        labels, comes = labels[order], comes[order]
        position = 0
        for first in range(0, n, BATCH):
            end = min(first + BATCH, n)
            at = position + np.arange(end - first)
            guard.update(Rows(np.zeros(end - first), at, rows.time_ms[first:end]))
            here = slice(*np.searchsorted(comes, [first, end]).tolist())
            told = labels[here]
            at = at[-1] + 1 + np.arange(len(told))
            position = int(at[-1]) + 1 if len(told) else position + end - first
            observed = rows.time_ms[0] + (comes[here] * STEP_MS).astype(np.int64)
            bad = Labels(np.ones(len(told)), at, observed, rows.time_ms[told])
            if guard.arrive(bad).fired_at is not None:
                return end - 1
        return None

    return judge
