"""When evidence may start anew, and how much of the error budget each new start may spend.

A plain e-process dilutes: after a long healthy life it must first climb out of what good rows took
away. A Shiryaev-Roberts detector starts anew at every bucket, so it does not dilute, but its bound
is on the mean time to a false alarm. Giving the j-th start only the mass g_j, with the g_j summing
to less than one, keeps both: the chance of *ever* alarming falsely is at most alpha, and a change
at start j costs only ln(1/g_j) nats.

A bucket is a fixed number of rows or a span of event time, whichever ends first. Both are known
before the loss of the row that opens the next one, so the next start is predictable, which the
bound needs. A bucket opens with a row, so one without rows spends nothing.

References
----------
Shin, Ramdas, Rinaldo (2024), E-detectors: a nonparametric framework for sequential change
detection. The summable masses are a mixture over the time of the change.
"""

from __future__ import annotations

from math import inf

import numpy as np

from detectors.base import F64, I64, LOG_CAP, require_at_least


def log_mass(first: int, count: int) -> F64:
    """ln g_j for j = first, ..., first + count - 1, where j counts from 1.

    g_j = 1 / (1.0691 (j+2) ln(j+2)^2); the sum over all j >= 1 is just below 1.

    >>> [round(float(x), 3) for x in log_mass(1, 3)]
    [-1.354, -2.106, -2.628]
    """
    if first < 1:
        raise ValueError(f"restarts count from 1, got {first}")  # from 0 the sum would be 1.97
    k = np.arange(first + 2, first + 2 + count, dtype=np.float64)
    masses: F64 = -(np.log(1.0691 * k) + 2 * np.log(np.log(k)))
    return masses


def restarted(level: F64, mass: float) -> F64:
    """Let the log mass enter every component: ln(e^level + e^mass), capped."""
    joined: F64 = np.logaddexp(level, mass)
    return np.minimum(joined, LOG_CAP)


class Buckets:
    """Cuts a guard's rows into buckets; the same cuts however the rows are packed.

    The first buckets hold 1, 2, 4, … rows, so that most of the budget is at work when a version is
    bad from its first row: without that it is found a third later.

    Parameters
    ----------
    rows : int
        Most rows in a bucket, >= 1.
    span_ms : int or None
        Event time after which the next row opens a new bucket, ms; None: rows only. A row that
        is older than its bucket stays in it.
    """

    def __init__(self, rows: int, span_ms: int | None) -> None:
        require_at_least(1, bucket=rows, bucket_ms=span_ms)
        self._rows = rows
        self._span_ms = inf if span_ms is None else span_ms
        self.count = 0
        """Buckets opened so far."""
        self.close()

    def close(self) -> None:
        """Make the next row open a new bucket."""
        self.filled = 0
        self.opened_ms = 0

    @property
    def full(self) -> bool:
        """Whether the open bucket has all its rows."""
        return self.filled >= self._size(self.count)

    def _size(self, count: int) -> int:
        return min(self._rows, 1 << min(max(count - 1, 0), 30))

    def cut(self, time_ms: I64) -> I64:
        """Take rows; return the indices of those that open a bucket, in order."""
        starts = []
        filled, opened_ms, size = self.filled, self.opened_ms, self._size(self.count)
        span_ms = self._span_ms
        for index, now_ms in enumerate(time_ms.tolist()):
            if filled == 0 or filled >= size or now_ms - opened_ms >= span_ms:
                starts.append(index)
                self.count += 1
                size, opened_ms, filled = self._size(self.count), now_ms, 0
            filled += 1
        self.filled, self.opened_ms = filled, opened_ms
        return np.array(starts, dtype=np.int64)
