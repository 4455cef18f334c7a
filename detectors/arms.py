"""Counts of two arms, and what they say of rate and ratio; for display and for `pass`.

Why. Every detector that compares the canary with the concurrent stable counts the same things, and
bounds the same ratio from them. No decision of a test reads these counts.

How. Rows count by arm. Bad rows that were served at a known share of traffic, neither nothing nor
all, also count towards the ratio: exactly under one share, on a grid where the share moved
(`intervals.py`). Where no share is known, the ratio follows from each arm's own bounds.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detectors.base import F64, I64, Bool, Interval, Rows
from detectors.intervals import RATIOS, RatioGrid, rate_interval, separate_ratio, steady_ratio


class Taken(NamedTuple):
    """What rows of both arms say: n rows, m of which are bad and served at a known share."""

    bad: Bool
    """Shape (n,)."""
    unknown: Bool
    """Where the share is not known; shape (n,)."""
    events: I64
    """Indices of the telling rows; shape (m,)."""
    canary: F64
    """1 where a telling row is the canary's, 0 where it is the stable's; shape (m,)."""
    share: F64
    """The canary's share when it was served, in (0, 1); shape (m,)."""

    def gains(self, ratios: F64, margin: float) -> F64:
        """Log likelihood ratio of each ratio against the margin by each telling row, (m, k)."""
        cost = np.log1p(np.outer(self.share, ratios - 1)) - np.log1p(
            self.share[:, None] * (margin - 1)
        )
        gains: F64 = np.outer(self.canary, np.log(ratios / margin)) - cost
        return gains


class Arms:
    """Counts since the version was first seen; nothing here is ever cleared."""

    def __init__(self) -> None:
        self.canary = self.canary_bad = self.stable = self.stable_bad = 0
        self.unknown = self._known_bad = self._known_canary_bad = 0
        self._shares: tuple[float, float] | None = None
        self._grid = RatioGrid()

    @property
    def rows(self) -> int:
        """Rows of both arms."""
        return self.canary + self.stable

    @property
    def weight(self) -> str:
        """Whether shares of traffic were `assigned`, `unknown` or `mixed`."""
        if not self.unknown:
            return "assigned"
        return "unknown" if self.unknown == self.rows else "mixed"

    def take(self, rows: Rows, canary: Bool) -> Taken:
        """Count rows of both arms with losses 0 or 1; which of them tell the arms apart."""
        bad = rows.loss > 0
        share = np.full(len(bad), np.nan) if rows.weight is None else rows.weight
        unknown = np.isnan(share)
        self.count(bad, canary, unknown)
        events = np.flatnonzero(bad & (share > 0) & (share < 1))
        taken = Taken(bad, unknown, events, canary[events].astype(np.float64), share[events])
        self.count_known(taken.canary, taken.share)
        return taken

    def count(self, bad: Bool, canary: Bool, unknown: Bool) -> None:
        """Take rows, shape (n,); `unknown` where the share is not known."""
        of_canary = int(np.count_nonzero(canary))
        bad_of_canary = int(np.count_nonzero(bad & canary))
        self.canary += of_canary
        self.canary_bad += bad_of_canary
        self.stable += len(bad) - of_canary
        self.stable_bad += int(np.count_nonzero(bad)) - bad_of_canary
        self.unknown += int(np.count_nonzero(unknown))

    def count_known(self, canary: F64, share: F64) -> None:
        """Take telling rows: 1 where it is the canary's, and its share then in (0, 1); (m,)."""
        if not len(share):
            return
        self._known_bad += len(share)
        self._known_canary_bad += int(canary.sum())
        low, high = self._shares or (1.0, 0.0)
        self._shares = min(low, float(share.min())), max(high, float(share.max()))
        self._grid.add(canary, share)

    def interval(self, alpha: float) -> Interval:
        """Bound the canary's bad share over its life, at 1 - alpha, beside the stable's."""
        own = rate_interval(self.canary_bad, self.canary, alpha)
        stable = self.stable_bad / self.stable if self.stable else None
        return Interval(own.estimate, own.lower, own.upper, stable)

    def ratio(self, alpha: float) -> Interval:
        """Bound canary rate / stable rate, at 1 - alpha."""
        if self._shares is None:
            if not self.unknown:
                return Interval()
            counts = (self.canary_bad, self.canary, self.stable_bad, self.stable)
            return separate_ratio(*counts, alpha)
        low, high = self._shares
        if low == high:
            return steady_ratio(self._known_canary_bad, self._known_bad, low, alpha)
        return self._grid.interval(alpha)

    def saved(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "arms": [self.canary, self.canary_bad, self.stable, self.stable_bad],
            "known": [self.unknown, self._known_bad, self._known_canary_bad],
            "shares": list(self._shares) if self._shares else None,
            "grid": self._grid.logs.tolist() if self._known_bad else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from `saved()`."""
        self.canary, self.canary_bad, self.stable, self.stable_bad = saved["arms"]
        self.unknown, self._known_bad, self._known_canary_bad = saved["known"]
        low_high = saved["shares"]
        self._shares = (low_high[0], low_high[1]) if low_high else None
        self._grid.logs = np.array(saved["grid"] or np.zeros(len(RATIOS)), dtype=np.float64)
