"""Stable watch: the formula, the run length, and alarms that end by themselves."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest

from detectors.stable_watch import StableWatch
from tests.detectors.worlds import coin_rows, feed, part, rows_of


def by_hand(bad: list[int], limit: float) -> float:
    """Log of the statistic with buckets of 1, 2, 4 rows, as the paper has it."""
    total = 0.0
    for k in range(8):
        odds = 1.15 * (8 / 1.15) ** (k / 7)
        q = limit * odds / (1 - limit + limit * odds)
        wealth = 0.0
        for i, x in enumerate(bad):
            wealth += {0: 1.0, 1: 1.0, 3: 2.0}.get(i, 0.0)
            wealth *= q / limit if x else (1 - q) / (1 - limit)
        total += wealth / 8
    return math.log(total)


def test_it_is_the_test_that_the_paper_describes() -> None:
    """If this breaks, the run length is of some other test."""
    bad = [1, 0, 1, 1, 0, 1]

    reading = StableWatch(limit=0.1).update(rows_of(bad))

    assert reading.statistic == pytest.approx(by_hand(bad, 0.1), abs=1e-12)


def test_false_alarms_are_at_least_the_run_length_apart() -> None:
    """If this breaks, a stable version at its limit is cried wolf about."""
    rows, alarms = 0, 0
    for seed in range(40):
        watch = StableWatch(limit=0.1, run_length=1000, hold=1)
        feed(watch, coin_rows(seed, 50_000, 0.1))
        rows, alarms = rows + 50_000, alarms + watch.explain()["alarms"]

    # Measured: one in 1,361 rows; the bound on the mean is 1,000.
    assert alarms > 100 and rows / alarms >= 1000


def test_a_change_after_a_long_life_is_found_as_soon_as_an_early_one() -> None:
    """If this breaks, the older a version is, the longer harm goes unseen."""

    def delay(healthy: int) -> float:
        found = []
        for seed in range(40):
            rate = np.where(np.arange(healthy + 4000) < healthy, 0.015, 0.06)
            watch = StableWatch(limit=0.02, hold=100_000)
            rows = coin_rows(seed, healthy + 4000, rate)
            alarm = next(
                r.fired_at for i in range(healthy, healthy + 4000, 50)
                if (i > healthy or watch.update(part(rows, 0, healthy)))
                and (r := watch.update(part(rows, i, i + 50))).fired_at is not None
            )  # fmt: skip
            assert alarm is not None
            found.append(alarm - healthy)
        return float(np.median(found))

    assert delay(50_000) <= 1.25 * delay(2000)


def test_an_alarm_ends_by_itself_and_the_next_one_takes_its_place() -> None:
    """If this breaks, the first alarm of a long life is the last one that anybody sees."""
    watch = StableWatch(limit=0.02, hold=500)
    bad, good = np.ones(50), np.zeros(1000)

    first = watch.update(rows_of(bad))
    over = watch.update(rows_of(good, first=50))
    second = watch.update(rows_of(bad, first=1050))

    assert ("alarm", "quiet", "alarm") == (first.level, over.level, second.level)
    assert over.fired_at is None
    assert first.fired_at is not None and first.fired_at < 50
    assert second.fired_at is not None and second.fired_at >= 1050


def test_its_state_fits_a_kilobyte_and_ranges_are_refused() -> None:
    """If this breaks, ten thousand of them do not fit, or one that always alarms is built."""
    watch = StableWatch(limit=0.02)
    feed(watch, coin_rows(1, 50_000, 0.03))

    assert len(msgspec.json.encode(watch.state())) <= 1024
    with pytest.raises(ValueError, match="hold must be at least 1"):
        StableWatch(limit=0.02, hold=0)
    with pytest.raises(ValueError, match="run_length must be at least 100"):
        StableWatch(limit=0.02, run_length=5)
