"""The error budget: how it is split over restarts, and when a restart happens."""

from __future__ import annotations

import math

import numpy as np
import pytest

from detectors.spending import Buckets, log_mass, restarted


def test_all_masses_together_are_just_below_one() -> None:
    """If this breaks, the chance of a false rollback is not bounded by alpha."""
    last = 2_000_000
    seen = float(np.exp(log_mass(1, last)).sum())
    # The rest is below the integral of the mass, 1 / (1.0691 ln(last + 2)).
    rest = 1 / (1.0691 * math.log(last + 2))

    assert 0.999 < seen + rest <= 1.0
    with pytest.raises(ValueError, match="count from 1"):
        log_mass(0, 1)


def test_masses_do_not_depend_on_where_one_begins() -> None:
    """If this breaks, a restart after a crash spends another share than the first time."""
    assert log_mass(1, 50)[20:].tolist() == log_mass(21, 30).tolist()


def test_mass_enters_nothing_and_something() -> None:
    """If this breaks, the first restart gives NaN, and a guard never alarms."""
    fresh = np.full(8, -np.inf)

    assert np.array_equal(np.full(8, -1.5), restarted(fresh, -1.5))
    assert np.isneginf(restarted(fresh, -math.inf)).all()
    assert np.allclose(math.log(5), restarted(np.full(8, math.log(3)), math.log(2)))
    assert (700.0 == restarted(np.full(8, 1e6), 0.0)).all()


def cuts(buckets: Buckets, times: list[int]) -> list[int]:
    actual: list[int] = buckets.cut(np.array(times, dtype=np.int64)).tolist()
    return actual


def test_buckets_double_until_they_are_full_size() -> None:
    """If this breaks, a version that is bad from its first row is found late."""
    buckets = Buckets(rows=8, span_ms=None)

    assert [0, 1, 3, 7, 15, 23] == cuts(buckets, [0] * 30)
    assert 6 == buckets.count and 7 == buckets.filled and not buckets.full
    assert [] == cuts(buckets, [0]) and buckets.full
    assert [0] == cuts(buckets, [0])


def test_buckets_end_by_event_time_and_ignore_late_rows() -> None:
    """If this breaks, one row out of order makes restarts that nobody can reproduce."""
    buckets = Buckets(rows=100, span_ms=1000)
    cuts(buckets, [0] * 15)
    buckets.close()

    assert [0, 3, 4] == cuts(buckets, [5000, 5999, 2000, 6000, 90_000, 89_000])


def test_a_bucket_without_rows_spends_nothing() -> None:
    """If this breaks, a quiet night uses up the budget."""
    buckets = Buckets(rows=100, span_ms=1000)

    cuts(buckets, [0, 10_000_000])

    assert 2 == buckets.count
