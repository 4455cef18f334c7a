"""Quantile canary: are the canary's values above the stable's by more than is accepted?

Why. "p95 may rise by a tenth" has no fixed limit: the stable's own p95 moves through the day.

How. For each bucket a bar is frozen: the stable's quantile as of the rows before the bucket. Rows
of both arms become 0 or 1 by that bar, and a canary guard judges those. Any bar that is known
before the rows it judges keeps the bound; a rough one only costs power. `stretch` raises the bar
for the canary alone: with stretch 1.1 and margin 1 an alarm proves that the canary is more than a
tenth slower; with stretch 1, `margin` bounds how many times as often it may exceed the bar.

The stable's histogram fades, so that the bar follows the stable of the last few thousand rows.

Refused: rows before the stable has shown ten values beyond its quantile; they are counted, not
judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    Bool,
    Interval,
    Reading,
    Rows,
    header,
    require_at_least,
    require_open_unit,
    require_rows,
    restoring,
)
from detectors.canary_guard import CanaryGuard
from detectors.histogram import Histogram, bins_of, rows_for_quantile
from detectors.spending import Buckets
from schemas.plugins import plugin

FADE_ROWS = 16_384
"""Stable rows after which their histogram is halved."""


@plugin("quantile_canary", arms="paired", losses="value", guarantee="yes")
@dataclass
class QuantileCanary:
    """Spending test of the canary's exceedances of a bar set by the concurrent stable.

    Parameters
    ----------
    quantile : float
        The stable's quantile that makes the bar, in (0, 1).
    margin : float
        How many times the stable's share of exceedances is accepted, >= 1. At 1.5, a log-normal
        latency (sigma 0.6) may be about a tenth slower.
    stretch : float
        Factor on the bar for the canary's rows, >= 1; for losses that are not negative.
    alpha : float
        Bound on P(ever an alarm while the margin holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Rows of both arms, and span of event time in ms, after which bar and evidence start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Howard, Ramdas (2022), Sequential estimation of quantiles with applications to A/B testing and
    best-arm identification. Lindon, Malek (2022), Anytime-valid inference for multinomial count
    data.

    Examples
    --------
    >>> import numpy as np
    >>> guard = QuantileCanary(quantile=0.9)
    >>> n = np.arange(4000)
    >>> canary, value = n % 2 == 0, 100.0 + n % 50
    >>> guard.update(Rows(value, n, n, canary, np.full(4000, 0.5))).level
    'quiet'
    >>> slower = np.where(canary, value * 1.5, value)
    >>> guard.update(Rows(slower, n + 4000, n, canary, np.full(4000, 0.5))).level
    'alarm'
    """

    quantile: float
    margin: float = 1.5
    stretch: float = 1.0
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(quantile=self.quantile)
        require_at_least(1, stretch=self.stretch)
        self._guard = CanaryGuard(self.margin, self.alpha, self.bucket, self.bucket_ms)
        self._buckets = Buckets(self.bucket, self.bucket_ms)
        self._bar: float | None = None
        self._stable = Histogram()
        self._canary = Histogram()

    def update(self, rows: Rows) -> Reading:
        """Take rows of both arms whose losses are values."""
        require_rows(rows, self._guard.last, paired=True, binary=False)
        if not len(rows.loss) or rows.canary is None:
            return self.reading()
        exceeds = np.zeros(len(rows.loss))
        starts = self._buckets.cut(rows.time_ms).tolist()
        edges = [0, *starts, len(rows.loss)]
        stable = np.flatnonzero(~rows.canary)
        bins = bins_of(rows.loss[stable])
        cuts = np.searchsorted(stable, edges).tolist()
        for i in range(len(edges) - 1):
            if i > 0:
                self._freeze()
            part = slice(edges[i], edges[i + 1])
            exceeds[part] = self._exceeds(rows.loss[part], rows.canary[part])
            self._stable.add_bins(bins[cuts[i] : cuts[i + 1]])
        self._canary.add(rows.loss[rows.canary])
        return self._guard.update(rows._replace(loss=exceeds))

    def _freeze(self) -> None:
        """Set the bar of the bucket that opens, from the rows before it."""
        if self._stable.n >= FADE_ROWS:
            self._stable.fade()
        known = self._stable.n >= rows_for_quantile(self.quantile)
        self._bar = self._stable.quantile(self.quantile) if known else None

    def _exceeds(self, values: F64, canary: Bool) -> Bool:
        if self._bar is None:
            return np.zeros(len(values), dtype=np.bool_)
        exceeds: Bool = values > np.where(canary, self._bar * self.stretch, self._bar)
        return exceeds

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        return self._guard.reading()

    def interval(self) -> Interval:
        """Bound the canary's quantile over its life, at 1 - alpha, beside the recent stable's."""
        own = self._canary.quantile_interval(self.quantile, self.alpha)
        stable = self._stable.quantile(self.quantile)
        return Interval(own.estimate, own.lower, own.upper, stable)

    def ratio(self) -> Interval:
        """Bound the ratio of the arms' shares of exceedances, at 1 - alpha."""
        return self._guard.ratio()

    def rearm(self) -> None:
        """Clear latch and evidence."""
        self._guard.rearm()

    def state(self) -> dict[str, Any]:
        """All it remembers: about 2 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "guard": self._guard.state(),
            "open": [self._buckets.count, self._buckets.filled, self._buckets.opened_ms],
            "bar": self._bar,
            "stable": self._stable.saved(),
            "canary": self._canary.saved(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._guard.restore(state["guard"])
            self._buckets.count, self._buckets.filled, self._buckets.opened_ms = state["open"]
            self._bar = state["bar"]
            self._stable.restore(state["stable"])
            self._canary.restore(state["canary"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves, and on which rows it stands."""
        bar = f"the stable's {self.quantile:g} quantile as of the bucket before"
        slower = f" times {self.stretch:g}" if self.stretch > 1 else ""
        return {
            **self._guard.explain(),
            "h0": f"the canary exceeds {bar}{slower} at most {self.margin:g} times as often as the "
            "stable exceeds it",
            "bar": self._bar,
        }
