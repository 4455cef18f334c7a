"""Cohorts: each label finds the bucket of its prediction, for a horizon, in bounded memory."""

from __future__ import annotations

from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import Rows
from detectors.cohorts import FOLD, RING, Cohorts
from detectors.optimistic import Labels
from detectors.optimistic_mean import OptimisticMean
from detectors.optimistic_rate import OptimisticRate
from detectors.rate_guard import RateGuard

HOUR_MS = 3_600_000


def cohorts(bucket: int = 4, horizon_ms: int = 1000, bucket_ms: int | None = None) -> Cohorts:
    return Cohorts(np.full(2, -0.1), np.full(2, 1.0), 1, bucket, bucket_ms, horizon_ms)


def take(kept: Cohorts, served_ms: Any) -> Any:
    """Count rows one by one; how many buckets there had been when each was counted."""
    bucket = []
    for now_ms in served_ms:
        for _ in kept.cut(np.array([now_ms])):
            kept.open(now_ms)
        place = kept.place(np.array([now_ms]))
        kept.add(place)
        gone = kept.count - len(kept.rows)
        bucket.append(gone + int(place[0]) if place[0] >= 0 else -1)
    return bucket


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=200))
def test_a_label_finds_the_bucket_of_its_row_however_rows_are_ordered(times: list[int]) -> None:
    """If this breaks, a bad label is counted where its prediction is not."""
    kept = cohorts()

    counted = take(kept, times)

    found = kept.place(np.array(times)) + kept.count - len(kept.rows)
    judged = [i for i, bucket in enumerate(counted) if bucket >= 0]
    assert [counted[i] for i in judged] == [int(found[i]) for i in judged]
    assert len(judged) == int(kept.rows.sum())
    assert (np.diff(kept.opened_ms) > 0).all()


def test_a_row_out_of_order_takes_the_ends_that_it_touches_out_of_the_look() -> None:
    """If this breaks, evidence is looked at as of a moment at which it never stood."""
    kept = cohorts(bucket=2)
    take(kept, range(0, 100, 10))
    opened = kept.opened_ms.tolist()
    assert kept.whole.all()

    take(kept, [opened[2] + 1])

    assert [True, True, *[False] * (len(opened) - 3), True] == kept.whole.tolist()


def test_a_full_bucket_lasts_long_enough_that_the_ring_holds_a_horizon() -> None:
    """If this breaks, labels of busy models find no bucket, and nothing is ever seen."""
    guard = OptimisticRate(limit=0.02, horizon_ms=HOUR_MS)
    times = np.arange(0, 3 * HOUR_MS, 20)

    guard.update(Rows(np.zeros(len(times)), np.arange(len(times)), times))

    opened = guard.state()["cohorts"]["opened_ms"]
    assert RING - FOLD <= len(opened) <= RING
    assert opened[0] <= times[-1] - HOUR_MS


def test_what_leaves_the_ring_is_folded_exactly() -> None:
    """If this breaks, a long life forgets its past, or remembers it wrongly."""
    rng = np.random.default_rng(4)
    loss = (rng.random(60_000) < 0.019).astype(float)
    times = 1000 * np.arange(len(loss))
    guard = OptimisticRate(0.02, 1000, 1e-300, bucket=64, bucket_ms=None)
    oracle = RateGuard(0.02, 1e-300, bucket=64, bucket_ms=None)
    best = -np.inf
    for first in range(0, len(loss), 1000):
        part = slice(first, first + 1000)
        rows = Rows(loss[part], np.arange(first, first + 1000), times[part])
        guard.update(rows)
        oracle.update(rows)
    kept = guard._cohorts
    start, _ = kept.closed()
    now = start + kept.rows[-1] * kept._on_row + kept.marks[-1] * kept._per_mark

    assert kept.count > RING + 300
    best = float(np.log(np.mean(np.exp(now))))
    assert oracle.reading().statistic == pytest.approx(best, abs=1e-6)


@pytest.mark.parametrize("kind", ["rate", "mean"])
def test_a_full_ring_fits_its_bytes_and_its_time(kind: str) -> None:
    """If this breaks, the state store fills, or a batch of labels costs more than its rows."""
    rng = np.random.default_rng(5)
    guard: Any = OptimisticRate(0.1, HOUR_MS) if kind == "rate" else OptimisticMean(0.1, 1, HOUR_MS)
    n = 500_000
    times = 1_700_000_000_000 + np.sort(rng.integers(0, 3 * HOUR_MS, n))
    for first in range(0, n, 1000):
        now = times[first : first + 1000]
        guard.update(Rows(np.zeros(1000), np.arange(first, first + 1000), now))
    kept = guard._cohorts
    rows = np.arange(len(kept.rows) - 2)
    served = kept.opened_ms[rows]
    started = perf_counter()
    for i in range(20):
        loss = np.ones(len(rows)) if kind == "rate" else rng.random(len(rows)) / 10
        position = n + i * len(rows) + np.arange(len(rows))
        guard.arrive(Labels(loss, position, served, served))
    us_per_batch = (perf_counter() - started) / 20 * 1e6

    assert guard.reading().level != "alarm" and len(kept.rows) > RING - FOLD
    assert len(msgspec.json.encode(guard.state())) <= 65_536
    assert us_per_batch < 10_000  # 0.4 to 0.9 ms at rest


def test_damaged_buckets_are_refused() -> None:
    """If this breaks, a guard goes on with rows of one bucket and labels of another."""
    kept = cohorts()
    take(kept, range(20))
    saved = kept.saved()
    saved["rows"] = saved["rows"][:-1]

    with pytest.raises(ValueError, match="one length"):
        cohorts().restore(saved)
