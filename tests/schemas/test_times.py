"""Times on the wire and inside."""

import datetime as dt

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.times import EARLIEST_MS, LATEST_MS, fault_of_time, to_ms, to_text
from tests.builders import NOW

MOMENTS = st.datetimes(
    dt.datetime(2000, 1, 1), dt.datetime(2099, 12, 31), timezones=st.timezones()
)  # fmt: skip


@given(st.integers(EARLIEST_MS, LATEST_MS - 1))
def test_a_time_survives_being_written(time_ms: int) -> None:
    """If this breaks, times in reports are not those of the events."""
    assert time_ms == to_ms(dt.datetime.fromisoformat(to_text(time_ms)))


@given(MOMENTS)
def test_the_offset_does_not_matter(moment: dt.datetime) -> None:
    """If this breaks, a producer in another zone is hours early or late."""
    assert to_ms(moment.astimezone(dt.UTC)) == to_ms(moment)


def test_parts_of_a_millisecond_are_cut_not_rounded() -> None:
    """If this breaks, an event can be a millisecond later than it was."""
    moment = dt.datetime(2026, 1, 1, 0, 0, 0, 1999, dt.UTC)

    assert NOW + 1 == to_ms(moment)
    assert NOW == to_ms(NOW)


@pytest.mark.parametrize(
    ("time_ms", "words"),
    [
        (EARLIEST_MS - 1, "at lies outside"),
        (EARLIEST_MS, None),
        (NOW, None),
        (NOW + 1, None),
        (NOW + 2, "at is 0 s further ahead"),
        (NOW + 90_001, "at is 90 s further ahead"),
        (LATEST_MS, "at lies outside"),
    ],
)
def test_a_time_is_believed_between_two_bounds(time_ms: int, words: str | None) -> None:
    """If this breaks, a stamp of the year 2100 ends every horizon at once."""
    fault = fault_of_time(time_ms, latest_ms=NOW + 1, field="at")

    assert words is None if fault is None else words is not None and words in fault
