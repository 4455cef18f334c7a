"""Quantile canary: latency against the concurrent stable's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detectors.base import Rows
from detectors.quantile_canary import QuantileCanary
from tests.detectors.worlds import feed, rows_of


def latencies(seed: int, n: int, factor: float, share: float = 0.2, world: Any = 1.0) -> Rows:
    """Log-normal latencies, sigma 0.6; the canary's times a factor, everyone's times the world."""
    rng = np.random.default_rng(seed)
    canary = rng.random(n) < share
    values = np.exp(rng.normal(4, 0.6, n)) * np.where(canary, factor, 1.0) * world
    return rows_of(values, canary=canary, weight=share)


def share_alarmed(runs: int, **params: Any) -> float:
    factor = params.pop("factor")
    world = params.pop("world", 1.0)
    levels = [
        feed(
            QuantileCanary(quantile=0.9, **params), latencies(s, 10_000, factor, world=world)
        ).level
        for s in range(runs)
    ]
    return levels.count("alarm") / runs


def test_false_alarms_at_the_margin_stay_within_alpha() -> None:
    """If this breaks, canaries as fast as was accepted are rolled back."""
    assert share_alarmed(100, factor=1.0, margin=1.0, alpha=0.05) <= 0.05
    # With a stretch the accepted canary is slower by that factor, whatever the distribution.
    assert share_alarmed(100, factor=1.15, margin=1.0, stretch=1.15, alpha=0.05) <= 0.05


def test_a_slow_hour_of_the_world_is_nobodys_fault() -> None:
    """If this breaks, a slow network rolls a good canary back."""
    world = np.where(np.arange(10_000) < 4_000, 1.0, 3.0)

    assert 0.0 == share_alarmed(50, factor=1.0, world=world)


def test_a_slower_canary_is_found() -> None:
    """If this breaks, a canary half as slow again stays in traffic."""
    for params in ({"margin": 1.5}, {"margin": 1.0, "stretch": 1.15}):
        seen = []
        for seed in range(40):
            rows = latencies(seed, 12_000, 1.5)
            fired_at = feed(QuantileCanary(quantile=0.9, **params), rows).fired_at
            assert fired_at is not None and rows.canary is not None
            seen.append(int(rows.canary[: fired_at + 1].sum()))
        assert 80 <= float(np.median(seen)) <= 500


def test_nothing_is_judged_before_the_stable_has_set_a_bar() -> None:
    """If this breaks, a bar made of three rows decides."""
    guard = QuantileCanary(quantile=0.99)
    rows = latencies(1, 1_000, 100.0)

    assert ("quiet", None) == (feed(guard, rows).level, guard.reading().statistic)
    assert guard.explain()["bar"] is None


def test_the_bar_is_frozen_before_the_rows_it_judges() -> None:
    """If this breaks, the bar is chosen by what it judges, and the guarantee is gone."""
    guard = QuantileCanary(quantile=0.5, bucket=100, bucket_ms=None)
    rows = latencies(2, 1_000, 1.0)
    feed(guard, rows)  # buckets of 1, 2, 4, …, 64, then 100 rows: one opens at 927
    assert rows.canary is not None

    expected = float(np.median(rows.loss[:927][~rows.canary[:927]]))

    assert guard.explain()["bar"] == pytest.approx(expected, rel=0.05)
    before = guard.explain()["bar"]
    more = rows_of(np.full(20, 1e6), first=1_000, canary=np.zeros(20), weight=0.2)
    guard.update(more)
    assert before == guard.explain()["bar"]


def test_its_interval_is_in_the_losses_own_unit() -> None:
    """If this breaks, a page shows a share where it should show milliseconds."""
    guard = QuantileCanary(quantile=0.9)
    feed(guard, latencies(3, 60_000, 1.3))
    interval, stable = guard.interval(), float(np.exp(4 + 1.2816 * 0.6))

    assert interval.stable_estimate == pytest.approx(stable, rel=0.06)
    assert interval.estimate == pytest.approx(1.3 * stable, rel=0.06)
    assert interval.lower is not None and interval.upper is not None
    assert interval.lower < 1.3 * stable < interval.upper
    ratio = guard.ratio()
    assert ratio.lower is not None and ratio.lower > 1.3


def test_parameters_out_of_range_are_refused() -> None:
    """If this breaks, a typing error in a policy is found at the first row."""
    with pytest.raises(ValueError, match="stretch must be at least 1"):
        QuantileCanary(quantile=0.9, stretch=0.5)
    with pytest.raises(ValueError, match="quantile must lie"):
        QuantileCanary(quantile=0)
