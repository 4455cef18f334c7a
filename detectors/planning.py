"""How many rows a guard needs: before a regression is seen, and before a promotion is proven.

Why. A policy is a bargain between alpha, the limit, and the traffic a canary gets. Before anyone
strikes it they should know how long harm of a given size stays unseen, and how long a healthy
canary waits.

How. Evidence is a sum, so it grows at a known pace: per row, the best of the detector's own
alternatives gains so many nats on average. What is needed is the threshold and 1.2 nats for the
mixture: rows = (ln(1/alpha) + 1.2) / pace. These are sizes for planning, not promises: runs differ
by chance. The tests run the real detectors against them and state how far they lie apart.

Said of a version that is bad from its first row. After a long healthy life a restart costs the
logarithm of that life more (`spending.py`): twice to three times the rows at a day's traffic.

Refused: river's detectors, which promise nothing and know no limit.

References
----------
Howard, Ramdas, McAuliffe, Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
sequences.
"""

from __future__ import annotations

from math import inf, log

import numpy as np

from detectors.base import F64, require_open_unit
from detectors.canary_guard import alternatives
from detectors.mean_guard import STAKES
from detectors.promote_gate import RATIOS
from detectors.rate_guard import ODDS

MIXTURE = 1.2
"""What it costs, in nats, not to know which alternative is the true one."""


def rows_at(pace: float, alpha: float) -> float:
    """Rows until evidence that grows by `pace` nats a row suffices; infinite if it never does."""
    require_open_unit(alpha=alpha)
    return (log(1 / alpha) + MIXTURE) / pace if pace > 0 else inf


def rate_rows(rate: float, limit: float, alpha: float) -> float:
    """Rows of the version until `RateGuard` alarms.

    Parameters
    ----------
    rate, limit : float
        True share of bad rows, and the accepted one; both in (0, 1).

    Examples
    --------
    >>> [round(rate_rows(rate, 0.02, 0.01)) for rate in (0.03, 0.04, 0.06, 0.10)]
    [2621, 733, 220, 69]
    >>> rate_rows(0.02, 0.02, 0.01)
    inf
    """
    require_open_unit(rate=rate, limit=limit)
    if rate <= limit:
        return inf
    good = -np.log1p(limit * (ODDS - 1))
    return rows_at(float((rate * np.log(ODDS) + good).max()), alpha)


def share_of_bad(ratio: float, share: float) -> float:
    """Chance that a bad row is the canary's: its rate is `ratio` times the stable's.

    >>> round(share_of_bad(2.0, 0.1), 4)
    0.1818
    """
    return share * ratio / (share * ratio + 1 - share)


def canary_bad_rows(ratio: float, margin: float, share: float, alpha: float) -> float:
    """Bad rows of both arms until `CanaryGuard` alarms.

    Parameters
    ----------
    ratio, margin : float
        True canary/stable ratio of bad shares, and the highest accepted.
    share : float
        The canary's share of traffic, in (0, 1).

    Examples
    --------
    >>> [round(canary_bad_rows(ratio, 1.15, 0.1, 0.01)) for ratio in (1.5, 2.0, 3.0)]
    [1652, 293, 81]
    """
    require_open_unit(share=share)
    if ratio <= margin:
        return inf
    return rows_at(_pace_of_ratio(ratio, margin, share, alternatives(margin)), alpha)


def promote_bad_rows(margin: float, share: float, beta: float, ratio: float = 1.0) -> float:
    """Bad rows of both arms until `PromoteGate` is won by a canary of this ratio.

    >>> [round(promote_bad_rows(margin, 0.1, 0.05)) for margin in (1.15, 1.25, 1.5, 2.0)]
    [4598, 1764, 509, 161]
    """
    require_open_unit(share=share)
    if ratio >= margin:
        return inf
    return rows_at(_pace_of_ratio(ratio, margin, share, RATIOS), beta)


def _pace_of_ratio(ratio: float, margin: float, share: float, others: F64) -> float:
    """Nats a bad row gains on average, with the best of the alternatives."""
    theta, null = share_of_bad(ratio, share), share_of_bad(margin, share)
    guess = share * others / (share * others + 1 - share)
    paces = theta * np.log(guess / null) + (1 - theta) * np.log((1 - guess) / (1 - null))
    return float(paces.max())


def mean_rows(mean: float, limit: float, cap: float, alpha: float) -> float:
    """Rows of the version until `MeanGuard` alarms, if losses are spread like waiting times.

    How long it takes depends on how losses are spread, which nobody knows beforehand: steadier
    ones (a Brier score) are seen sooner, and rare huge ones later.

    Parameters
    ----------
    mean, limit, cap : float
        True mean of the capped loss, the accepted one, and the cap; 0 < limit < cap.

    Examples
    --------
    >>> round(mean_rows(0.2, 0.1, 1.0, 0.01))
    25
    """
    if not 0 < limit < cap:
        raise ValueError(f"limit must lie above 0 and below cap {cap}, got {limit}")
    if mean <= limit:
        return inf
    losses = waiting_times(min(mean, 0.999 * cap), cap)
    return rows_at(float(np.log1p(np.outer(STAKES, losses / limit - 1)).mean(axis=1).max()), alpha)


def waiting_times(mean: float, cap: float) -> F64:
    """A thousand evenly likely values of an exponential law, cut at `cap`, with this mean."""
    quantiles = -np.log1p(-(np.arange(1000) + 0.5) / 1000)
    low, high = mean / 2, 2000 * cap
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if np.minimum(quantiles * middle, cap).mean() < mean else (
            low, middle
        )  # fmt: skip
    return np.minimum(quantiles * low, cap)
