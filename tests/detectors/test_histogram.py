"""Counts of values in fixed bins."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.histogram import LAST_BIN, Histogram, bins_of, edges_of, rows_for_quantile


def test_a_value_lies_between_the_edges_of_its_bin() -> None:
    """If this breaks, bounds on a quantile leave it out."""
    rng = np.random.default_rng(1)
    values = np.concatenate([np.exp(rng.uniform(-6, 13, 500)), -np.exp(rng.uniform(-6, 13, 500))])
    for value, number in zip(values.tolist(), bins_of(values).tolist(), strict=True):
        low, high = edges_of(number)
        assert low <= value <= high


def test_bins_grow_with_the_value() -> None:
    """If this breaks, quantiles are read in a wrong order."""
    values = np.array([-1e12, -300.0, -1.0, -1e-9, 0.0, 1e-9, 0.5, 1.0, 300.0, 1e12])

    numbers = bins_of(values).tolist()

    assert sorted(numbers) == numbers
    assert (-LAST_BIN, 0, 0, 0, LAST_BIN) == (*(numbers[i] for i in (0, 3, 4, 5, -1)),)


def test_quantiles_are_within_a_bin_of_the_truth() -> None:
    """If this breaks, a page shows a latency that nobody had."""
    values = np.exp(np.random.default_rng(2).normal(4, 0.6, 50_000))
    histogram = Histogram()
    histogram.add(values[:20_000])
    histogram.add(values[20_000:])

    for q in (0.01, 0.5, 0.95, 0.99):
        assert histogram.quantile(q) == pytest.approx(float(np.quantile(values, q)), rel=0.05)
    assert Histogram().quantile(0.5) is None


@pytest.mark.parametrize("q", [0.5, 0.95])
def test_the_truth_ever_leaves_the_bounds_at_most_alpha_of_the_time(q: float) -> None:
    """If this breaks, watching the page long enough shows a false bound."""
    z = {0.5: 0.0, 0.95: 1.6449}[q]
    truth = float(np.exp(4 + z * 0.6))
    missed = 0
    for seed in range(60):
        values = np.exp(np.random.default_rng(seed).normal(4, 0.6, 4000))
        histogram, ever = Histogram(), False
        for i in range(0, 4000, 200):
            histogram.add(values[i : i + 200])
            bounds = histogram.quantile_interval(q, 0.1)
            ever |= not (bounds.lower or 0.0) <= truth <= (bounds.upper or np.inf)
        missed += ever
        assert bounds.lower is not None and bounds.upper is not None
        assert bounds.upper / bounds.lower < 1.5
    assert missed <= 6


def test_it_survives_being_plain_and_fades() -> None:
    """If this breaks, a restart forgets the stable's latency, or old days weigh for ever."""
    histogram, restored = Histogram(), Histogram()
    histogram.add(np.array([-3.0, 0.0, 1.0, 1.0, 90.0, 90.0, 90.0]))

    restored.restore(histogram.saved())

    assert (histogram.counts, 7) == (restored.counts, restored.n)
    restored.fade()
    assert (2, [1, 1]) == (restored.n, sorted(restored.counts.values()))
    restored.restore(Histogram().saved())
    assert ({}, 0) == (restored.counts, restored.n)


def test_rare_quantiles_need_more_rows() -> None:
    """If this breaks, a p99 from thirty rows sets the bar."""
    assert [20, 100, 1000, 1000] == [rows_for_quantile(q) for q in (0.5, 0.9, 0.99, 0.01)]
