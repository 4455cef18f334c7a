"""Rate guard: the formulas, the promise, and the delay."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.rate_guard import RateGuard
from tests.detectors.worlds import coin_rows, feed, one_by_one, rows_of


def by_hand(losses: list[int], limit: float, bucket: int) -> tuple[float, int | None]:
    """The test as the paper has it, row by row in linear numbers: log evidence, first crossing."""
    odds = [1.15 * (8 / 1.15) ** (k / 7) for k in range(8)]
    alternatives = [limit * r / (1 - limit + limit * r) for r in odds]
    wealth = [0.0] * 8
    restarts = filled = 0
    size = 0
    for i, loss in enumerate(losses):
        if filled == size:
            restarts += 1
            size, filled = min(bucket, 2 ** (restarts - 1)), 0
            mass = 1 / (1.0691 * (restarts + 2) * math.log(restarts + 2) ** 2)
            wealth = [w + mass for w in wealth]
        filled += 1
        wealth = [
            w * (q / limit if loss else (1 - q) / (1 - limit))
            for w, q in zip(wealth, alternatives, strict=True)
        ]
        if loss and sum(wealth) / 8 >= 100:
            return math.log(sum(wealth) / 8), i
    return math.log(sum(wealth) / 8), None


@pytest.mark.parametrize("bucket", [1, 64])
@pytest.mark.parametrize(("rate", "seed"), [(0.02, 0), (0.05, 1), (0.05, 2), (0.3, 3)])
def test_it_is_the_test_that_the_paper_describes(rate: float, seed: int, bucket: int) -> None:
    """If this breaks, the guarantee is of some other test."""
    rows = coin_rows(seed, 1500, rate, step_ms=0)

    reading = feed(RateGuard(limit=0.02, bucket=bucket), rows, [1, 10, 500])

    expected, fired_at = by_hand(rows.loss.astype(int).tolist(), 0.02, bucket)
    assert fired_at == reading.fired_at
    assert reading.statistic == pytest.approx(expected, abs=1e-9)


def test_false_alarms_at_the_limit_stay_within_alpha() -> None:
    """If this breaks, good versions are rolled back more often than was promised."""
    alarms = sum(
        feed(RateGuard(limit=0.02, alpha=0.05), coin_rows(seed, 20_000, 0.02)).level == "alarm"
        for seed in range(400)
    )

    assert alarms / 400 <= 0.05


def test_false_alarms_stay_within_alpha_when_the_rate_wanders_below_the_limit() -> None:
    """If this breaks, a benign shift or a daily wave takes a good version out of traffic."""
    wave = 0.01 + 0.008 * np.sin(np.arange(20_000) / 800)
    step = np.where(np.arange(20_000) < 10_000, 0.010, 0.018)

    for rate in (wave, step):
        levels = [feed(RateGuard(limit=0.02), coin_rows(s, 20_000, rate)).level for s in range(60)]
        assert 0 == levels.count("alarm")


@pytest.mark.parametrize(
    ("healthy", "worse", "least", "most"),
    [
        (0, 0.06, 140, 230),
        (2_000, 0.06, 340, 560),
        (20_000, 0.06, 400, 660),
        (20_000, 0.1, 120, 220),
    ],
)
def test_the_delay_is_that_of_the_pilot(healthy: int, worse: float, least: int, most: int) -> None:
    """If this breaks, a bad version stays in traffic longer than the documents say.

    Medians of the pilot at limit .02, healthy .015: 182, 436, 536 and 185 rows.
    """
    n = healthy + 6_000
    rate = np.where(np.arange(n) < healthy, 0.015, worse)

    delays = []
    for seed in range(100):
        fired_at = feed(RateGuard(limit=0.02), coin_rows(seed, n, rate)).fired_at
        assert fired_at is not None
        delays.append(fired_at - healthy + 1)

    assert least <= float(np.median(delays)) <= most


def test_a_long_healthy_life_costs_little() -> None:
    """If this breaks, a version that was good for a month may be bad for a week unseen."""

    def delay(healthy: int) -> float:
        rate = np.where(np.arange(healthy + 4000) < healthy, 0.015, 0.06)
        rows = [coin_rows(seed, healthy + 4000, rate) for seed in range(30)]
        fired = [feed(RateGuard(limit=0.02), r).fired_at for r in rows]
        return float(np.median([at - healthy for at in fired if at is not None]))

    assert delay(100_000) < 2 * delay(2_000)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.booleans(), min_size=1, max_size=300),
    st.lists(st.integers(0, 299), max_size=8),
    st.sampled_from([0.02, 0.2, 0.6]),
)
def test_more_bad_rows_are_never_less_evidence(
    losses: list[bool], worsened: list[int], limit: float
) -> None:
    """If this breaks, a version can hide by failing more."""
    worse = [loss or i in worsened for i, loss in enumerate(losses)]

    left = feed(RateGuard(limit=limit), rows_of(losses))
    right = feed(RateGuard(limit=limit), rows_of(worse))

    if left.fired_at is not None:
        assert right.fired_at is not None and right.fired_at <= left.fired_at
    elif right.fired_at is None:
        assert left.statistic is not None and right.statistic is not None
        assert left.statistic <= right.statistic + 1e-9


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.tuples(st.booleans(), st.integers(-5, 90)), min_size=1, max_size=200),
    st.lists(st.integers(0, 199), max_size=10),
)
def test_packing_changes_no_bit(rows: list[tuple[bool, int]], cuts: list[int]) -> None:
    """If this breaks, live and replayed decisions differ."""
    batch = rows_of([bad for bad, _ in rows])
    batch = batch._replace(time_ms=np.cumsum([1000 * step for _, step in rows]))
    whole, packed, single = (RateGuard(limit=0.2, bucket=16) for _ in range(3))

    expected = feed(whole, batch)

    assert expected == feed(packed, batch, [cut for cut in cuts if cut <= len(rows)])
    assert expected == one_by_one(single, batch)
    assert whole.state() == packed.state() == single.state()


def test_a_rearmed_guard_goes_on_spending_where_it_was() -> None:
    """If this breaks, every rearming buys the whole budget again."""
    guard = RateGuard(limit=0.02)
    feed(guard, coin_rows(1, 3_000, 0.2))
    spent = guard.explain()["restarts"]
    guard.rearm()
    rows = coin_rows(2, 10, 0.0)
    feed(guard, rows._replace(position=rows.position + 3_000))

    assert "quiet" == guard.reading().level
    assert spent + 1 == guard.explain()["restarts"]


def test_its_state_fits_a_kilobyte() -> None:
    """If this breaks, ten thousand guards do not fit where the documents say."""
    guard = RateGuard(limit=0.02)
    feed(guard, coin_rows(3, 100_000, 0.015))

    assert len(msgspec.json.encode(guard.state())) <= 1024


def test_its_interval_holds_the_rate() -> None:
    """If this breaks, a page shows bounds that leave out the truth."""
    guard = RateGuard(limit=0.05)
    feed(guard, coin_rows(4, 20_000, 0.03))
    interval = guard.interval()

    assert interval.lower is not None and interval.upper is not None
    assert 0.024 < interval.lower < 0.03 < interval.upper < 0.036
