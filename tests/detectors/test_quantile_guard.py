"""Quantile guard: latency against a limit."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from detectors.base import Rows
from detectors.quantile_guard import QuantileGuard
from tests.detectors.worlds import feed, rows_of

P95 = math.exp(4 + 1.6449 * 0.6)


def latencies(seed: int, n: int, factor: float = 1.0) -> Rows:
    """Log-normal latencies, sigma 0.6, times a factor."""
    return rows_of(factor * np.exp(np.random.default_rng(seed).normal(4, 0.6, n)))


def test_false_alarms_at_the_limit_stay_within_alpha() -> None:
    """If this breaks, versions that just keep their latency promise are rolled back."""
    alarms = sum(
        feed(QuantileGuard(quantile=0.95, limit=P95, alpha=0.05), latencies(seed, 10_000)).level
        == "alarm"
        for seed in range(200)
    )

    assert alarms / 200 <= 0.05


@pytest.mark.parametrize(("factor", "least", "most"), [(1.2, 150, 420), (1.5, 30, 110)])
def test_slower_versions_are_found_soon(factor: float, least: int, most: int) -> None:
    """If this breaks, a slow version stays in traffic longer than the documents say."""
    seen = []
    for seed in range(60):
        guard = QuantileGuard(quantile=0.95, limit=P95)
        fired_at = feed(guard, latencies(seed, 6_000, factor)).fired_at
        assert fired_at is not None
        seen.append(fired_at + 1)

    assert least <= float(np.median(seen)) <= most


def test_only_exceeding_the_limit_counts_not_by_how_much() -> None:
    """If this breaks, one hanging request rolls a version back."""
    rows = latencies(1, 2_000)
    spiked = rows._replace(loss=np.where(rows.loss > P95, 1e9, rows.loss))

    expected = feed(QuantileGuard(quantile=0.95, limit=P95), rows)

    assert expected == feed(QuantileGuard(quantile=0.95, limit=P95), spiked)
    at_limit = feed(QuantileGuard(quantile=0.95, limit=300.0), rows_of(np.full(500, 300.0)))
    assert "quiet" == at_limit.level


def test_its_interval_is_in_the_losses_own_unit() -> None:
    """If this breaks, a page shows a share where it should show milliseconds."""
    guard = QuantileGuard(quantile=0.95, limit=P95)
    feed(guard, latencies(2, 20_000))
    interval = guard.interval()

    assert interval.estimate == pytest.approx(P95, rel=0.06)
    assert interval.lower is not None and interval.upper is not None
    assert 0.85 * P95 < interval.lower < P95 < interval.upper < 1.2 * P95
    assert len(msgspec.json.encode(guard.state())) <= 1024


def test_parameters_out_of_range_are_refused() -> None:
    """If this breaks, a typing error in a policy is found at the first row."""
    with pytest.raises(ValueError, match="quantile must lie"):
        QuantileGuard(quantile=95, limit=300)
    with pytest.raises(ValueError, match="limit must be finite"):
        QuantileGuard(quantile=0.95, limit=math.inf)
