"""Votes of units in two arms: what one vote says of the ratio, counts, bounds.

Why. Requests of one user or session fail together. Counted one by one, a single broken session is a
proof. So a unit has one vote: of its n rows, served at canary shares s_i with losses x_i in [0, 1],

    f = 1 + sum_i x_i (e^(l_i) - 1) / n

    l_i = ln(theta(r1) / theta(r0))                 if the row is the canary's,
    l_i = ln((1 - theta(r1)) / (1 - theta(r0)))     if it is the stable's,

where theta(r) = s_i r / (s_i r + 1 - s_i): the chance that a bad row is the canary's at a ratio r.

Valid because each row's factor 1 + x_i (e^(l_i) - 1) has a mean of at most 1 while the canary's
mean loss m_c is at most r0 times the stable's m_b. That mean is 1 + s_i m_c (e^(l_c) - 1)
+ (1 - s_i) m_b (e^(l_b) - 1), which grows with m_c and is 1 at m_c = r0 m_b. A mean of e-values is
an e-value whatever the dependence among them, so f is one for any dependence inside a unit, whether
the router draws anew for each request or keeps a unit on one arm. One vote *per arm* would not be:
with a draw for each request, a unit of ten requests has a canary vote in 65 % of cases at a share
of a tenth. For losses of 0 and 1 and units of one row f is the factor of `canary_guard.py`.

Where the share moved within a unit, the vote takes the one of its rows' shares that speaks least
for an alarm (both factors are monotone in it), so f is at most what it should be.

Refused: rows whose share of traffic is unknown, and shares of 0 or 1, which tell nothing.

References
----------
Vovk, Wang (2021), E-values: calibration, combination and applications. Waudby-Smith, Ramdas (2024),
Estimating means of bounded random variables by betting. Lindon, Malek (2022).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from detectors.base import F64, Bool, Interval, InvalidRows, Rows, require_rows, running
from detectors.intervals import RATIOS, RatioGrid, rate_interval, steady_ratio


class UnitVotes(NamedTuple):
    """Votes as columns, shape (n,)."""

    canary: F64
    """Sum of the losses of the canary's rows over the rows of the unit, in [0, 1]."""
    stable: F64
    """The same of the stable's rows; both together are at most 1."""
    part: F64
    """Share of the unit's rows that are the canary's."""
    share: F64
    """The canary's share of traffic; NaN: unknown."""

    @property
    def telling(self) -> Bool:
        """Votes that say something of the ratio."""
        known: Bool = (self.share > 0) & (self.share < 1)
        return known & (self.canary + self.stable > 0)


def votes_of(rows: Rows, last: int | None) -> UnitVotes:
    """Read votes from rows; losses outside [0, 1] count as 0 or 1."""
    require_rows(rows, last, paired=True, binary=False)
    own = rows.canary
    if own is None:
        raise InvalidRows("canary: a paired guard needs a column that tells the arms apart")
    other = np.zeros(len(own)) if rows.stable_loss is None else rows.stable_loss
    canary, stable = np.where(own, rows.loss, 0.0), np.where(own, other, rows.loss)
    canary, stable = np.clip(canary, 0.0, 1.0), np.clip(stable, 0.0, 1.0)
    part = own.astype(np.float64) if rows.canary_part is None else rows.canary_part
    share = np.full(len(own), np.nan) if rows.weight is None else rows.weight
    return UnitVotes(canary, stable, part, share)


def gains(votes: UnitVotes, ratios: F64, margin: float) -> F64:
    """ln f of each vote for each alternative, shape (m, len(ratios)).

    >>> one = UnitVotes(*(np.array([x]) for x in (1.0, 0.0, 1.0, 0.5)))
    >>> [round(float(x), 4) for x in gains(one, np.array([2.0]), 1.0)[0]]
    [0.2877]
    """
    chance = np.log1p(np.outer(votes.share, ratios - 1)) - np.log1p(
        votes.share[:, None] * (margin - 1)
    )
    on_canary = np.expm1(np.log(ratios / margin) - chance)
    on_stable = np.expm1(-chance)
    told: F64 = np.log1p(votes.canary[:, None] * on_canary + votes.stable[:, None] * on_stable)
    return told


class UnitCounts:
    """Sums since the version was first seen; for display and for `pass`, never for a decision."""

    def __init__(self) -> None:
        self.votes = 0
        self.unknown = 0
        self.known = 0.0
        self.known_canary = 0.0
        self._sums: F64 = np.zeros(4)
        self._shares: tuple[float, float] | None = None
        self._grid = RatioGrid()

    def count(self, votes: UnitVotes) -> None:
        """Take votes."""
        if not len(votes.part):
            return
        self.votes += len(votes.part)
        self.unknown += int(np.count_nonzero(np.isnan(votes.share)))
        added = np.stack([votes.canary, votes.part, votes.stable, 1 - votes.part], axis=1)
        self._sums = running(self._sums, added)[-1]
        told = votes.telling
        if not told.any():
            return
        canary, share = votes.canary[told], votes.share[told]
        both = canary + votes.stable[told]
        sums = running(np.array([self.known_canary, self.known]), np.stack([canary, both], axis=1))
        self.known_canary, self.known = (float(x) for x in sums[-1])
        low, high = self._shares or (1.0, 0.0)
        self._shares = min(low, float(share.min())), max(high, float(share.max()))
        # exp(x l) is below the chord 1 + x (e^l - 1), so fractions bound the ratio as well.
        told_of = np.outer(canary, np.log(RATIOS)) - both[:, None] * np.log1p(
            np.outer(share, RATIOS - 1)
        )
        self._grid.logs = running(self._grid.logs, told_of)[-1]

    def interval(self, alpha: float) -> Interval:
        """Bound the mean vote of the canary, at 1 - alpha, beside the stable's."""
        bad, n, stable_bad, stable_n = (float(x) for x in self._sums)
        if n <= 0:
            return Interval(stable_estimate=stable_bad / stable_n if stable_n > 0 else None)
        own = rate_interval(min(bad, n), n, alpha)
        return Interval(own.estimate, own.lower, own.upper,
                        stable_bad / stable_n if stable_n > 0 else None)  # fmt: skip

    def ratio(self, alpha: float) -> Interval:
        """Bound canary mean / stable mean, at 1 - alpha."""
        if self._shares is None:
            return Interval()
        low, high = self._shares
        if low == high:
            return steady_ratio(self.known_canary, self.known, low, alpha)
        return self._grid.interval(alpha)

    def saved(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "votes": [self.votes, self.unknown, self.known, self.known_canary],
            "sums": self._sums.tolist(),
            "shares": list(self._shares) if self._shares else None,
            "grid": self._grid.logs.tolist() if self._shares else None,
        }

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from `saved()`."""
        self.votes, self.unknown, self.known, self.known_canary = saved["votes"]
        self._sums = np.array(saved["sums"], dtype=np.float64)
        shares = saved["shares"]
        self._shares = (shares[0], shares[1]) if shares else None
        self._grid.logs = np.array(saved["grid"] or np.zeros(len(RATIOS)), dtype=np.float64)
