"""Times on the wire and inside.

On the wire a time is an RFC 3339 string with offset or an integer of epoch milliseconds; inside it
is always an `int` of epoch milliseconds, so that order, difference and storage need no thought.

Refused here: reading a clock. *Now* is an argument everywhere outside `service/clock.py`.
"""

from __future__ import annotations

import datetime as dt
from typing import Annotated

from msgspec import Meta

WireTime = Annotated[dt.datetime, Meta(tz=True)] | int
"""A time as producers write it."""

EARLIEST_MS = 946_684_800_000
"""2000-01-01T00:00:00Z: an earlier stamp is a broken clock, not an old event."""

LATEST_MS = 4_102_444_800_000
"""2100-01-01T00:00:00Z, exclusive."""

FUTURE_LIVE_MS = 5 * 60 * 1000
"""How far ahead of its arrival a live event may be stamped."""

FUTURE_RECORDED_MS = 30 * 24 * 3600 * 1000
"""How far ahead of the highest accepted time a recorded event without `arrived_at` may be."""

_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MILLISECOND = dt.timedelta(milliseconds=1)


def to_ms(time: dt.datetime | int) -> int:
    """Turn a wire time into epoch milliseconds.

    Examples
    --------
    >>> to_ms(dt.datetime(2026, 1, 1, tzinfo=dt.UTC)), to_ms(5)
    (1767225600000, 5)
    """
    return time if type(time) is int else (time - _EPOCH) // _MILLISECOND  # type: ignore[operator]


def to_text(time_ms: int) -> str:
    """Write epoch milliseconds as RFC 3339 in UTC.

    Examples
    --------
    >>> to_text(1767225600123)
    '2026-01-01T00:00:00.123Z'
    """
    moment = _EPOCH + dt.timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def fault_of_time(time_ms: int, latest_ms: int, field: str) -> str | None:
    """Say why a time cannot be accepted, or None.

    Parameters
    ----------
    time_ms, latest_ms : int
        The stamp, and the latest stamp that is believed (arrival plus a margin), epoch ms.
    field : str
        Name of the field, for the sentence.
    """
    if not EARLIEST_MS <= time_ms < LATEST_MS:
        return f"{field} lies outside 2000-01-01 to 2099-12-31; send RFC 3339 or epoch milliseconds"
    if time_ms > latest_ms:
        ahead_s = (time_ms - latest_ms) / 1000
        return f"{field} is {ahead_s:.0f} s further ahead of its arrival than is allowed"
    return None
