"""Canary guard: the formulas, the promise, common causes, and shares that are not known."""

from __future__ import annotations

import math
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.canary_guard import CanaryGuard
from tests.detectors.worlds import feed, paired_rows, part, rows_of

RAMP = np.repeat([0.01, 0.05, 0.25, 0.5], 5000)


def by_hand(canary: Any, share: Any, margin: float) -> float:
    """Log evidence of bad rows of one bucket, as the paper has it."""
    total = 0.0
    top = 8.0
    for k in range(8):
        r = 1.1 * margin * (top / (1.1 * margin)) ** (k / 7)
        wealth = 1 / (1.0691 * 3 * math.log(3) ** 2)
        for is_canary, rho in zip(canary, share, strict=True):
            theta, null = rho * r / (rho * r + 1 - rho), rho * margin / (rho * margin + 1 - rho)
            wealth *= theta / null if is_canary else (1 - theta) / (1 - null)
        total += wealth / 8
    return math.log(total)


def test_it_is_the_test_that_the_paper_describes() -> None:
    """If this breaks, the guarantee is of some other test."""
    rng = np.random.default_rng(1)
    for seed in range(20):
        share = rng.uniform(0.05, 0.6, 1)
        canary = np.random.default_rng(seed).random(1) < 0.5
        reading = CanaryGuard().update(rows_of([1.0], canary=canary, weight=share))
        assert reading.statistic == pytest.approx(by_hand(canary, share, 1.15), abs=1e-12)

    guard = CanaryGuard(bucket=1000)
    good = rows_of(np.zeros(600), canary=np.zeros(600), weight=0.5)
    guard.update(good)  # nine buckets pass; none spends, since no row was bad
    share = rng.uniform(0.05, 0.6, 40)
    canary = rng.random(40) < 0.4
    reading = guard.update(rows_of(np.ones(40), first=600, canary=canary, weight=share))
    assert reading.statistic == pytest.approx(by_hand(canary, share, 1.15), abs=1e-9)
    assert 1 == guard.explain()["restarts"]


@pytest.mark.parametrize("told", [True, False])
def test_false_alarms_at_the_margin_stay_within_alpha(told: bool) -> None:
    """If this breaks, canaries within the margin are rolled back more often than was promised."""
    alarms = sum(
        feed(
            CanaryGuard(margin=1.15, alpha=0.05),
            paired_rows(seed, 20_000, 0.04, 1.15, 0.3, told=told),
        ).level
        == "alarm"
        for seed in range(200)
    )

    assert alarms / 200 <= 0.05


@pytest.mark.parametrize("told", [True, False])
def test_a_world_that_turns_worse_while_traffic_is_ramped_is_nobodys_fault(told: bool) -> None:
    """If this breaks, an outage elsewhere rolls a good canary back, and cures nothing."""
    rate = np.where(np.arange(20_000) < 7_000, 0.015, 0.06)

    levels = [
        feed(CanaryGuard(), paired_rows(seed, 20_000, rate, 1.0, RAMP, told=told)).level
        for seed in range(80)
    ]

    assert 0 == levels.count("alarm")


@pytest.mark.parametrize(("told", "ratio", "least", "most"), [
    (True, 3.0, 220, 400), (False, 3.0, 220, 450), (True, 5.0, 70, 160), (False, 5.0, 70, 200),
])  # fmt: skip
def test_the_delay_is_that_of_the_pilot(told: bool, ratio: float, least: int, most: int) -> None:
    """If this breaks, a bad canary stays in traffic longer than the documents say.

    Canary rows to the alarm at 2 % base and 10 % traffic; the pilot's median at three times is 292.
    """
    seen = []
    for seed in range(80):
        rows = paired_rows(seed, 20_000, 0.02, ratio, 0.1, told=told)
        fired_at = feed(CanaryGuard(), rows).fired_at
        assert fired_at is not None and rows.canary is not None
        seen.append(int(rows.canary[: fired_at + 1].sum()))

    assert least <= float(np.median(seen)) <= most


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.booleans(), st.booleans(), st.floats(0.05, 0.9)), min_size=1, max_size=200
    ),
    st.lists(st.integers(0, 199), max_size=6),
)
def test_a_bad_row_that_was_the_canarys_is_never_less_evidence(
    rows: list[tuple[bool, bool, float]], moved: list[int]
) -> None:
    """If this breaks, a canary can hide by failing more."""
    bad, canary, share = (np.array(column) for column in zip(*rows, strict=True))
    worse = canary | (bad & np.isin(np.arange(len(bad)), moved))

    left = feed(CanaryGuard(), rows_of(bad, canary=canary, weight=share))
    right = feed(CanaryGuard(), rows_of(bad, canary=worse, weight=share))

    if left.fired_at is not None:
        assert right.fired_at is not None and right.fired_at <= left.fired_at
    elif right.fired_at is None and left.statistic is not None:
        assert right.statistic is not None and left.statistic <= right.statistic + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.booleans(), st.booleans(), st.sampled_from([0.1, 0.5, math.nan]), st.integers(-5, 60)
        ),
        min_size=1,
        max_size=400,
    ),
    st.lists(st.integers(0, 399), max_size=10),
)
def test_packing_changes_no_bit(rows: list[tuple[bool, bool, float, int]], cuts: list[int]) -> None:
    """If this breaks, live and replayed decisions differ."""
    bad, canary, share, steps = (np.array(column) for column in zip(*rows, strict=True))
    batch = rows_of(bad, canary=canary, weight=share)._replace(time_ms=np.cumsum(1000 * steps))
    whole, packed, single = (CanaryGuard(bucket=32) for _ in range(3))

    expected = feed(whole, batch)

    assert expected == feed(packed, batch, [cut for cut in cuts if cut <= len(rows)])
    assert expected == feed(single, batch, range(1, len(rows)))
    assert whole.state() == packed.state() == single.state()


def test_a_full_block_speaks_at_once() -> None:
    """If this breaks, a mirrored canary's evidence waits for the next row, which may not come."""
    guard = CanaryGuard(bucket=64, bucket_ms=None)
    feed(guard, paired_rows(1, 63 + 64 * 20, 0.02, 1.0, 0.5, told=False))
    canary = np.arange(64) % 2 == 0
    bad = rows_of(canary, first=63 + 64 * 20, canary=canary, weight=np.nan)
    first, last = part(bad, 0, 63), part(bad, 63, 64)

    assert "quiet" == guard.update(first).level
    assert int(last.position[0]) == guard.update(last).fired_at


def test_no_mass_enters_while_a_block_is_open() -> None:
    """If this breaks, a block's evidence is given to mass that came after its bad rows."""
    guard = CanaryGuard(bucket=8, bucket_ms=None)
    feed(guard, paired_rows(1, 71, 0.0, 1.0, 0.5, told=False))
    spent = guard.explain()["restarts"]
    opens = rows_of([0.0], first=71, canary=[True], weight=np.nan)
    told = rows_of(np.ones(32), first=72, canary=np.arange(32) % 2 == 0, weight=0.5)
    feed(guard, opens)
    feed(guard, told)  # four buckets with bad rows, all before the block is ripe

    assert spent + 1 == guard.explain()["restarts"]


def test_a_share_of_nothing_or_all_tells_nothing() -> None:
    """If this breaks, a canary that has all traffic is compared with nobody."""
    guard = CanaryGuard()
    rows = rows_of(np.ones(500), canary=np.ones(500), weight=1.0)

    assert ("quiet", None) == (guard.update(rows).level, guard.reading().statistic)
    assert guard.ratio().estimate is None


def test_it_says_on_which_rows_it_stands() -> None:
    """If this breaks, a report claims assigned shares that nobody assigned."""
    told = paired_rows(1, 500, 0.1, 1.0, 0.3)
    untold = paired_rows(2, 500, 0.1, 1.0, 0.3, told=False)
    later = untold._replace(position=untold.position + 500)
    assigned, unknown, mixed = CanaryGuard(), CanaryGuard(), CanaryGuard()
    feed(assigned, told)
    feed(unknown, untold._replace(weight=None))
    feed(mixed, told)
    feed(mixed, later)

    actual = [guard.explain()["weight"] for guard in (assigned, unknown, mixed)]
    assert ["assigned", "unknown", "mixed"] == actual


def test_rate_and_ratio_are_estimated_beside_the_stable() -> None:
    """If this breaks, a page compares the canary with a wrong number."""
    for told, share in ((True, 0.3), (True, RAMP[-18_000:]), (False, 0.3)):
        guard = CanaryGuard(alpha=0.01)
        feed(guard, part(paired_rows(5, 18_000, 0.05, 2.0, share, told=told), 0, 18_000))
        interval, ratio = guard.interval(), guard.ratio()
        assert interval.lower is not None and interval.upper is not None
        assert interval.lower < 0.1 < interval.upper
        assert interval.stable_estimate == pytest.approx(0.05, rel=0.15)
        assert ratio.lower is not None and ratio.upper is not None
        assert 1.3 < ratio.lower < 2.0 < ratio.upper < 3.5
        assert ratio.estimate == pytest.approx(2.0, rel=0.15)


def test_its_state_fits_a_kilobyte() -> None:
    """If this breaks, ten thousand guards do not fit where the documents say."""
    guard = CanaryGuard()
    for i in range(5):
        rows = paired_rows(i, 20_000, 0.05, 1.0, RAMP)
        feed(guard, rows._replace(position=rows.position + 20_000 * i))

    assert len(msgspec.json.encode(guard.state())) <= 1024


def test_parameters_out_of_range_are_refused() -> None:
    """If this breaks, a margin below one rolls back canaries that are as good as the stable."""
    with pytest.raises(ValueError, match="margin must be at least 1"):
        CanaryGuard(margin=0.9)
    with pytest.raises(ValueError, match="bucket must be at least 1"):
        CanaryGuard(bucket=0)
