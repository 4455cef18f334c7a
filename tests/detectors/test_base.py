"""Numerics and checks that all detectors stand on."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.base import (
    LOG_CAP,
    Fired,
    InvalidRows,
    level_of,
    levels_from,
    log_mean,
    plain,
    require_at_least,
    require_open_unit,
    require_rows,
    running,
)
from tests.detectors.worlds import rows_of


def test_log_mean_is_right_where_exp_would_overflow_or_vanish() -> None:
    """If this breaks, strong evidence becomes infinite, or a long healthy life becomes NaN."""
    columns = np.array([[0.0, 690.0, -1e5, -np.inf], [math.log(3), 690.0, -1e5, -np.inf]])

    actual = log_mean(columns)

    assert np.allclose([math.log(2), 690.0, -1e5], actual[:3], rtol=1e-14)
    assert -np.inf == actual[3]
    assert LOG_CAP == log_mean(np.full((8, 1), 5000.0))[0]


def test_log_mean_has_the_same_bits_alone_and_in_company() -> None:
    """If this breaks, packing decides the last bit, and now and then the first crossing."""
    columns = np.random.default_rng(1).normal(0, 30, (8, 501))

    alone = [log_mean(columns[:, i : i + 1])[0] for i in range(501)]

    assert alone == log_mean(columns).tolist()


def test_running_adds_one_by_one() -> None:
    """If this breaks, evidence depends on how rows were packed."""
    increments = np.random.default_rng(2).normal(0, 1, (300, 8))
    level = np.zeros(8)
    expected = []
    for step in increments:
        level = level + step
        expected.append(level)

    assert np.array_equal(expected, running(np.zeros(8), increments))


def test_levels_survive_being_plain() -> None:
    """If this breaks, a fresh guard cannot be saved, since JSON has no infinity."""
    fresh, grown = np.full(8, -np.inf), np.linspace(-3, 1 / 3, 8)

    assert plain(fresh) is None
    assert np.array_equal(fresh, levels_from(None, 8))
    assert np.array_equal(grown, levels_from(plain(grown), 8))
    with pytest.raises(ValueError, match="8 finite levels"):
        levels_from([1.0], 8)


def test_levels_of_a_detector_in_order_of_importance() -> None:
    """If this breaks, a latched alarm shows as warming."""
    fired = Fired(1, 2, 5.0)

    assert "alarm" == level_of(5.0, 4.6, fired, warming=True)
    assert "warming" == level_of(3.0, 4.6, None, warming=True)
    assert "warning" == level_of(2.4, 4.6, None, warming=False)
    assert "quiet" == level_of(2.2, 4.6, None, warming=False)
    assert "quiet" == level_of(None, 4.6, None, warming=False)


@pytest.mark.parametrize("value", [0.0, 1.0, 1.5, -0.1, float("nan"), float("inf")])
def test_a_share_must_lie_inside_the_unit(value: float) -> None:
    """If this breaks, a limit of 0 % or 100 % is taken and never, or always, alarms."""
    with pytest.raises(ValueError, match="limit must lie above 0 and below 1"):
        require_open_unit(limit=value)


@pytest.mark.parametrize("value", [0.9, float("nan"), float("inf")])
def test_a_least_value_is_required(value: float) -> None:
    """If this breaks, a bucket of no rows spends the budget for nothing."""
    require_at_least(1, bucket=1, bucket_ms=None)
    with pytest.raises(ValueError, match="bucket must be at least 1"):
        require_at_least(1, bucket=value)


def test_rows_are_told_what_is_wrong_with_them() -> None:
    """If this breaks, a caller's fault is found only by its consequences."""
    good = rows_of([0.0, 1.0])
    require_rows(good, None, paired=False, binary=True)

    with pytest.raises(InvalidRows, match="one shape"):
        require_rows(good._replace(loss=np.zeros((2, 1))), None, paired=False, binary=True)
    with pytest.raises(InvalidRows, match=r"0 \(good\) or 1 \(bad\)"):
        require_rows(rows_of([0.5, 1.0]), None, paired=False, binary=True)
    with pytest.raises(InvalidRows, match="finite"):
        require_rows(rows_of([np.inf]), None, paired=False, binary=False)
    with pytest.raises(InvalidRows, match="lie above 0"):
        require_rows(good, 0, paired=False, binary=True)
    with pytest.raises(InvalidRows, match="tells the arms apart"):
        require_rows(good, None, paired=True, binary=True)
    with pytest.raises(InvalidRows, match="weight"):
        arms = rows_of([0.0, 1.0], canary=[True, False], weight=-0.1)
        require_rows(arms, None, paired=True, binary=True)
