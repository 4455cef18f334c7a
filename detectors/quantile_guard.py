"""Quantile guard: is a quantile of one version's losses above its limit?

Why. "p99 is at most 300 ms" says that at most one row in a hundred exceeds 300 ms, which is a rate
with a known limit. Estimating the quantile and comparing it with the limit alarms on healthy
versions almost surely, since an estimate is above the truth half of the time.

How. Each value becomes 0 or 1 by the limit, and a rate guard with limit 1 - q judges. A histogram
is kept beside it for people only; no decision reads it.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from detectors.base import (
    Interval,
    Reading,
    Rows,
    header,
    require_open_unit,
    require_rows,
    restoring,
)
from detectors.histogram import Histogram
from detectors.rate_guard import RateGuard
from schemas.plugins import plugin


@plugin("quantile", arms="single", losses="value", guarantee="yes")
@dataclass
class QuantileGuard:
    """Spending test of P(value > limit | past) <= 1 - quantile.

    Parameters
    ----------
    quantile : float
        Which quantile the limit binds, in (0, 1); 0.99 is p99.
    limit : float
        Highest value of that quantile that is accepted, in the loss's own unit.
    alpha : float
        Bound on P(ever an alarm while the limit holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Rows, and span of event time in ms, after which evidence may start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Howard, Ramdas (2022), Sequential estimation of quantiles with applications to A/B testing and
    best-arm identification.

    Examples
    --------
    >>> import numpy as np
    >>> guard = QuantileGuard(quantile=0.95, limit=300.0)
    >>> when = np.arange(100)
    >>> guard.update(Rows(np.full(100, 120.0), when, when)).level
    'quiet'
    >>> guard.update(Rows(np.full(100, 450.0), when + 100, when)).level
    'alarm'
    """

    quantile: float
    limit: float
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(quantile=self.quantile)
        if not isfinite(self.limit):
            raise ValueError(f"limit must be finite, got {self.limit}")
        self._rate = RateGuard(1 - self.quantile, self.alpha, self.bucket, self.bucket_ms)
        self._histogram = Histogram()

    def update(self, rows: Rows) -> Reading:
        """Take rows whose losses are values."""
        require_rows(rows, None, paired=False, binary=False)
        reading = self._rate.update(rows._replace(loss=(rows.loss > self.limit).astype(np.float64)))
        self._histogram.add(rows.loss)
        return reading

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        return self._rate.reading()

    def interval(self) -> Interval:
        """Bound the quantile over the version's life, at 1 - alpha, out to the next bin edge."""
        return self._histogram.quantile_interval(self.quantile, self.alpha)

    def rearm(self) -> None:
        """Clear latch and evidence."""
        self._rate.rearm()

    def state(self) -> dict[str, Any]:
        """All it remembers: under 1 KB as JSON for latencies of a usual spread."""
        return {
            **header(self, self.VERSION),
            "rate": self._rate.state(),
            "histogram": self._histogram.saved(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._rate.restore(state["rate"])
            self._histogram.restore(state["histogram"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves."""
        return {
            **self._rate.explain(),
            "h0": f"at every row the chance of a value above {self.limit:g} given the past is at "
            f"most {1 - self.quantile:g}",
        }
