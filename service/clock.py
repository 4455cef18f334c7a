"""The only wall clock. The core never reads it: *now* reaches it as an argument or on the log."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """What shells ask for the time."""

    def now_ms(self) -> int:
        """Wall time, epoch milliseconds."""
        ...

    def monotonic_s(self) -> float:
        """Seconds that never go back, for time-outs and pauses."""
        ...


class WallClock:
    """The machine's clock."""

    def now_ms(self) -> int:
        """Wall time, epoch milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds since some fixed moment."""
        return time.monotonic()


class SetClock:
    """A clock that stands until it is moved, for tests and replays."""

    def __init__(self, now_ms: int = 1_767_225_600_000) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        """The time that was set."""
        return self._now_ms

    def monotonic_s(self) -> float:
        """The same in seconds."""
        return self._now_ms / 1000

    def move(self, seconds: float) -> None:
        """Move forward (or, to test a clock that steps, back)."""
        self._now_ms += round(seconds * 1000)
