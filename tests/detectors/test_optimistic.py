"""Optimistic labels: never more evidence than the final labels give, and the same in the end."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.base import InvalidRows, Rows
from detectors.mean_guard import MeanGuard
from detectors.optimistic import Labels
from detectors.optimistic_mean import OptimisticMean
from detectors.optimistic_rate import OptimisticRate
from detectors.rate_guard import RateGuard
from detectors.spending import Buckets
from tests.detectors.late import START_MS, Late

NEVER = 1e-300
"""An alpha that no stream here reaches: evidence can be compared to the end."""
HORIZON_MS = 400_000

KINDS: list[tuple[Any, Any, dict[str, Any]]] = [
    (OptimisticRate, RateGuard, {"limit": 0.1}),
    (OptimisticMean, MeanGuard, {"limit": 0.2}),
]

delays = st.one_of(st.just(float("nan")), st.floats(0, HORIZON_MS), st.just(0.0))
values = st.lists(st.tuples(st.sampled_from([0.0, 0.0, 0.0, 0.5, 1.0]), delays), max_size=150)


def binary(cls: Any, loss: Any) -> Any:
    return np.ceil(loss) if cls is OptimisticRate else np.asarray(loss)


def oracle(judge: Any, loss: Any, bucket: int) -> Any:
    """Log evidence of the final labels after each prediction, -inf before the first."""
    said = [-np.inf]
    for i, x in enumerate(loss):
        when = np.array([START_MS + 1000 * i])
        said.append(judge.update(Rows(np.array([x]), np.array([i]), when)).statistic)
    return np.array(said)


def ends_of(n: int, bucket: int) -> Any:
    """How many predictions there are at the end of each bucket, and now."""
    starts = Buckets(bucket, None).cut(START_MS + 1000 * np.arange(n))
    return [*starts[1:].tolist(), n]


@pytest.mark.parametrize(("cls", "final", "given_"), KINDS)
@settings(max_examples=60, deadline=None)
@given(rows=values, bucket=st.sampled_from([1, 4, 32]))
def test_evidence_is_never_above_that_of_the_final_labels_and_the_same_in_the_end(
    cls: Any, final: Any, given_: Any, rows: list[tuple[float, float]], bucket: int
) -> None:
    """If this breaks, labels that come early or never make a good version look bad."""
    loss = binary(cls, [x for x, _ in rows])
    late = Late(loss, [delay for _, delay in rows])
    shape = {**given_, "alpha": NEVER, "bucket": bucket, "bucket_ms": None}
    optimistic = cls(horizon_ms=HORIZON_MS, **shape)
    truth = oracle(final(**shape), loss, bucket)

    served = 0
    for i in range(len(late)):
        served += not late.is_label[i]
        statistic = late.feed(optimistic, i, i + 1).statistic
        assert statistic <= truth[: served + 1].max() + 1e-9
    rest = np.flatnonzero(np.isnan(late.delay_ms))
    position = np.arange(len(rest)) + len(late)
    ms = late.served_ms[rest]
    optimistic.arrive(Labels(loss[rest], position, ms + HORIZON_MS, ms))

    if len(loss):
        expected = max(truth[end] for end in ends_of(len(loss), bucket))
        assert expected == pytest.approx(optimistic.reading().statistic, abs=1e-9)


@pytest.mark.parametrize(("cls", "final", "given_"), KINDS)
@settings(max_examples=40, deadline=None)
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([0.0, 1.0]), delays, st.integers(-40_000, 0)), max_size=120
    ),
    cuts=st.lists(st.integers(0, 120), max_size=12),
)
def test_packing_changes_no_bit(
    cls: Any, final: Any, given_: Any, rows: list[tuple[float, float, int]], cuts: list[int]
) -> None:
    """If this breaks, how messages are packed decides when a version is rolled back."""
    served_ms = START_MS + 1000 * np.arange(len(rows)) + np.array([back for _, _, back in rows])
    late = Late([x for x, _, _ in rows], [d for _, d, _ in rows], served_ms=served_ms)
    shape = {**given_, "alpha": 0.05, "bucket": 8}
    whole, packed, single = (cls(horizon_ms=HORIZON_MS, **shape) for _ in range(3))

    expected = late.feed(whole)

    assert expected == late.packed(packed, [cut for cut in cuts if cut < len(late)])
    assert expected == late.packed(single, range(1, len(late)))
    assert whole.state() == packed.state() == single.state()


@pytest.mark.parametrize(("cls", "final", "given_"), KINDS)
def test_saving_and_restoring_changes_nothing(cls: Any, final: Any, given_: Any) -> None:
    """If this breaks, a restart forgets the predictions that still wait for their labels."""
    rng = np.random.default_rng(1)
    rate = np.where(np.arange(3000) < 2000, 0.05, 0.6)
    late = Late(rng.random(3000) < rate, rng.exponential(60_000, 3000))
    straight, stopped = (cls(horizon_ms=HORIZON_MS, **given_) for _ in range(2))

    for first in range(0, len(late), 100):
        expected = late.feed(straight, first, min(first + 100, len(late)))
        restored = cls(horizon_ms=HORIZON_MS, **given_)
        restored.restore(msgspec.json.decode(msgspec.json.encode(stopped.state())))
        assert stopped.reading() == restored.reading()
        assert expected == late.feed(restored, first, min(first + 100, len(late)))
        stopped = restored
    assert straight.state() == stopped.state()
    assert "alarm" == expected.level


@pytest.mark.parametrize(("cls", "final", "given_"), KINDS)
def test_quick_bad_labels_accuse_no_good_version(cls: Any, final: Any, given_: Any) -> None:
    """If this breaks, the pilot's 100 % false rollbacks are back: bad labels come ten times sooner.

    On arrival the rate of bad labels is far above the limit; the final rate is just within it.
    """
    limit, alarms, on_arrival = given_["limit"], 0, 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        bad = rng.random(6000) < limit
        delay = rng.exponential(np.where(bad, 500_000, 5_000_000))
        late = Late(bad, np.where(delay > 2_500_000, np.nan, delay))
        seen = late.is_label
        naive = RateGuard(limit)
        arrived = bad[late.index[seen]].astype(np.float64)
        order = np.arange(len(arrived))
        on_arrival += naive.update(Rows(arrived, order, START_MS + order)).level == "alarm"
        guard = cls(horizon_ms=2_500_000, alpha=0.05, **given_)
        alarms += late.only_bad().feed_by(guard, 500).level == "alarm"

    assert 40 == on_arrival
    assert alarms <= 3  # of 40 at alpha .05: the chance of four or more is at most .14


def test_it_is_sooner_than_matured_labels_and_never_slower() -> None:
    """If this breaks, a bad version serves a whole horizon although its labels were there."""
    took, waited = [], []
    for seed in range(12):
        rng = np.random.default_rng(seed)
        bad = rng.random(12_000) < 0.10
        delay = rng.exponential(2_000_000, 12_000)
        horizon_ms = 6_000_000
        late = Late(bad, np.where(delay > horizon_ms, np.nan, delay)).only_bad()
        guard = OptimisticRate(limit=0.05, horizon_ms=horizon_ms, bucket_ms=None)
        fired = late.feed_by(guard, 50).fired_ms
        by_then = bad & (delay <= horizon_ms)
        matured = RateGuard(0.05, bucket_ms=None)
        position = np.arange(12_000)
        at = matured.update(Rows(by_then.astype(float), position, late.served_ms)).fired_ms
        assert fired is not None and at is not None
        took.append(fired)
        waited.append(at + horizon_ms)

    assert all(mine <= matured for mine, matured in zip(took, waited, strict=True))
    assert np.median(took) <= START_MS + 0.75 * (np.median(waited) - START_MS)


def test_a_label_beyond_the_horizon_or_of_a_forgotten_prediction_counts_for_nothing() -> None:
    """If this breaks, optimistic and matured judge different things, and cost alpha twice."""
    guard = OptimisticRate(limit=0.05, horizon_ms=10_000)
    when = START_MS + 100 * np.arange(200)
    guard.update(Rows(np.zeros(200), np.arange(200), when))
    before = guard.reading().statistic
    late = Labels(np.ones(100), 200 + np.arange(100), when[:100] + 10_001, when[:100])
    older = Labels(np.ones(100), 300 + np.arange(100), when[:100], when[:100] - 20_000)

    guard.arrive(late)
    guard.arrive(older)

    assert before == guard.reading().statistic
    assert guard.arrive(late._replace(position=late.position + 200, time_ms=when[:100])).fired_at


def test_no_bucket_has_more_bad_labels_than_predictions() -> None:
    """If this breaks, labels of predictions that were never counted make up evidence."""
    guard = OptimisticRate(limit=0.3, alpha=1e-6, bucket_ms=None)
    when = START_MS + np.arange(3)
    guard.update(Rows(np.zeros(3), np.arange(3), when))

    for i in range(50):
        guard.arrive(Labels(np.ones(3), 3 + 3 * i + np.arange(3), when + 5, when))

    assert guard.reading().fired_at is None
    assert 1.0 == guard.interval().estimate


def test_no_upper_bound_is_claimed_while_labels_may_come() -> None:
    """If this breaks, a version passes on labels that have not come yet."""
    rng = np.random.default_rng(3)
    late = Late(rng.random(4000) < 0.2, 1000.0)
    rate, mean = OptimisticRate(limit=0.9), OptimisticMean(limit=9.0, cap=10.0)
    late.feed(rate)
    late.feed(mean)

    for interval in (rate.interval(), mean.interval()):
        assert interval.upper is None and interval.lower is not None
        assert interval.lower < 0.2 == pytest.approx(interval.estimate, rel=0.1)
    assert 0.15 < rate.interval().lower  # type: ignore[operator]


def test_labels_that_break_their_contract_are_refused_untouched() -> None:
    """If this breaks, a label that is said twice is counted twice."""
    guard = OptimisticRate(limit=0.05)
    when = START_MS + np.arange(10)
    guard.update(Rows(np.zeros(10), np.arange(10), when))
    labels = Labels(np.ones(5), 10 + np.arange(5), when[:5] + 5, when[:5])
    guard.arrive(labels)
    before = guard.state()

    for bad in (
        labels,
        labels._replace(position=labels.position + 10, served_ms=when[:3]),
        labels._replace(position=labels.position + 10, loss=np.full(5, 0.5)),
        labels._replace(position=labels.position[::-1] + 10),
    ):
        with pytest.raises(InvalidRows):
            guard.arrive(bad)
        assert before == guard.state()
