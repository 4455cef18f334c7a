"""Mean guard: the formulas, the promise, and the delay."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Rows
from detectors.mean_guard import MeanGuard
from tests.detectors.worlds import feed, rows_of


def betas(seed: int, n: int, mean: Any) -> Rows:
    """Losses in [0, 1] with this mean, one number or one for each row."""
    means = np.broadcast_to(mean, (n,))
    return rows_of(np.random.default_rng(seed).beta(12 * means, 12 * (1 - means)))


def by_hand(losses: list[float], limit: float) -> float:
    """Log evidence of one bucket after the first of one row, as the paper has it."""
    masses = [1 / (1.0691 * k * math.log(k) ** 2) for k in (3, 4)]
    total = 0.0
    for stake in (0.1, 0.25, 0.5, 0.9):
        wealth = masses[0] * (1 + stake / limit * (losses[0] - limit)) + masses[1]
        for loss in losses[1:]:
            wealth *= 1 + stake / limit * (loss - limit)
        total += wealth / 4
    return math.log(total)


def test_it_is_the_test_that_the_paper_describes() -> None:
    """If this breaks, the guarantee is of some other test."""
    losses = [0.3, 0.05, 0.4]

    reading = MeanGuard(limit=0.12).update(rows_of(losses))

    assert reading.statistic == pytest.approx(by_hand(losses, 0.12), abs=1e-12)


@pytest.mark.parametrize("shape", ["beta", "coin"])
def test_false_alarms_at_the_limit_stay_within_alpha(shape: str) -> None:
    """If this breaks, good versions are rolled back more often than was promised."""
    alarms = 0
    for seed in range(150):
        rows = betas(seed, 10_000, 0.12)
        if shape == "coin":
            rows = rows_of(np.random.default_rng(seed).random(10_000) < 0.12)
        alarms += feed(MeanGuard(limit=0.12, alpha=0.05), rows).level == "alarm"

    assert alarms / 150 <= 0.05


def test_the_delay_is_that_of_the_pilot() -> None:
    """If this breaks, a worse model stays in traffic longer than the documents say.

    Pilot: mean .11 to .14 after 5,000 rows at limit .12 is found after 743 rows (median); its
    losses were spread otherwise, so only the order of magnitude is compared.
    """
    mean = np.where(np.arange(12_000) < 5_000, 0.11, 0.14)

    fired = [feed(MeanGuard(limit=0.12), betas(seed, 12_000, mean)).fired_at for seed in range(40)]

    delays = [at - 5_000 for at in fired if at is not None]
    assert 40 == len(delays) and 0 < min(delays)
    assert 400 <= float(np.median(delays)) <= 1_100


def test_losses_beyond_the_cap_count_as_the_cap() -> None:
    """If this breaks, one absurd cost rolls a version back."""
    usual = np.tile([0.0, 20.0], 100)
    rows, absurd = rows_of(usual), rows_of(np.where(usual > 0, 1e9, -1e9))

    expected = feed(MeanGuard(limit=12.0, cap=20.0), rows)

    assert expected == feed(MeanGuard(limit=12.0, cap=20.0), absurd)
    assert "quiet" == expected.level


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=150),
    st.integers(0, 149),
    st.floats(0, 1),
)
def test_more_loss_is_never_less_evidence(losses: list[float], at: int, added: float) -> None:
    """If this breaks, a version can hide by failing more."""
    worse = [min(1.0, loss + (added if i == at else 0.0)) for i, loss in enumerate(losses)]

    left = feed(MeanGuard(limit=0.3), rows_of(losses))
    right = feed(MeanGuard(limit=0.3), rows_of(worse))

    if left.fired_at is not None:
        assert right.fired_at is not None and right.fired_at <= left.fired_at
    elif right.fired_at is None:
        assert left.statistic is not None and right.statistic is not None
        assert left.statistic <= right.statistic + 1e-9


def test_its_interval_is_in_the_losses_own_unit() -> None:
    """If this breaks, a page shows a share where it should show a cost."""
    guard = MeanGuard(limit=30.0, cap=200.0)
    rows = betas(3, 20_000, 0.12)
    feed(guard, rows._replace(loss=200 * rows.loss))
    interval = guard.interval()

    assert interval.estimate == pytest.approx(24.0, rel=0.02)
    assert interval.lower is not None and interval.upper is not None
    assert 20 < interval.lower < 24 < interval.upper < 28
    assert MeanGuard(limit=0.1).interval().estimate is None
    assert len(msgspec.json.encode(guard.state())) <= 1024


@pytest.mark.parametrize(
    ("limit", "cap"), [(0.0, 1.0), (1.0, 1.0), (0.5, math.inf), (math.nan, 1.0)]
)
def test_parameters_out_of_range_are_refused(limit: float, cap: float) -> None:
    """If this breaks, a limit above the cap gives a guard that never alarms."""
    with pytest.raises(ValueError, match="limit must lie above 0 and below cap"):
        MeanGuard(limit=limit, cap=cap)
