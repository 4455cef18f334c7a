"""Quantile rules that people write: is p99 above its limit, by an estimate that follows the stream?

P2 is river's running estimate of p99, read at each row from the thousandth on. The rolling rule
takes the p99 of the last thousand rows every hundred, with a tenth of headroom.
"""

from __future__ import annotations

import numpy as np
from river.stats import Quantile

from detectors.base import Rows
from evidence.cells import Judge

WARM = 1000


def running_p2(limit: float, q: float = 0.99) -> Judge:
    """Alarm as soon as the running estimate lies above the limit."""

    def judge(rows: Rows) -> int | None:
        estimate = Quantile(q)
        for index, value in enumerate(rows.loss.tolist()):
            estimate.update(value)
            if index >= WARM and (now := estimate.get()) is not None and now > limit:
                return index
        return None

    return judge


def rolling(limit: float, q: float = 0.99, headroom: float = 1.1) -> Judge:
    """Alarm as soon as the last thousand rows' quantile lies a tenth above the limit."""

    def judge(rows: Rows) -> int | None:
        for end in range(WARM, len(rows.loss) + 1, 100):
            if np.quantile(rows.loss[end - WARM : end], q) > headroom * limit:
                return end - 1
        return None

    return judge
