"""Predictions by the time at which they were served, so that late labels find their bucket.

Why. In the optimistic label mode a bad label changes the evidence of the moment at which its
prediction was served, maybe days ago. So the buckets at which evidence may start anew
(`spending.py`) are kept, as counts, for a whole horizon, and evidence is weighed again from them.

How. A bucket is a span of served time. It begins with a row that was served later than every row
before it; so a row in the wrong order, and later its label, always finds the one bucket it was
counted in. The ring holds at most `RING` buckets. What leaves it is folded into one level per
component, exactly; by then no label of it may still count, because a full bucket lasts at least
1/448 of the horizon: next to a wait for labels that is nothing. The first buckets hold 1, 2, 4, …
rows, as everywhere.

Which prefixes. Evidence as of the end of any closed bucket may be looked at beside that of now: it
is the same process, at an earlier row. That is what a matured test would see, without waiting
for labels that are not needed. But a row that came out of order was not there yet when the buckets
after its own were closed, so the ends that it touches are looked at no more (`whole`).

Refused: rows and labels served before the oldest bucket. Both are left out, which is known before
their label is, and therefore biases nothing.
"""

from __future__ import annotations

from math import inf
from typing import Any

import numpy as np

from detectors.base import F64, I64, levels_from, log_mean, plain, require_at_least, running
from detectors.spending import log_mass, restarted

RING = 512
"""Most buckets that are kept."""

FOLD = 32
"""Oldest buckets that leave a full ring at once, since what is kept is then weighed again."""

SPANS = 448
"""Full buckets that a horizon has at most; the rest of the ring is for the first, small ones."""


class Cohorts:
    """Counts of predictions and labels by bucket, and the evidence that follows from them.

    Parameters
    ----------
    on_row : array, shape (k,)
        What a prediction that is good so far adds to each component, nats.
    per_mark : array, shape (k,)
        What one mark adds. Marks are what labels leave in a bucket, shape (d,); d is 1 or k.
    marks : int
        d.
    bucket, bucket_ms, horizon_ms : int, int or None, int
        Rows in a bucket; its span and the horizon, ms.
    """

    def __init__(
        self, on_row: F64, per_mark: F64, marks: int,
        bucket: int, bucket_ms: int | None, horizon_ms: int,
    ) -> None:  # fmt: skip
        require_at_least(1, bucket=bucket, bucket_ms=bucket_ms, horizon_ms=horizon_ms)
        self._on_row, self._per_mark, self._width = on_row, per_mark, marks
        self._bucket = bucket
        self._least_ms = -(-horizon_ms // SPANS)
        self._span_ms = inf if bucket_ms is None else max(bucket_ms, self._least_ms)
        self.count = 0
        """Buckets opened so far."""
        self.newest_ms: int | None = None
        """Latest time at which a row was served."""
        self.clear()

    def clear(self) -> None:
        """Forget rows and labels, not how many buckets there were."""
        self.base: F64 = np.full(len(self._on_row), -np.inf)
        """Levels at the start of the oldest bucket, its own mass included."""
        self.opened_ms = np.empty(0, np.int64)
        self.rows = np.empty(0, np.int64)
        self.told = np.empty(0, np.int64)
        """Labels that left marks."""
        self.marks = np.empty((0, self._width))
        self.whole = np.empty(0, np.bool_)
        """False: a row came into the bucket, or one before it, after it was closed."""
        self._known = 0
        """Closed buckets that are weighed; a label takes those from its own on out of it."""
        k = len(self._on_row)
        self._gone = np.zeros((RING + 1, k))
        self._levels = np.full((RING + 1, k), -np.inf)
        self._ended = np.full(RING, -np.inf)

    def cut(self, served_ms: I64) -> list[int]:
        """Take the times of rows; indices of those that open a bucket, in order."""
        starts = []
        count, newest_ms = self.count, -inf if self.newest_ms is None else self.newest_ms
        filled = int(self.rows[-1]) if len(self.rows) else 0
        opened_ms: float = int(self.opened_ms[-1]) if len(self.rows) else -inf
        size, empty = self._size(count), not len(self.rows)
        for index, now_ms in enumerate(served_ms.tolist()):
            if now_ms > newest_ms:
                newest_ms = now_ms
                if empty or self._ends(now_ms - opened_ms, filled, size):
                    starts.append(index)
                    count, empty = count + 1, False
                    size, opened_ms, filled = self._size(count), now_ms, 0
            filled += now_ms >= opened_ms
        if len(served_ms):
            self.newest_ms = int(newest_ms)
        return starts

    def _size(self, count: int) -> int:
        return min(self._bucket, 1 << min(max(count - 1, 0), 30))

    def _ends(self, age_ms: float, filled: int, size: int) -> bool:
        if age_ms >= self._span_ms:
            return True
        return filled >= size and (size < self._bucket or age_ms >= self._least_ms)

    def open(self, served_ms: int) -> None:
        """Open a bucket: its mass enters, and the oldest buckets leave a full ring."""
        self.count += 1
        if not len(self.rows):
            self.base = restarted(self.base, float(log_mass(self.count, 1)[0]))
        elif len(self.rows) == RING:
            self._fold()
        self.opened_ms = np.append(self.opened_ms, served_ms)
        self.rows = np.append(self.rows, 0)
        self.told = np.append(self.told, 0)
        self.marks = np.concatenate((self.marks, np.zeros((1, self._width))))
        self.whole = np.append(self.whole, True)

    def _fold(self) -> None:
        """Let the oldest buckets leave: the level at the start of the next holds all of them."""
        masses = log_mass(self.count - RING + 1, FOLD)
        for gain, mass in zip(self._gains(slice(0, FOLD)), masses, strict=True):
            self.base = restarted(self.base + gain, float(mass))
        self.opened_ms, self.rows = self.opened_ms[FOLD:], self.rows[FOLD:]
        self.told, self.marks = self.told[FOLD:], self.marks[FOLD:]
        self.whole = self.whole[FOLD:]
        self._known = 0

    def place(self, served_ms: I64) -> I64:
        """Index in the ring of the bucket of each row; -1: served before the oldest."""
        found: I64 = np.searchsorted(self.opened_ms, served_ms, side="right") - 1
        return found

    def add(self, places: I64) -> None:
        """Count rows, good so far, by their places in the ring."""
        places = places[places >= 0]
        if not len(places):
            return
        self.rows += np.bincount(places, minlength=len(self.rows))
        oldest = int(places.min())
        if oldest < len(self.rows) - 1:
            self.whole[oldest:-1] = False
            self._known = min(self._known, oldest)

    def mark(self, places: I64, marks: F64) -> None:
        """Let labels leave their marks, one after the other: (n,), (n, d)."""
        np.add.at(self.marks, places, marks)
        np.add.at(self.told, places, 1)
        if len(places):
            self._known = min(self._known, int(places.min()))

    def unmark(self, told: I64, marks: F64) -> None:
        """Go back to what labels had left before: (buckets,), (buckets, d)."""
        self.told, self.marks, self._known = told.copy(), marks.copy(), 0

    def with_room(self, places: I64) -> I64:
        """Indices of labels whose bucket has a row left that had none yet."""
        order = np.argsort(places, kind="stable")
        ranked = places[order]
        first = np.searchsorted(ranked, ranked, side="left")
        rank = np.empty(len(places), np.int64)
        rank[order] = np.arange(len(places)) - first
        fits = np.flatnonzero(places >= 0)
        room = (self.rows - self.told)[places[fits]]
        return np.asarray(fits[rank[fits] < room], np.int64)

    def _gains(self, part: slice) -> F64:
        gains: F64 = self.rows[part, None] * self._on_row + self.marks[part] * self._per_mark
        return gains

    def closed(self) -> tuple[F64, float]:
        """Levels at the start of the open bucket, and the best evidence at the end of a closed."""
        first, last = self._known, len(self.rows) - 1
        gone, levels = self._gone, self._levels
        levels[0] = self.base
        if first < last:
            more = slice(first + 1, last + 1)
            gone[more] = running(gone[first], self._gains(slice(first, last)))
            entered = log_mass(self.count - last + first + 1, last - first)[:, None] - gone[more]
            onwards = np.concatenate((levels[first : first + 1], entered))
            levels[more] = np.logaddexp.accumulate(onwards, axis=0)[1:]
            ends = levels[first:last] + gone[more]
            self._ended[first:last] = log_mean(np.ascontiguousarray(ends.T))
            self._known = last
        best = self._ended[:last][self.whole[:last]].max(initial=-inf)
        return levels[last] + gone[last], float(best)

    def statistic(self) -> float | None:
        """The best log evidence of now and of the ends of closed buckets, nats; None: no row."""
        return None if not len(self.rows) else float(self.after(self.rows[-1:], self.marks[-1:])[0])

    def after(self, rows: I64, marks: F64) -> F64:
        """The same if the open bucket had so many rows and these marks: (m,), (m, d) -> (m,)."""
        start, best = self.closed()
        levels = start + rows[:, None] * self._on_row + marks * self._per_mark
        statistics: F64 = np.maximum(log_mean(np.ascontiguousarray(levels.T)), best)
        return statistics

    def saved(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "base": plain(self.base), "count": self.count, "newest_ms": self.newest_ms,
            "opened_ms": self.opened_ms.tolist(), "rows": self.rows.tolist(),
            "told": self.told.tolist(), "marks": [_short(row) for row in self.marks.tolist()],
            "late": np.flatnonzero(~self.whole).tolist(),
        }  # fmt: skip

    def restore(self, saved: dict[str, Any]) -> None:
        """Continue from `saved()`."""
        self.base = levels_from(saved["base"], len(self._on_row))
        self.count, self.newest_ms = saved["count"], saved["newest_ms"]
        self.opened_ms, self.rows, self.told = (
            np.array(saved[name], np.int64) for name in ("opened_ms", "rows", "told")
        )
        marks = [row or [0.0] * self._width for row in saved["marks"]]
        self.marks = np.array(marks, np.float64).reshape(-1, self._width)
        self.whole = np.ones(len(self.rows), np.bool_)
        self.whole[np.array(saved["late"], np.int64)] = False
        if not len(self.opened_ms) == len(self.rows) == len(self.told) == len(self.marks) <= RING:
            raise ValueError("buckets of one length expected")
        self._known = 0


def _short(marks: list[float]) -> list[float]:
    """Nothing for no marks, and whole numbers as such: most buckets hold few labels."""
    if not any(marks):
        return []
    return [int(x) if x.is_integer() else x for x in marks]
