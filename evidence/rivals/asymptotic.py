"""The asymptotic confidence sequence, with the formula and tuning that GrowthBook uses.

One-sided half width after N rows with spread sigma, where rho is a tuning constant:

    sigma sqrt(2 (N rho^2 + 1) / (N rho)^2 ln(1 + sqrt(N rho^2 + 1) / (2 alpha)))
    rho^2 = (-2 ln(2 alpha) + ln(-2 ln(2 alpha) + 1)) / N*,   N* = 5000 (its default)

It allows peeking, but holds only in the limit of many rows, for a steady mean. Looked at as often
as the z-test beside it, so that the two differ in the bound alone. Two versions are pooled over the
rollout, as an experiment's report does.

References
----------
Waudby-Smith, Arbour, Sinha, Kennedy, Ramdas (2024), Time-uniform central limit theory and
asymptotic confidence sequences.
"""

from __future__ import annotations

from math import log

import numpy as np

from detectors.base import F64, Rows
from evidence.cells import Judge
from evidence.rivals.peeked import arms_at, first_true

TUNED_TO = 5000


def half_width(n: F64, sigma: F64, alpha: float) -> F64:
    """Of the one-sided sequence after n rows."""
    rho2 = (-2 * log(2 * alpha) + log(-2 * log(2 * alpha) + 1)) / TUNED_TO
    grown = n * rho2 + 1
    root: F64 = np.sqrt(2 * grown / (n**2 * rho2) * np.log1p(np.sqrt(grown) / (2 * alpha)))
    return sigma * root


def one_sample(limit: float, alpha: float = 0.01, every: int = 100) -> Judge:
    """Against a limit."""

    def judge(rows: Rows) -> int | None:
        looks = np.arange(every, len(rows.loss) + 1, every)
        rate = np.cumsum(rows.loss)[looks - 1] / looks
        width = half_width(looks.astype(np.float64), np.sqrt(rate * (1 - rate)), alpha)
        return first_true(looks, rate - width > limit)

    return judge


def two_samples(margin: float, alpha: float = 0.01, every: int = 50) -> Judge:
    """Against the stable, pooled."""

    def judge(rows: Rows) -> int | None:
        looks, n_c, n_b, p_c, p_b = arms_at(rows, every, 50)
        n = (n_c + n_b).astype(np.float64)
        spread = np.sqrt(p_c * (1 - p_c) / n_c + margin**2 * p_b * (1 - p_b) / n_b)
        return first_true(looks, p_c - margin * p_b > half_width(n, spread * np.sqrt(n), alpha))

    return judge
