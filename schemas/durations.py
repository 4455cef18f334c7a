"""Durations as people write them: `500ms`, `10s`, `30m`, `24h`, `7d`, or a number of seconds."""

from __future__ import annotations

import re

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0, "w": 604_800.0}
_FORM = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(ms|s|m|h|d|w)")
LONGEST_S = 1e10


class Duration(float):
    """A length of time in seconds."""

    __slots__ = ()

    @property
    def ms(self) -> int:
        """The same in whole milliseconds."""
        return round(self * 1000)


def parse_duration(value: object) -> Duration:
    """Read a duration.

    Raises
    ------
    ValueError
        With what was expected.

    Examples
    --------
    >>> parse_duration("7d"), parse_duration(1.5), parse_duration("1h30m")
    (604800.0, 1.5, 5400.0)
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError("expected a duration such as 30s, 10m, 24h or 7d")
    seconds = float(value) if not isinstance(value, str) else _seconds_of(value)
    if not 0 <= seconds < LONGEST_S:
        raise ValueError("expected a duration of at least 0 seconds and less than 300 years")
    return Duration(seconds)


def _seconds_of(text: str) -> float:
    text = text.strip().lower()
    parts = _FORM.findall(text)
    if not parts or _FORM.sub("", text).strip():
        raise ValueError("expected a duration such as 30s, 10m, 24h or 7d")
    return sum(float(number) * _UNITS_S[unit] for number, unit in parts)
