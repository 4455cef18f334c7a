"""Seeded streams for detectors, and ways to feed them."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from detectors.base import Detector, Reading, Rows

STEP_MS = 250


def rows_of(
    loss: Any, first: int = 0, step_ms: int = STEP_MS, canary: Any = None, weight: Any = None
) -> Rows:
    """Rows with these losses, one every `step_ms`; `weight` may be one number for all."""
    losses = np.asarray(loss, dtype=np.float64)
    position = np.arange(first, first + len(losses), dtype=np.int64)
    arms = None if canary is None else np.asarray(canary, dtype=np.bool_)
    share = None if weight is None else np.broadcast_to(np.float64(weight), losses.shape).copy()
    return Rows(losses, position, 1_700_000_000_000 + position * step_ms, arms, share)


def coin_rows(seed: int, n: int, rate: Any, step_ms: int = STEP_MS) -> Rows:
    """Losses of 0 and 1 at a rate that is one number, or one for each row."""
    rng = np.random.default_rng(seed)
    return rows_of(rng.random(n) < np.broadcast_to(rate, (n,)), step_ms=step_ms)


def paired_rows(seed: int, n: int, rate: Any, ratio: Any, share: Any, *, told: bool = True) -> Rows:
    """Two arms: the stable fails at `rate`, the canary at `ratio` times that."""
    rng = np.random.default_rng(seed)
    shares = np.broadcast_to(np.asarray(share, dtype=np.float64), (n,))
    canary = rng.random(n) < shares
    rates = np.broadcast_to(rate, (n,)) * np.where(canary, np.broadcast_to(ratio, (n,)), 1.0)
    bad = rng.random(n) < rates
    return rows_of(bad, canary=canary, weight=shares if told else np.nan)


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
