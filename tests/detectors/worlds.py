"""Seeded streams for detectors (those of the evidence), and ways to feed them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from detectors.base import Detector, Reading, Rows
from evidence.worlds import STEP_MS as STEP_MS
from evidence.worlds import coin_rows as coin_rows
from evidence.worlds import paired_rows as paired_rows
from evidence.worlds import rows_of as rows_of


def part(rows: Rows, start: int, stop: int) -> Rows:
    """Some of the rows."""
    return Rows(*(None if column is None else column[start:stop] for column in rows))


def feed(detector: Detector, rows: Rows, cuts: Any = ()) -> Reading:
    """Give the rows packed by the cuts; the last reading."""
    edges = [0, *sorted(cuts), len(rows.loss)]
    for start, stop in pairwise(edges):
        detector.update(part(rows, start, stop))
    return detector.reading()


def one_by_one(detector: Detector, rows: Rows) -> Reading:
    """Give the rows one at a time; the last reading."""
    return feed(detector, rows, range(1, len(rows.loss)))
