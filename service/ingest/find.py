"""Find rows by the hash of their id: an open-addressing table in numpy, for whole windows at once.

Why. A lookup in RocksDB costs 5 µs at a million pending predictions and a Python dict 200 bytes per
entry. This costs 0.1 µs and 6 to 14 bytes.

How. Linear probing; a slot holds a row number plus two, 0 is empty, 1 was given back. A row is
found when the 64-bit hash (Python's, keyed anew in each process, so nobody can prepare collisions)
and a CRC32 of its id agree: 96 bits.

Refused here: ids themselves; two live rows with one id, which `join.py` never adds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

_GONE = 1
_FULL = 0.7
"""Share of used slots above which the table is built again, larger."""


class Hashes(NamedTuple):
    """96 bits per id."""

    hash: NDArray[np.uint64]
    check: NDArray[np.uint32]

    def take(self, keep: Ints) -> Hashes:
        """Those at these places."""
        return Hashes(self.hash[keep], self.check[keep])


def hashes_of(ids: Sequence[bytes]) -> Hashes:
    """Hash ids; only this process understands the result."""
    hashed = np.array(list(map(hash, ids)), np.int64).view(np.uint64)
    return Hashes(hashed, np.array(list(map(crc32, ids)), np.uint32))


class Index:
    """Rows by hash. `hash[row]` and `check[row]` belong to the caller, who grows them."""

    def __init__(self) -> None:
        self.hash: NDArray[np.uint64] = np.empty(0, np.uint64)
        self.check: NDArray[np.uint32] = np.empty(0, np.uint32)
        self._table: NDArray[np.uint32] = np.zeros(1024, np.uint32)
        self._used = 0
        self.count = 0

    def find(self, wanted: Hashes) -> Ints:
        """Row of each hash, -1 where there is none; shape (n,)."""
        found = np.full(len(wanted.hash), -1, np.int64)
        if self.count == 0:
            return found
        at = self._home(wanted.hash)
        slots = self._table[at]
        left = np.flatnonzero(slots)
        while len(left):
            rows = slots[left].astype(np.int64) - 2  # -1 was given back: never the same
            same = self.hash[rows] == wanted.hash[left]
            same &= (self.check[rows] == wanted.check[left]) & (rows >= 0)
            hit = np.flatnonzero(same)
            found[left[hit]] = rows[hit]
            left = left[~same]
            at[left] = self._next(at[left])
            slots[left] = self._table[at[left]]
            left = left[slots[left] != 0]
        return found

    def add(self, rows: Ints) -> None:
        """Enter rows whose ids are not in it."""
        if self._used + len(rows) > _FULL * len(self._table):
            self._build(len(rows))
        self._used += len(rows)
        self.count += len(rows)
        self._enter(rows)

    def remove(self, rows: Ints) -> None:
        """Take out rows that are in it."""
        self.count -= len(rows)
        at = self._home(self.hash[rows])
        while len(rows):
            slots = self._table[at]
            if not slots.all():
                raise KeyError("a row that is not in the index")
            mine = slots == rows + 2
            self._table[at[mine]] = _GONE
            rows, at = rows[~mine], self._next(at[~mine])

    def _enter(self, rows: Ints) -> None:
        at = self._home(self.hash[rows])
        while len(rows):
            free = self._table[at] <= _GONE
            self._table[at[free]] = rows[free] + 2
            # Of two rows that wanted one slot the second has it; the first goes on.
            mine = self._table[at] == rows + 2
            rows, at = rows[~mine], self._next(at[~mine])

    def _build(self, more: int) -> None:
        rows = self._table[self._table > _GONE].astype(np.int64) - 2
        size = len(self._table)
        while len(rows) + more > 0.9 * _FULL * size:
            size *= 2
        self._table = np.zeros(size, np.uint32)
        self._used = len(rows)
        self._enter(rows)

    def _home(self, hashed: NDArray[np.uint64]) -> Ints:
        return (hashed & np.uint64(len(self._table) - 1)).astype(np.int64)

    def _next(self, at: Ints) -> Ints:
        return (at + 1) & (len(self._table) - 1)
