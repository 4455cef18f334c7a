"""Bounds that hold at all times at once, for display and for a verdict of `pass`.

Why. An interval that is right at one look is wrong for a page that is looked at all day. These are
confidence sequences: the chance that the truth *ever* lies outside is at most alpha.

How. The bounds of a rate are the rates that a beta-binomial mixture, Beta(1/2, 1/2), has not
refuted at 1/alpha. The ratio of two arms is bounded on bad rows alone: whose was it, given that one
was bad? That does not depend on the base rate, nor on how it moves. Under one constant share of
traffic the ratio follows from the bounds of that chance; under a moving share, `RatioGrid` keeps
the likelihood of 24 ratios and gives the outermost that stands, so a bound is coarse, never short.

Refused: intervals that hold only for large samples. A rate is bounded as if it were steady; where
it moves, the bounds are about its mean over the rows seen.

References
----------
Howard, Ramdas, McAuliffe, Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
sequences. Lindon, Malek (2022), Anytime-valid inference for multinomial count data.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from math import lgamma, log, log1p

import numpy as np

from detectors.base import F64, Interval, running

RATIOS = np.geomspace(0.5, 4, 24)
"""Canary/stable rate ratios whose likelihood is kept under a moving share of traffic."""

PRIOR = 0.5
_NONE_MIXED = 2 * lgamma(PRIOR) - lgamma(2 * PRIOR)


def log_e_of_rate(bad: float, n: int, rate: float) -> float:
    """Evidence against a rate in (0, 1), nats, of `bad` among `n` rows."""
    return _log_mixed(bad, n) - bad * log(rate) - (n - bad) * log1p(-rate)


def _log_mixed(bad: float, n: float) -> float:
    """The part of the evidence that no rate enters."""
    mixed = lgamma(PRIOR + bad) + lgamma(PRIOR + (n - bad)) - lgamma(2 * PRIOR + n)
    return mixed - _NONE_MIXED


@lru_cache(maxsize=4096)  # a version is judged often while no row of its own comes
def rate_bounds(bad: float, n: float, alpha: float) -> tuple[float, float]:
    """Lowest and highest rate that stand after `bad` of `n` rows; (0, 1) before any.

    `bad` may be a sum of losses in [0, 1]: the mixture is an e-value for those too.

    >>> [round(bound, 4) for bound in rate_bounds(40, 1000, 0.01)]
    [0.0197, 0.0704]
    """
    if n == 0:
        return 0.0, 1.0
    centre, threshold = bad / n, log(1 / alpha)
    mixed, good = _log_mixed(bad, n), n - bad

    def refuted(rate: float) -> bool:
        return mixed - bad * log(rate) - good * log1p(-rate) >= threshold

    lower = _last_refuted(refuted, 0.0, centre) if bad else 0.0
    upper = _last_refuted(refuted, 1.0, centre) if bad < n else 1.0
    return lower, upper


def _last_refuted(refuted: Callable[[float], bool], outer: float, inner: float) -> float:
    """Bisect between an end that is refuted and a middle that stands; the refuted side."""
    for _ in range(60):
        middle = (outer + inner) / 2
        if middle in (outer, inner):
            break
        outer, inner = (middle, inner) if refuted(middle) else (outer, middle)
    return outer


def rate_interval(bad: float, n: float, alpha: float) -> Interval:
    """A rate with its bounds; nothing before the first row."""
    if n == 0:
        return Interval()
    lower, upper = rate_bounds(bad, n, alpha)
    return Interval(estimate=bad / n, lower=lower, upper=upper)


def steady_ratio(canary_bad: float, bad: float, share: float, alpha: float) -> Interval:
    """Rate ratio canary/stable from `bad` bad rows, all served at one canary share in (0, 1).

    >>> ratio = steady_ratio(canary_bad=60, bad=300, share=0.1, alpha=0.01)
    >>> round(ratio.estimate, 2), round(ratio.lower, 2), round(ratio.upper, 2)
    (2.25, 1.23, 3.85)
    """
    if bad == 0:
        return Interval()
    low, high = rate_bounds(canary_bad, bad, alpha)
    return Interval(
        estimate=_ratio(canary_bad / bad, share),
        lower=_ratio(low, share),
        upper=_ratio(high, share),
    )


def _ratio(theta: float, share: float) -> float | None:
    """The rate ratio at which a bad row is the canary's with chance theta."""
    return None if theta >= 1 else theta * (1 - share) / (share * (1 - theta))


def separate_ratio(
    canary_bad: int, canary_n: int, stable_bad: int, stable_n: int, alpha: float
) -> Interval:
    """Rate ratio from each arm's own bounds at alpha/2: needs no share, but steady rates."""
    if not canary_n or not stable_n:
        return Interval()
    low, high = rate_bounds(canary_bad, canary_n, alpha / 2)
    stable_low, stable_high = rate_bounds(stable_bad, stable_n, alpha / 2)
    estimate = (canary_bad / canary_n) / (stable_bad / stable_n) if stable_bad else None
    return Interval(
        estimate=estimate,
        lower=low / stable_high,
        upper=high / stable_low if stable_low > 0 else None,
    )


class RatioGrid:
    """Likelihood of 24 rate ratios, given bad rows at any shares of traffic: 24 floats."""

    def __init__(self) -> None:
        self.logs: F64 = np.zeros(len(RATIOS))

    def add(self, canary: F64, share: F64) -> None:
        """Take bad rows: 1 where it is the canary's, and the canary's share then; both (m,)."""
        gains = np.outer(canary, np.log(RATIOS)) - np.log1p(np.outer(share, RATIOS - 1))
        if len(gains):
            self.logs = running(self.logs, gains)[-1]

    def interval(self, alpha: float) -> Interval:
        """The ratios that an even mixture of all has not refuted at 1/alpha."""
        top = float(self.logs.max())
        mixed = top + log(float(np.exp(self.logs - top).mean()))
        standing = np.flatnonzero(mixed - self.logs < log(1 / alpha))
        # The likelihood is concave in ln(ratio), so what stands is one piece; the neighbour that
        # is refuted is the bound, and at the end of the grid there is none.
        low, high = int(standing[0]) - 1, int(standing[-1]) + 1
        return Interval(
            estimate=self._peak(),
            lower=float(RATIOS[low]) if low >= 0 else None,
            upper=float(RATIOS[high]) if high < len(RATIOS) else None,
        )

    def _peak(self) -> float:
        """The likeliest ratio: top of the parabola through the best point and its neighbours."""
        best = int(self.logs.argmax())
        if best in (0, len(RATIOS) - 1):
            return float(RATIOS[best])
        left, middle, right = self.logs[best - 1 : best + 2]
        bend = left - 2 * middle + right
        shift = 0.5 * (left - right) / bend if bend < 0 else 0.0
        step = log(float(RATIOS[1] / RATIOS[0]))
        return float(RATIOS[best] * np.exp(shift * step))
