"""Pairs: one request that both versions answered, as shadow traffic gives them.

Why. A mirrored request is its own control: nothing but the version differs. Where both answers are
good, or both bad, the pair says nothing of the difference; where they differ, it says all. That is
by far the most powerful comparison, and it needs no share of traffic.

How. The first row of each arm with the same `unit` (the request) within `unit_window` makes a pair,
complete with the later of the two. A pair is handed on as two rows at a share of one half: the
canary's, bad if only the canary's answer was, and the stable's, bad if only the stable's was. To
`canary_guard.py` and `promote_gate.py` that is the test of P(canary bad | answers differ) at
r / (1 + r), with r = 1 + max_increase.

The null is thus about pairs that differ, and is stricter than one about rates: of requests that
both get wrong it takes no notice. With 1.5 % both bad, 0.65 % only the canary and 0.5 % only the
stable, the rates are 1.075 to 1, the pairs 1.3 to 1.

Refused: rows without a unit, and rows whose other half does not come in time. They are counted.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.base import I64, Rows
from service.watch.tables import U64
from service.watch.votes import MOST_OPEN, Cast

HALF = np.dtype([("unit", "<u8"), ("due_ms", "<i8"), ("canary", "?"), ("bad", "?")])


class Pairs:
    """The halves of one guard that wait for their other half.

    Parameters
    ----------
    window_ms : int
        Event time for which a half waits, ms.
    """

    def __init__(self, window_ms: int) -> None:
        self._window_ms = window_ms
        self._open: dict[int, tuple[int, bool, bool]] = {}
        self._clock_ms = 0
        self._cast = 0
        self.alone = 0
        """Rows that found no other half."""

    def take(self, rows: Rows | None, base: int, when_ms: I64, unit: U64) -> Cast:
        """Take rows of both arms with losses 0 or 1; give the pairs that they complete."""
        clock = np.maximum.accumulate(np.maximum(when_ms, self._clock_ms))
        pairs: list[tuple[bool, bool]] = []
        closers: list[int] = []
        index = np.empty(0, np.int64) if rows is None else rows.position - base
        arms = [] if rows is None or rows.canary is None else rows.canary.tolist()
        losses = [] if rows is None else rows.loss.tolist()
        for at, name, canary, loss in zip(
            index.tolist(), unit[index].tolist(), arms, losses, strict=True
        ):
            self._drop(int(clock[at]))
            held = self._open.get(name)
            if name == 0:
                self.alone += 1
            elif held is None:
                if len(self._open) >= MOST_OPEN:
                    del self._open[next(iter(self._open))]
                    self.alone += 1
                self._open[name] = (int(clock[at]) + self._window_ms, canary, loss > 0)
            elif held[1] != canary:
                del self._open[name]
                pairs.append((loss > 0, held[2]) if canary else (held[2], loss > 0))
                closers.append(at)
        if len(clock):
            self._clock_ms = int(clock[-1])
        return self._given(pairs, closers, clock)

    def expire(self, now_ms: int) -> Cast:
        """Forget halves that waited too long; completes nothing."""
        self._clock_ms = max(self._clock_ms, now_ms)
        self._drop(self._clock_ms)
        return self._given([], [], np.empty(0, np.int64))

    def _drop(self, now_ms: int) -> None:
        late = []
        for name, held in self._open.items():
            if held[0] > now_ms:
                break
            late.append(name)
        for name in late:
            del self._open[name]
        self.alone += len(late)

    def _given(self, pairs: list[tuple[bool, bool]], closers: list[int], clock: I64) -> Cast:
        """Two rows a pair: the canary's, bad if it alone was; the stable's, bad if it alone was."""
        both = np.array(pairs, dtype=np.bool_).reshape(len(pairs), 2)
        loss = (both & ~both[:, ::-1]).ravel().astype(np.float64)
        position = np.arange(self._cast, self._cast + len(loss), dtype=np.int64)
        self._cast += len(loss)
        closer = np.repeat(np.array(closers, dtype=np.int64), 2)
        canary = np.tile(np.array([True, False]), len(pairs))
        return Cast(Rows(loss, position, clock[closer], canary, np.full(len(loss), 0.5)), closer)

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""
        packed = np.array([(name, *held) for name, held in self._open.items()], dtype=HALF)
        return {
            "clock": self._clock_ms, "cast": self._cast, "alone": self.alone,
            "open": packed.tobytes(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self._clock_ms, self._cast = state["clock"], state["cast"]
        self.alone = state["alone"]
        self._open = {row[0]: tuple(row[1:])
                      for row in np.frombuffer(state["open"], HALF).tolist()}  # fmt: skip
