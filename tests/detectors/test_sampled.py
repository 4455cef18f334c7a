"""Partial labels: whichever rows are labelled, the share of bad ones is what is judged."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np

import detectors.sampled as module
from detectors.mean_guard import MeanGuard
from detectors.rate_guard import RateGuard
from detectors.sampled import weighted_loss
from tests.detectors.worlds import feed, rows_of

LEAST = 0.1


def audited(seed: int, n: int, rate: float) -> tuple[Any, Any]:
    """Bad and labelled rows, and the chance of a label: doubtful rows are bad more often, and are
    audited more often.
    """
    rng = np.random.default_rng(seed)
    doubtful = rng.random(n) < 0.2
    bad = rng.random(n) < np.where(doubtful, 4 * rate, rate / 4)
    chance = np.where(doubtful, 0.8, LEAST)
    labelled = rng.random(n) < chance
    return bad & labelled, np.where(labelled, chance, np.nan)


def guard(alpha: float = 0.01) -> MeanGuard:
    return MeanGuard(limit=0.05, cap=1 / LEAST, alpha=alpha)


def test_its_mean_is_the_share_of_bad_rows_whichever_are_labelled() -> None:
    """If this breaks, a version is judged by the rows that somebody looked at."""
    bad, chance = audited(1, 2_000_000, 0.05)

    # 4 deviations: the loss has a standard deviation of about .33.
    assert abs(weighted_loss(bad, chance).mean() - 0.05) <= 4 * 0.35 / np.sqrt(2_000_000)
    labelled = ~np.isnan(chance)
    assert bad[labelled].mean() > 0.12


def test_false_alarms_at_the_limit_stay_within_alpha() -> None:
    """If this breaks, an audit of doubtful rows rolls back a good version; as counting does."""
    alarms = counted = 0
    for seed in range(150):
        bad, chance = audited(seed, 10_000, 0.05)
        alarms += feed(guard(0.05), rows_of(weighted_loss(bad, chance))).level == "alarm"
        labelled = ~np.isnan(chance)
        counted += feed(RateGuard(0.05, 0.05), rows_of(bad[labelled])).level == "alarm"

    assert alarms <= 0.05 * 150
    assert 150 == counted


def test_a_version_above_the_limit_is_found_and_its_rate_told() -> None:
    """If this breaks, bought labels are not enough to see a bad version."""
    for seed in range(10):
        bad, chance = audited(seed, 20_000, 0.15)
        judge = guard()
        assert "alarm" == feed(judge, rows_of(weighted_loss(bad, chance))).level
        interval = judge.interval()
        assert interval.lower is not None and interval.upper is not None
        assert 0.05 < interval.lower < 0.15 < interval.upper


def test_a_chance_below_the_least_counts_for_too_little_never_for_too_much() -> None:
    """If this breaks, one label of a rare sample is proof enough to roll back."""
    odd, least = guard(), guard()

    feed(odd, rows_of(weighted_loss(np.array([True]), np.array([1e-9]))))
    feed(least, rows_of(weighted_loss(np.array([True]), np.array([LEAST]))))

    assert odd.reading() == least.reading()


def test_the_example_runs() -> None:
    """If this breaks, the first thing a reader tries does not work."""
    results = doctest.testmod(module)
    assert (0, True) == (results.failed, results.attempted > 0)
