"""A z-test at 1 % that is looked at again and again, as dashboards invite one to do.

One version: against the limit, every 100 rows. Two: the canary's rate against the margin times the
stable's, pooled over the whole rollout, every 50 rows once both arms have 50. Right at one look.
"""

from __future__ import annotations

from math import sqrt

import numpy as np

from detectors.base import Rows
from evidence.cells import Judge

Z = 2.3263
"""The one-sided 1 % point."""


def first_true(looks: np.ndarray, true: np.ndarray) -> int | None:
    """Row before the first look that holds."""
    at = np.flatnonzero(true)
    return int(looks[at[0]]) - 1 if len(at) else None


def one_sample(limit: float, every: int = 100) -> Judge:
    """Against a limit."""

    def judge(rows: Rows) -> int | None:
        looks = np.arange(every, len(rows.loss) + 1, every)
        rate = np.cumsum(rows.loss)[looks - 1] / looks
        return first_true(looks, rate - limit > Z * sqrt(limit * (1 - limit)) / np.sqrt(looks))

    return judge


def arms_at(rows: Rows, every: int, least: int) -> tuple[np.ndarray, ...]:
    """Looks, and for each the arms' rows and rates: looks, n_c, n_b, p_c, p_b."""
    if rows.canary is None:
        raise ValueError("rows of two arms expected")
    looks = np.arange(every, len(rows.loss) + 1, every)
    n_c = np.cumsum(rows.canary)[looks - 1]
    s_c = np.cumsum(rows.loss * rows.canary)[looks - 1]
    s_b = np.cumsum(rows.loss)[looks - 1] - s_c
    n_b = looks - n_c
    ready = (n_c >= least) & (n_b >= least)
    n_c, n_b = n_c[ready], n_b[ready]
    return looks[ready], n_c, n_b, s_c[ready] / n_c, s_b[ready] / n_b


def two_samples(margin: float, every: int = 50) -> Judge:
    """Against the stable, pooled."""

    def judge(rows: Rows) -> int | None:
        looks, n_c, n_b, p_c, p_b = arms_at(rows, every, 50)
        spread = np.sqrt(p_c * (1 - p_c) / n_c + margin**2 * p_b * (1 - p_b) / n_b)
        return first_true(looks, p_c - margin * p_b > Z * spread)

    return judge
