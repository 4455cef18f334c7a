"""Predictions that wait for their outcome or their horizon: 90 bytes a row, in columns of memory.

Why. Every outcome asks for one prediction out of millions. Point reads in RocksDB cost 5 µs and
point writes 2 µs each, so the rows live here and RocksDB keeps what this was built from, one blob a
window (`remember.py`).

How. Rows lie in slabs of 4,096; a slab holds rows of one horizon, so it dies as a whole, and its
space is used again. A row is found by the hash of its id as long as it may still be labelled. It
carries no feature values. Texts (classes that are no numbers) are kept once, in `Texts`, and what
segments a row is in is kept once in `Slices`.

Memory: 90 bytes a row and 6 to 14 in the index, about 100 MB per million pending predictions.

Refused here: time and policies (`due_s` is decided in `join.py`), and what was said (`expire.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.ingest.find import Hashes, Index, Ints

Rows = NDArray[np.void]
"""Structured array of dtype `ROW`."""

ROW = np.dtype([
    ("offset", "<i8"), ("served_ms", "<i8"), ("value", "<f8"), ("label", "<f8"), ("cost", "<f4"),
    ("score", "<f4"), ("weight", "<f4"), ("sampled", "<f4"), ("delay_ms", "<u4"),
    ("unit", "<u4"), ("due_s", "<u4"), ("model", "<u2"), ("version", "<u2"), ("slice", "<u2"),
    ("state", "|u1"), ("flags", "|u1"),
])  # fmt: skip
"""One prediction. Packed, not aligned: eight bytes a row are worth more than speed here. For the
same reason scores, weights, costs and chances of sampling have seven digits, an outcome's time is
kept as its delay, and all segments of a row together are one code (`slices.py`)."""

LONGEST_DELAY_MS = 2**32 - 1
"""49 days; a longer delay is kept as this one."""

WAITING, LABELLED, SAID, LATE = 0, 1, 2, 3
"""State of a row: `LATE` met its outcome after its horizon, and is unlabelled for good."""

TEXT_VALUE, TEXT_LABEL, FAILED, CLOSED = 1, 2, 4, 8
"""Flags: `value` or `label` is a code of `Texts`; the request failed; no outcome finds the row."""

SLAB = 4096
NEVER = 1 << 33


MOST, LEAST = np.finfo("<f4").max, np.finfo("<f4").tiny


def costs_of(events: Iterable[Any]) -> NDArray[np.float32]:
    """Costs of outcomes as rows keep them; one beyond seven digits' range is its end."""
    costs = np.array([event.cost for event in events], np.float64)
    return np.clip(costs, -MOST, MOST).astype("<f4")


def sampled_of(events: Iterable[Any]) -> NDArray[np.float32]:
    """Chances of being labelled as rows keep them, never 0; NaN: not sampled."""
    chances = np.array([event.sampled for event in events], np.float64)
    return np.clip(chances, LEAST, 1.0).astype("<f4")


def delays_ms(observed_ms: Ints, served_ms: Ints) -> Ints:
    """How long outcomes took, as a row keeps it; an outcome from before its prediction took 0."""
    delays: Ints = np.clip(observed_ms - served_ms, 0, LONGEST_DELAY_MS)
    return delays


def observed_ms(rows: Rows) -> Ints:
    """When the outcomes of rows were observed."""
    times: Ints = rows["served_ms"] + rows["delay_ms"].astype(np.int64)
    return times


@dataclass(slots=True)
class Slab:
    """A run of `SLAB` rows."""

    number: int
    """Its place in memory."""
    uid: int
    """Its name in the store; only grows."""
    first_offset: int
    floor: int
    """Lowest outcome that may have met one of its rows."""
    used: int = 0
    alive: int = 0
    """Rows that were not said for the last time."""
    next_due_s: int = NEVER
    """Earliest `due_s` of those."""
    max_due_s: int = 0


class Piece(NamedTuple):
    """A part of one `add` that went to one slab."""

    uid: int
    start: int
    """Its first row within the slab."""
    take: Ints
    """Which of the added rows."""


class Labels(NamedTuple):
    """Outcomes as columns, in the order of the rows they belong to."""

    label: NDArray[np.float64]
    is_text: NDArray[np.bool_]
    observed_ms: Ints
    cost: NDArray[np.float32]
    sampled: NDArray[np.float32]
    late: NDArray[np.bool_]

    def take(self, keep: Any) -> Labels:
        """Those at these places."""
        return Labels(*(column[keep] for column in self))


class Pending:
    """All rows of one partition."""

    def __init__(self) -> None:
        self.rows: Rows = np.zeros(0, ROW)
        self.index = Index()
        self.slabs: dict[int, Slab] = {}
        """By uid."""
        self._at: dict[int, Slab] = {}
        self._open: dict[int, Slab] = {}
        self._free: list[int] = []
        self._next_uid = 0
        self.count = 0
        self._grow()

    def add(
        self, new: Rows, hashes: Hashes, horizons_ms: Ints, floor: int
    ) -> tuple[Ints, list[Piece]]:
        """Keep rows whose ids are unknown; return where they are and how they were split.

        Parameters
        ----------
        horizons_ms : int array, shape (n,)
            Rows of one horizon go to one slab.
        floor : int
            Lowest outcome offset that may meet them.
        """
        placed = np.empty(len(new), np.int64)
        pieces: list[Piece] = []
        for horizon_ms in _distinct(horizons_ms):
            left = np.flatnonzero(horizons_ms == horizon_ms)
            while len(left):
                slab = self._slab(horizon_ms, int(new["offset"][left[0]]), floor)
                take, left = left[: SLAB - slab.used], left[SLAB - slab.used :]
                pieces.append(Piece(slab.uid, slab.used, take))
                placed[take] = self._put(slab, new[take], hashes.take(take))
                slab.floor = min(slab.floor, floor)
        self.index.add(placed)
        return placed, pieces

    def _put(self, slab: Slab, new: Rows, hashes: Hashes) -> Ints:
        start = slab.number * SLAB + slab.used
        end = start + len(new)
        self.rows[start:end] = new
        self.index.hash[start:end] = hashes.hash
        self.index.check[start:end] = hashes.check
        due_s = new["due_s"]
        slab.used += len(new)
        slab.alive += len(new)
        slab.next_due_s = min(slab.next_due_s, int(due_s.min()))
        slab.max_due_s = max(slab.max_due_s, int(due_s.max()))
        self.count += len(new)
        return np.arange(start, end)

    def _slab(self, horizon_ms: int, first_offset: int, floor: int) -> Slab:
        slab = self._open.get(horizon_ms)
        if slab is None or slab.used == SLAB:
            slab = self._open[horizon_ms] = self.new_slab(self._next_uid, first_offset, floor)
        return slab

    def new_slab(self, uid: int, first_offset: int, floor: int) -> Slab:
        """Make an empty slab; only the store names a uid itself, when it is read again."""
        if not self._free:
            self._grow()
        slab = Slab(self._free.pop(), uid, first_offset, floor)
        self._next_uid = max(self._next_uid, uid + 1)
        self.slabs[uid] = self._at[slab.number] = slab
        return slab

    def restore(self, slab: Slab, new: Rows, hashes: Hashes) -> Ints:
        """Put rows back into a slab that is read from the store; they are not entered yet."""
        return self._put(slab, new, hashes)

    def _grow(self) -> None:
        # In place by the allocator (no second copy of gigabytes), so no view of these three
        # may be kept beyond one statement anywhere.
        had = len(self.rows) // SLAB
        more = max(4, had // 16)
        for array in (self.rows, self.index.hash, self.index.check):
            array.resize((had + more) * SLAB, refcheck=False)
        self._free.extend(range(had + more - 1, had - 1, -1))

    def label(self, rows: Ints, given: Labels) -> None:
        """Give waiting rows their outcome."""
        self.rows["label"][rows] = given.label
        self.rows["delay_ms"][rows] = delays_ms(given.observed_ms, self.rows["served_ms"][rows])
        self.rows["cost"][rows] = given.cost
        self.rows["sampled"][rows] = given.sampled
        self.rows["state"][rows] = np.where(given.late, LATE, LABELLED)
        if given.is_text.any():
            self.rows["flags"][rows[given.is_text]] |= TEXT_LABEL

    def close(self, until_s: int) -> Ints:
        """Take rows that are due out of the index; returns all that are due, by offset."""
        due = self.due(until_s)
        open_rows = due[(self.rows["flags"][due] & CLOSED) == 0]
        self.rows["flags"][open_rows] |= CLOSED
        self.index.remove(open_rows)
        return due

    def next_due_s(self) -> int:
        """Earliest time at which a row is due; `NEVER` without rows."""
        return min((slab.next_due_s for slab in self.slabs.values()), default=NEVER)

    def due(self, until_s: int) -> Ints:
        """Rows that are due at or before `until_s` and not said, by offset."""
        found = []
        for slab in self.slabs.values():
            if slab.next_due_s <= until_s:
                rows = self.rows[slab.number * SLAB : slab.number * SLAB + slab.used]
                due = (rows["due_s"] <= until_s) & (rows["state"] != SAID)
                found.append(np.flatnonzero(due) + slab.number * SLAB)
        if not found:
            return np.empty(0, np.int64)
        every = np.concatenate(found)
        return every[np.argsort(self.rows["offset"][every], kind="stable")]

    def said(self, rows: Ints) -> None:
        """Mark rows as said for the last time."""
        self.rows["state"][rows] = SAID
        self.count -= len(rows)
        for number, count in zip(*np.unique(rows // SLAB, return_counts=True), strict=True):
            slab = self._at[int(number)]
            slab.alive -= int(count)
            left = self.rows[slab.number * SLAB : slab.number * SLAB + slab.used]
            left = left[left["state"] != SAID]
            slab.next_due_s = int(left["due_s"].min()) if len(left) else NEVER

    def drop(self) -> Iterator[int]:
        """Give back slabs without a living row; yields their uids."""
        for slab in [slab for slab in self.slabs.values() if slab.alive == 0]:
            for horizon_ms in [h for h, one in self._open.items() if one is slab]:
                del self._open[horizon_ms]
            del self.slabs[slab.uid], self._at[slab.number]
            self._free.append(slab.number)
            yield slab.uid


def _distinct(numbers: Ints) -> list[int]:
    first = int(numbers[0])
    return [first] if bool((numbers == first).all()) else np.unique(numbers).tolist()
