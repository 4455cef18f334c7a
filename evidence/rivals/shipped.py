"""rollbackd's own detectors, exactly as shipped, fed the very rows; no copy and no short cut.

Batches are of 8,192 rows, since packing changes nothing (tests/detectors), and a run ends at the
batch of its first alarm, since an alarm stays.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from detectors.base import Detector, Rows
from evidence.cells import Judge

BATCH = 8192


def shipped(make: Callable[[], Detector]) -> Judge:
    """Judge by a fresh detector each run."""

    def judge(rows: Rows) -> int | None:
        detector = make()
        for first in range(0, len(rows.loss), BATCH):
            part = sliced(rows, slice(first, first + BATCH))
            if (fired_at := detector.update(part).fired_at) is not None:
                return fired_at - int(rows.position[0])
        return None

    return judge


def sliced(rows: Rows, part: slice) -> Rows:
    """Some of the rows."""
    columns: list[Any] = [None if column is None else column[part] for column in rows]
    return Rows(*columns)


def canary_alone(judge: Judge) -> Judge:
    """Let a judge of one version see the canary's rows only."""

    def alone(rows: Rows) -> int | None:
        if rows.canary is None:
            raise ValueError("rows of two arms expected")
        own = np.flatnonzero(rows.canary)
        at = judge(Rows(rows.loss[own], np.arange(len(own)), rows.time_ms[own]))
        return None if at is None else int(own[at])

    return alone
