"""The first crossing, as every detector finds, says and saves it."""

from __future__ import annotations

import numpy as np

from detectors.base import Fired, log_mean
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from tests.detectors.worlds import rows_of


def test_the_first_row_at_the_threshold_is_found_with_its_statistic() -> None:
    """If this breaks, every guard names another row than the one that decided."""
    levels = np.array([[0.0, 2.0], [3.0, 5.0], [9.0, 9.0]])
    statistics = log_mean(np.ascontiguousarray(levels.T))

    assert (1, float(statistics[1])) == crossing(levels, float(statistics[1]))
    assert (2, 9.0) == crossing(levels, 4.9)
    # One component above is not their mean above.
    assert crossing(levels[:2], 4.9) is None


def test_the_strength_at_the_crossing_stays_and_none_is_said_before_any_mass() -> None:
    """If this breaks, the ground of a decision moves after it, or a page shows minus infinity."""
    level = np.array([1.0, 1.0])

    assert 1.0 == strength(level, None)
    assert strength(np.full(2, -np.inf), None) is None
    assert 4.7 == strength(level, Fired(3, 1, 4.7))


def test_a_crossing_is_read_and_saved_as_it_was() -> None:
    """If this breaks, a restart moves the row that an alarm names."""
    fired = fired_at(rows_of([0.0, 1.0], first=40), 1, 4.8)
    reading = reading_of(4.8, 4.6, fired, 42, warming=False)

    assert fired == fired_from(saved_fired(fired)) and saved_fired(None) is None
    assert ("alarm", 41, fired.time_ms) == (reading.level, reading.fired_at, reading.fired_ms)
    assert "warming" == reading_of(None, 4.6, None, 0, warming=True).level
