"""Optimistic rate: is the share of bad predictions above its limit, while labels still come?

The test of `rate_guard.py` on predictions as they are served, with labels as they come
(`optimistic.py` says why that is right). Bad and good add constants, so a bucket is two counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

from detectors.base import F64, Interval, require_open_unit
from detectors.cohorts import Cohorts
from detectors.intervals import rate_interval
from detectors.optimistic import Optimist
from detectors.rate_guard import ODDS
from schemas.plugins import plugin


@plugin("optimistic_rate", arms="single", losses="binary", guarantee="yes", labels="arrive")
@dataclass
class OptimisticRate(Optimist):
    """Spending Shiryaev-Roberts test of P(bad by the horizon | past) <= limit, before it is over.

    Parameters
    ----------
    limit : float
        Share of bad predictions that is accepted, in (0, 1). For a false positive rate, whose
        negatives are not known before the label: share of false positives among all predictions.
    horizon_ms : int
        Age at which a prediction is mature, ms, >= 1; a label observed later counts for nothing.
    alpha : float
        Bound on P(ever an alarm while the limit holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Rows, and span of served time in ms, after which evidence may start anew; never less than
        1/448 of the horizon, except for the first buckets.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Howard, Ramdas, McAuliffe, Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
    sequences. Shin, Ramdas, Rinaldo (2024), E-detectors.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> from detectors.optimistic import Labels
    >>> guard = OptimisticRate(limit=0.02, horizon_ms=10_000)
    >>> when = np.arange(100)
    >>> guard.update(Rows(np.zeros(100), when, when)).level
    'quiet'
    >>> bad = np.arange(0, 100, 10)
    >>> reading = guard.arrive(Labels(np.ones(10), 100 + bad, 500 + bad, served_ms=bad))
    >>> reading.level, reading.fired_at
    ('alarm', 180)
    """

    limit: float
    horizon_ms: int = 604_800_000
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    def __post_init__(self) -> None:
        require_open_unit(limit=self.limit, alpha=self.alpha)
        on_good = -np.log1p(self.limit * (ODDS - 1))
        self._cohorts = Cohorts(
            on_good, np.log(ODDS), 1, self.bucket, self.bucket_ms, self.horizon_ms
        )
        self._binary = True
        self._threshold = log(1 / self.alpha)
        # The mass that has entered never exceeds 1, so fewer rows cannot reach the threshold.
        self._warm = ceil(self._threshold / float((np.log(ODDS) + on_good).max()))
        self._begin()

    def _bounded(self, loss: F64) -> F64:
        return loss

    def _marks_of(self, loss: F64) -> F64:
        return (loss > 0).astype(np.float64)[:, None]

    def interval(self) -> Interval:
        """The share of bad predictions so far, and at least what it is, at 1 - alpha.

        No upper bound: bad labels may still come.
        """
        so_far = rate_interval(min(self._sum, self._n), self._n, self.alpha)
        return Interval(so_far.estimate, so_far.lower)

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves."""
        return {
            "h0": "at every prediction the chance of a bad label within the horizon given the past "
            f"is at most {self.limit:g}; what has no label yet counts as good",
            "alpha": self.alpha,
            "guarantee": True,
            "restarts": self._cohorts.count,
        }
