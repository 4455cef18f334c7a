"""Votes of units: the predictions of one user or session within a window count once, as their mean.

Why. Requests of one unit fail together. Taken one by one, the false-alarm bound of every guard is
void: it is made for rows that are no worse than permitted *given all rows before them*. One vote
per unit gives independent witnesses back.

How. A unit's vote opens with its first row and takes in every row of that unit until the window has
passed; then it closes and is handed to the detector: its mean loss, for guards of one version; for
guards that compare arms the canary's part and the stable's part of it (`detectors/unit_arms.py`
says why it must be one vote for both arms). Rows without a unit are votes of their own.

Time is that of the rows which the guard's table brings, of all versions of the model, in their
order: the highest so far. So neither packing nor a replay changes which rows share a vote. Only
when no row of the model has come for `QUIET_MS` does the watermark close what is due.

Refused: more than `MOST_OPEN` open votes of one guard. The oldest is closed early and counted; the
rest of that unit is another vote.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from detectors.base import F64, I64, Rows
from service.watch.tables import U64

MOST_OPEN = 16_384
QUIET_MS = 60_000

OPEN = np.dtype([("unit", "<u8"), ("due_ms", "<i8"), ("n", "<i8"), ("own", "<i8"),
                 ("loss", "<f8"), ("stable", "<f8"), ("share", "<f8")])  # fmt: skip
DUE, N, OWN, LOSS, STABLE, SHARE = range(6)


class Cast(NamedTuple):
    """Votes that closed, oldest first."""

    rows: Rows
    closer: I64
    """Index in the table of the row that closed each; -1: the watermark did."""


class Votes:
    """The open votes of one guard.

    Parameters
    ----------
    window_ms : int
        Event time for which a vote stays open, ms.
    paired : bool
        Whether votes have a part of each arm.
    gate : bool
        Whether an alarm is proof of health: it decides which share of traffic is the careful one.
    """

    def __init__(self, window_ms: int, *, paired: bool = False, gate: bool = False) -> None:
        self._window_ms, self._paired = window_ms, paired
        self._careful = min if gate else max
        self._open: dict[int, list[Any]] = {}
        self._clock_ms = 0
        self._cast = 0
        self.early = 0
        """Votes that were closed before their time, for want of room."""

    def take(self, rows: Rows | None, base: int, when_ms: I64, unit: U64) -> Cast:
        """Take a guard's rows of a table; give the votes that closed.

        Parameters
        ----------
        rows : Rows or None
            The guard's rows, whose positions are `base` and more; losses lie in [0, 1] or were cut.
        when_ms, unit : array, shape (n,)
            Of all rows of the table.
        """
        clock = np.maximum.accumulate(np.maximum(when_ms, self._clock_ms))
        votes: list[list[Any]] = []
        closers: list[int] = []
        for at, name, row in self._entries(rows, base, unit):
            now_ms = int(clock[at])
            self._close_due(now_ms, clock, votes, closers)
            if name == 0 or (self._paired and not 0 < row[SHARE] < 1):
                row[DUE] = now_ms
                votes.append(row)
                closers.append(at)
                continue
            held = self._open.get(name)
            if held is None:
                if len(self._open) >= MOST_OPEN:
                    self._close_early(now_ms, votes)
                    closers.append(at)
                row[DUE] = now_ms + self._window_ms
                self._open[name] = row
            else:
                self._join(held, row)
        if len(clock):
            self._clock_ms = int(clock[-1])
            self._close_due(self._clock_ms, clock, votes, closers)
        return self._given(votes, closers)

    def expire(self, now_ms: int) -> Cast:
        """Let the watermark close what is due, when no rows come."""
        votes: list[list[Any]] = []
        self._clock_ms = max(self._clock_ms, now_ms)
        self._close_due(self._clock_ms, None, votes, [])
        return self._given(votes, [-1] * len(votes))

    def _entries(self, rows: Rows | None, base: int, unit: U64) -> Sequence[tuple[int, int, Any]]:
        """Index in the table, unit, and a vote of that row alone."""
        if rows is None:
            return ()
        index = (rows.position - base).tolist()
        loss = rows.loss.tolist()
        canary = [True] * len(loss) if rows.canary is None else rows.canary.tolist()
        share = [0.5] * len(loss) if rows.weight is None else rows.weight.tolist()
        return [
            (at, name, [0, 1, int(own), x if own else 0.0, 0.0 if own else x, s])
            for at, name, x, own, s in zip(
                index, unit[index].tolist(), loss, canary, share, strict=True
            )
        ]

    def _join(self, held: list[Any], row: list[Any]) -> None:
        held[N] += 1
        held[OWN] += row[OWN]
        held[LOSS] += row[LOSS]
        held[STABLE] += row[STABLE]
        held[SHARE] = self._careful(held[SHARE], row[SHARE])

    def _close_due(
        self, now_ms: int, clock: I64 | None, votes: list[list[Any]], closers: list[int]
    ) -> None:
        """Close from the oldest on. Votes open in order of time, so they are due in that order."""
        due = []
        for name, held in self._open.items():
            if held[DUE] > now_ms:
                break
            due.append(name)
        for name in due:
            held = self._open.pop(name)
            votes.append(held)
            if clock is not None:
                closers.append(int(np.searchsorted(clock, held[DUE])))

    def _close_early(self, now_ms: int, votes: list[list[Any]]) -> None:
        held = self._open.pop(next(iter(self._open)))
        held[DUE] = now_ms
        votes.append(held)
        self.early += 1

    def _given(self, votes: list[list[Any]], closers: list[int]) -> Cast:
        """Votes as rows of a detector, named by a running number."""
        count = len(votes)
        position = np.arange(self._cast, self._cast + count, dtype=np.int64)
        self._cast += count
        columns: F64 = np.array(votes, dtype=np.float64).reshape(count, 6)
        time_ms = np.array([vote[DUE] for vote in votes], dtype=np.int64)
        closer = np.array(closers, dtype=np.int64)
        n = np.maximum(columns[:, N], 1)
        loss, stable, own = columns[:, LOSS] / n, columns[:, STABLE] / n, columns[:, OWN] / n
        if not self._paired:
            return Cast(Rows(loss, position, time_ms), closer)
        is_canary = own > 0
        return Cast(
            Rows(np.where(is_canary, loss, stable), position, time_ms, is_canary,
                 columns[:, SHARE], np.where(is_canary, stable, 0.0), own),
            closer,
        )  # fmt: skip

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""
        packed = np.array([(name, *held) for name, held in self._open.items()], dtype=OPEN)
        return {
            "clock": self._clock_ms, "cast": self._cast, "early": self.early,
            "open": packed.tobytes(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self._clock_ms, self._cast = state["clock"], state["cast"]
        self.early = state["early"]
        self._open = {row[0]: list(row[1:]) for row in np.frombuffer(state["open"], OPEN).tolist()}
