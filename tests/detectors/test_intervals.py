"""Bounds that hold at all times at once."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.intervals import (
    RATIOS,
    RatioGrid,
    log_e_of_rate,
    rate_bounds,
    rate_interval,
    separate_ratio,
    steady_ratio,
)


def test_bounds_are_where_the_evidence_reaches_its_limit() -> None:
    """If this breaks, the interval on a page is not the one that the documents describe."""
    for bad, n in ((1, 10), (40, 1000), (999, 1000), (300_000, 10_000_000)):
        for bound in rate_bounds(bad, n, 0.01):
            assert math.log(100) == pytest.approx(log_e_of_rate(bad, n, bound), abs=1e-6)


def test_bounds_at_the_ends() -> None:
    """If this breaks, no bad row yet reads as proof of no fault."""
    assert (0.0, 1.0) == rate_bounds(0, 0, 0.01)
    assert 0.0 == rate_bounds(0, 500, 0.01)[0] and 0.01 < rate_bounds(0, 500, 0.01)[1] < 0.02
    assert 1.0 == rate_bounds(500, 500, 0.01)[1] and 0.98 < rate_bounds(500, 500, 0.01)[0] < 0.99
    assert rate_interval(0, 0, 0.01).estimate is None


def test_the_truth_ever_leaves_the_bounds_at_most_alpha_of_the_time() -> None:
    """If this breaks, watching the page long enough shows a false bound."""
    rate, alpha, runs, n = 0.05, 0.1, 400, 3000
    bad = np.cumsum(np.random.default_rng(1).random((runs, n)) < rate, axis=1)
    table = [[log_e_of_rate(b, t + 1, rate) for b in range(400)] for t in range(0, n, 10)]
    evidence = np.array(table)[np.arange(0, n, 10)[None, :] // 10, bad[:, ::10]]

    assert (evidence >= math.log(1 / alpha)).any(axis=1).mean() <= alpha


def bad_rows(seed: int, n: int, share: np.ndarray, ratio: float) -> np.ndarray:
    """Whose each of n bad rows was: 1 the canary's."""
    theta = share * ratio / (share * ratio + 1 - share)
    return (np.random.default_rng(seed).random(n) < theta).astype(np.float64)


@pytest.mark.parametrize("ratio", [0.9, 1.0, 2.0])
def test_the_ratio_is_found_under_a_steady_and_a_moving_share(ratio: float) -> None:
    """If this breaks, a canary looks worse or better only because its traffic grew."""
    steps = np.repeat([0.01, 0.05, 0.25, 0.5], 500)
    missed = 0
    for seed in range(60):
        canary = bad_rows(seed, 2000, steps, ratio)
        grid = RatioGrid()
        grid.add(canary[:700], steps[:700])
        grid.add(canary[700:], steps[700:])
        moving = grid.interval(0.05)
        assert moving.lower is not None and moving.upper is not None
        assert moving.estimate == pytest.approx(ratio, rel=0.45)
        missed += not moving.lower <= ratio <= moving.upper

        steady_rows = bad_rows(seed, 2000, np.full(2000, 0.25), ratio)
        steady = steady_ratio(int(steady_rows.sum()), 2000, 0.25, 0.05)
        assert steady.lower is not None and steady.upper is not None
        assert steady.estimate == pytest.approx(ratio, rel=0.25)
        missed += not steady.lower <= ratio <= steady.upper
    assert missed <= 0.05 * 120


def test_a_ratio_beyond_the_grid_has_no_bound_there() -> None:
    """If this breaks, a ratio of 20 is shown as surely at most 4."""
    share = np.full(400, 0.3)
    high, low = RatioGrid(), RatioGrid()
    high.add(bad_rows(1, 400, share, 20.0), share)
    low.add(np.zeros(400), share)

    assert high.interval(0.01).upper is None and float(RATIOS[-1]) == high.interval(0.01).estimate
    assert low.interval(0.01).lower is None and float(RATIOS[0]) == low.interval(0.01).estimate
    assert (None, None) == (RatioGrid().interval(0.01).lower, RatioGrid().interval(0.01).upper)


def test_ratios_without_evidence_say_nothing() -> None:
    """If this breaks, a division by zero stops the page."""
    assert steady_ratio(0, 0, 0.1, 0.01).estimate is None
    assert steady_ratio(5, 5, 0.1, 0.01).upper is None
    assert separate_ratio(0, 0, 1, 10, 0.01).estimate is None
    nothing_bad = separate_ratio(0, 100, 0, 1000, 0.01)
    assert (None, 0.0, None) == (nothing_bad.estimate, nothing_bad.lower, nothing_bad.upper)


def test_the_ratio_of_separate_arms() -> None:
    """If this breaks, a mirrored canary is judged by wrong bounds."""
    ratio = separate_ratio(400, 10_000, 200, 10_000, 0.01)

    assert ratio.lower is not None and ratio.upper is not None
    assert 2.0 == ratio.estimate
    assert 1.1 < ratio.lower < 2.0 < ratio.upper < 3.6
