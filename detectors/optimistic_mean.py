"""Optimistic mean: is the mean of a bounded loss above its limit, while labels still come?

The test of `mean_guard.py` on predictions as they are served, with labels as they come
(`optimistic.py` says why that is right). A prediction without a label has loss 0. The bets are
fixed: a bet that learnt from past losses would not grow with each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log, log1p
from typing import Any

import numpy as np

from detectors.base import F64, Interval, require_open_unit
from detectors.cohorts import Cohorts
from detectors.intervals import rate_interval
from detectors.mean_guard import STAKES
from detectors.optimistic import Optimist
from schemas.plugins import plugin


@plugin("optimistic_mean", arms="single", losses="value", guarantee="yes", labels="arrive")
@dataclass
class OptimisticMean(Optimist):
    """Spending betting test of E[min(loss, cap) by the horizon | past] <= limit, before it is over.

    Parameters
    ----------
    limit : float
        Mean loss that is accepted, in the loss's own unit, in (0, cap).
    cap : float
        Highest loss that counts; 1 for a Brier score.
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
    Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> from detectors.optimistic import Labels
    >>> guard = OptimisticMean(limit=0.12, horizon_ms=10_000)
    >>> when = np.arange(200)
    >>> guard.update(Rows(np.zeros(200), when, when)).level
    'quiet'
    >>> guard.arrive(Labels(np.full(200, 0.3), 200 + when, 500 + when, served_ms=when)).level
    'alarm'
    """

    limit: float
    cap: float = 1.0
    horizon_ms: int = 604_800_000
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    def __post_init__(self) -> None:
        require_open_unit(alpha=self.alpha)
        if not (isfinite(self.cap) and 0 < self.limit < self.cap):
            raise ValueError(f"limit must lie above 0 and below cap {self.cap}, got {self.limit}")
        on_zero, as_it_is = np.log1p(-STAKES), np.ones(len(STAKES))
        self._cohorts = Cohorts(
            on_zero, as_it_is, len(STAKES), self.bucket, self.bucket_ms, self.horizon_ms
        )
        self._on_zero = on_zero
        self._binary = False
        self._threshold = log(1 / self.alpha)
        most = log1p(float(STAKES[-1]) * (self.cap / self.limit - 1))
        self._warm = ceil(self._threshold / most)
        self._begin()

    def _bounded(self, loss: F64) -> F64:
        return np.clip(loss, 0.0, self.cap)

    def _marks_of(self, loss: F64) -> F64:
        marks: F64 = np.log1p(np.outer(loss / self.limit - 1, STAKES)) - self._on_zero
        return marks

    def interval(self) -> Interval:
        """The mean so far, and at least what it is, at 1 - alpha.

        No upper bound: losses may still come.
        """
        share = rate_interval(min(self._sum / self.cap, self._n), self._n, self.alpha)
        if share.estimate is None or share.lower is None:
            return Interval()
        return Interval(share.estimate * self.cap, share.lower * self.cap)

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves."""
        return {
            "h0": "at every prediction the expected loss within the horizon, counted up to "
            f"{self.cap:g}, given the past is at most {self.limit:g}; no label yet counts as 0",
            "alpha": self.alpha,
            "guarantee": True,
            "restarts": self._cohorts.count,
        }
