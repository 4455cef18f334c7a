"""Mean guard: is the mean of a bounded loss of one version above its limit?

Why. A Brier score, an absolute error or a cost is not good or bad but more or less, and cutting it
at a bar throws away how much. Its mean can be tested all the same, if it has a highest value.

How. Four gamblers each bet a fixed share of their wealth that the next loss lies above the limit,
at odds that are fair when the mean is the limit. Their wealth is the evidence, started anew bucket
by bucket (`spending.py`). The bets are fixed, not learnt, so more loss is always more evidence.

Losses outside [0, cap] count as 0 or as the cap; the limit speaks of the losses so bounded. A cap
far above usual losses costs nothing but the reach of the interval.

Refused: losses without a cap. One huge value could then be the whole mean, and no bound holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, isfinite, log, log1p
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    Fired,
    Interval,
    Reading,
    Rows,
    header,
    levels_from,
    plain,
    require_open_unit,
    require_rows,
    restoring,
    running,
)
from detectors.intervals import rate_interval
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from detectors.spending import Buckets, log_mass, restarted
from schemas.plugins import plugin

STAKES = np.array([0.1, 0.25, 0.5, 0.9])
"""Share of wealth that is lost on a loss of 0."""


@plugin("mean", arms="single", losses="value", guarantee="yes")
@dataclass
class MeanGuard:
    """Spending betting test of E[min(loss, cap) | past] <= limit.

    Parameters
    ----------
    limit : float
        Mean loss that is accepted, in the loss's own unit, in (0, cap).
    cap : float
        Highest loss that counts; 1 for a Brier score.
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
    Waudby-Smith, Ramdas (2024), Estimating means of bounded random variables by betting.

    Examples
    --------
    >>> import numpy as np
    >>> guard = MeanGuard(limit=0.12)
    >>> when = np.arange(200)
    >>> guard.update(Rows(np.full(200, 0.1), when, when)).level
    'quiet'
    >>> guard.update(Rows(np.full(200, 0.3), when + 200, when)).level
    'alarm'
    """

    limit: float
    cap: float = 1.0
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(alpha=self.alpha)
        if not (isfinite(self.cap) and 0 < self.limit < self.cap):
            raise ValueError(f"limit must lie above 0 and below cap {self.cap}, got {self.limit}")
        self._buckets = Buckets(self.bucket, self.bucket_ms)
        self._threshold = log(1 / self.alpha)
        most = log1p(float(STAKES[-1]) * (self.cap / self.limit - 1))
        self._warm = ceil(self._threshold / most)
        self._n = 0
        self._sum = 0.0
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence. Restarts keep counting, so an alarm costs no new alpha."""
        self._fired: Fired | None = None
        self._level: F64 = np.full(len(STAKES), -np.inf)
        self._buckets.close()

    def update(self, rows: Rows) -> Reading:
        """Take rows whose losses are values."""
        require_rows(rows, self._last, paired=False, binary=False)
        if len(rows.loss):
            loss = np.clip(rows.loss, 0.0, self.cap)
            self._last = int(rows.position[-1])
            self._n += len(loss)
            self._sum = float(running(np.array([self._sum]), loss[:, None])[-1, 0])
            if self._fired is None:
                self._weigh(loss, rows)
        return self.reading()

    def _weigh(self, loss: F64, rows: Rows) -> None:
        """Add the evidence of the rows bucket by bucket, and latch at the first crossing."""
        opened = self._buckets.count
        starts = self._buckets.cut(rows.time_ms)
        edges = [0, *starts.tolist(), len(loss)]
        masses = log_mass(opened + 1, len(starts))
        gains = np.log1p(np.outer(loss / self.limit - 1, STAKES))
        for i in range(len(edges) - 1):
            if i > 0:
                self._level = restarted(self._level, float(masses[i - 1]))
            first, end = edges[i], edges[i + 1]
            if first == end:
                continue
            levels = running(self._level, gains[first:end])
            self._level = levels[-1]
            if (crossed := crossing(levels, self._threshold)) is not None:
                self.rearm()
                # Buckets after the crossing were never opened: packing must not change the count.
                self._buckets.count = opened + i
                self._fired = fired_at(rows, first + crossed[0], crossed[1])
                return

    def _statistic(self) -> float | None:
        return strength(self._level, self._fired)

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        warming = self._n < self._warm
        return reading_of(self._statistic(), self._threshold, self._fired, self._n, warming=warming)

    def interval(self) -> Interval:
        """Bound the mean over the version's life, at 1 - alpha."""
        share = rate_interval(self._sum / self.cap, self._n, self.alpha)
        if share.estimate is None or share.lower is None or share.upper is None:
            return share
        return Interval(share.estimate * self.cap, share.lower * self.cap, share.upper * self.cap)

    def state(self) -> dict[str, Any]:
        """All it remembers: at most 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            "open": [self._buckets.count, self._buckets.filled, self._buckets.opened_ms],
            "counts": [self._n, self._sum],
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._level = levels_from(state["level"], len(STAKES))
            self._buckets.count, self._buckets.filled, self._buckets.opened_ms = state["open"]
            self._n, self._sum = state["counts"]
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves."""
        return {
            "h0": f"at every row the expected loss, counted up to {self.cap:g}, given the past is "
            f"at most {self.limit:g}",
            "alpha": self.alpha,
            "guarantee": True,
            "restarts": self._buckets.count,
        }
