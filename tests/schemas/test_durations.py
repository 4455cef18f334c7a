"""Durations as people write them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.durations import Duration, parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5), ("10s", 10), ("30m", 1800), ("24h", 86_400), ("7d", 604_800),
        ("2w", 1_209_600), ("1h30m", 5400), ("1.5h", 5400), (" 1 H 30 M ", 5400), ("0s", 0),
        (90, 90), (0.25, 0.25), (0, 0),
    ],
)  # fmt: skip
def test_a_duration_reads_as_seconds(text: object, seconds: float) -> None:
    """If this breaks, a horizon of a week is another time than was written."""
    assert Duration(seconds) == parse_duration(text)


@pytest.mark.parametrize(
    "value",
    [
        "", "7", "d", "7 days", "7d!", "-5s", "1e3s", "٣s", "5s extra", "1.s", ".5s", "1h:30m", -1,
        float("nan"), float("inf"), 1e10, "9" * 400 + "d", True, None, [], {}, b"5s",
    ],
)  # fmt: skip
def test_anything_else_is_refused_with_what_was_expected(value: object) -> None:
    """If this breaks, a typing error becomes a horizon of nothing or of for ever."""
    with pytest.raises(ValueError, match=r"^expected a duration"):
        parse_duration(value)


@given(st.integers(0, 10_000), st.sampled_from(["ms", "s", "m", "h", "d"]))
def test_milliseconds_are_exact(number: int, unit: str) -> None:
    """If this breaks, time-outs drift by rounding."""
    factor = {"ms": 1, "s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}[unit]

    assert number * factor == parse_duration(f"{number}{unit}").ms


@given(st.text())
def test_any_text_is_a_duration_or_refused(text: str) -> None:
    """If this breaks, one line of the settings ends the check of all others."""
    try:
        assert parse_duration(text) >= 0
    except ValueError as fault:
        assert str(fault).startswith("expected")
