"""The plain mixture e-process: rollbackd's rate guard without restarts.

It keeps the same promise. It shows what restarts are for: after a long healthy life it must first
climb out of what good rows took away.
"""

from __future__ import annotations

from math import log

import numpy as np

from detectors.base import Rows, first_crossing, log_mean
from detectors.rate_guard import ODDS
from evidence.cells import Judge


def ville(limit: float, alpha: float = 0.01) -> Judge:
    """Alarm once the mixture reaches 1 / alpha."""
    on_good = -np.log1p(limit * (ODDS - 1))
    on_bad = np.log(ODDS) + on_good

    def judge(rows: Rows) -> int | None:
        looks = np.flatnonzero(rows.loss > 0)
        n_bad = np.arange(1, len(looks) + 1)
        n_good = looks + 1 - n_bad
        statistics = log_mean(np.multiply.outer(on_bad, n_bad) + np.multiply.outer(on_good, n_good))
        found = first_crossing(statistics, log(1 / alpha))
        return None if found is None else int(looks[found])

    return judge
