"""What holds for every detector with a promise, on rows of any kind; and what the promise rests on.

The contract (`tests/contracts/test_every_detector.py`) asks with worlds; here rows are searched for
that break a property. What is said of one detector alone stands in its own tests.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import detectors
from detectors.base import LOG_CAP, Rows
from detectors.block_evidence import block_gain
from detectors.canary_guard import CanaryGuard, alternatives
from detectors.spending import Buckets, log_mass, restarted
from schemas.plugins import Registry
from tests.detectors.worlds import feed, one_by_one, part, rows_of

REGISTRY = Registry.of(detectors, family="detector")
OURS = [kind for kind in REGISTRY.kinds() if REGISTRY.facts(kind)["guarantee"] != "no"]
GUARDS = [kind for kind in OURS if REGISTRY.facts(kind).get("proves") != "no_worse"]
GROWS = ["rate", "quantile", "mean", "stable_watch", "optimistic_rate", "optimistic_mean"]
"""Kinds of one version whose evidence grows with each loss: bets and alternatives are fixed."""
PARAMETERS: dict[str, Any] = {"limit": 0.3, "quantile": 0.7, "bucket": 16}

every = pytest.mark.parametrize("kind", OURS)
look = settings(max_examples=25, deadline=None)

A_ROW = st.tuples(
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.integers(-5, 90),
    st.booleans(),
    st.sampled_from([0.0, 0.1, 0.5, 1.0, math.nan]),
)
SOME_ROWS = st.lists(A_ROW, min_size=1, max_size=150)
CUTS = st.lists(st.integers(0, 149), max_size=8)


def make(kind: str, **changes: Any) -> Any:
    known = REGISTRY.parameters(kind)
    given_ = {name: value for name, value in PARAMETERS.items() if name in known}
    return REGISTRY.make(kind, **{**given_, **changes})


def is_paired(kind: str) -> bool:
    return REGISTRY.facts(kind)["arms"] == "paired"


def rows_for(kind: str, drawn: list[tuple[float, int, bool, float]]) -> Rows:
    loss, steps, canary, share = (np.array(column) for column in zip(*drawn, strict=True))
    if REGISTRY.facts(kind)["losses"] == "binary":
        loss = np.ceil(loss - 0.25)
    arms: dict[str, Any] = {"canary": canary, "weight": share} if is_paired(kind) else {}
    return rows_of(loss, **arms)._replace(time_ms=np.cumsum(1000 * steps))


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    restored: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))
    return restored


@every
@look
@given(drawn=SOME_ROWS, cuts=CUTS)
def test_packing_changes_no_bit(
    kind: str, drawn: list[tuple[float, int, bool, float]], cuts: list[int]
) -> None:
    """If this breaks, how messages are packed decides when a version is rolled back."""
    rows = rows_for(kind, drawn)
    whole, packed, single = make(kind), make(kind), make(kind)

    expected = feed(whole, rows)

    assert expected == feed(packed, rows, [cut for cut in cuts if cut <= len(drawn)])
    assert expected == one_by_one(single, rows)
    assert whole.state() == packed.state() == single.state()


@every
@look
@given(drawn=SOME_ROWS, cut=st.integers(0, 149))
def test_a_restart_anywhere_changes_nothing(
    kind: str, drawn: list[tuple[float, int, bool, float]], cut: int
) -> None:
    """If this breaks, a crash at the wrong moment loses evidence or invents some."""
    rows = rows_for(kind, drawn)
    straight, stopped, resumed = make(kind), make(kind), make(kind)
    stopped.update(part(rows, 0, cut))

    resumed.restore(through_json(stopped.state()))

    assert feed(straight, rows) == resumed.update(part(rows, cut, len(drawn)))
    assert straight.state() == resumed.state()
    assert straight.interval() == resumed.interval()


@pytest.mark.parametrize("kind", GROWS)
@look
@given(drawn=SOME_ROWS, worse=st.lists(st.integers(0, 149), max_size=6))
def test_more_loss_is_never_less_evidence(
    kind: str, drawn: list[tuple[float, int, bool, float]], worse: list[int]
) -> None:
    """If this breaks, a version can hide by failing more; and late labels could lower evidence."""
    rows = rows_for(kind, drawn)
    more = rows.loss.copy()
    more[[i for i in worse if i < len(more)]] = 1.0

    left, right = feed(make(kind), rows), feed(make(kind), rows._replace(loss=more))

    if left.fired_at is not None:
        assert right.fired_at is not None
        assert right.fired_at <= left.fired_at or kind == "stable_watch"  # which moves on
    elif right.fired_at is None and left.statistic is not None:
        assert right.statistic is not None and left.statistic <= right.statistic + 1e-9


@pytest.mark.parametrize("kind", GUARDS)
@look
@given(drawn=SOME_ROWS, times=st.integers(1, 12))
def test_a_version_without_any_loss_never_alarms(
    kind: str, drawn: list[tuple[float, int, bool, float]], times: int
) -> None:
    """If this breaks, the better version is rolled back, whatever the stable does."""
    rows = rows_for(kind, drawn * times)
    own = np.ones(len(rows.loss), np.bool_) if rows.canary is None else rows.canary
    guard = make(kind, alpha=0.5) if kind != "stable_watch" else make(kind, run_length=100.0)

    reading = feed(guard, rows._replace(loss=np.where(own, 0.0, rows.loss)))

    assert reading.level in ("warming", "quiet", "warning")


@pytest.mark.parametrize("kind", ["rate", "optimistic_rate", "stable_watch"])
@look
@given(drawn=SOME_ROWS)
def test_only_a_bad_row_makes_a_rate_cross(
    kind: str, drawn: list[tuple[float, int, bool, float]]
) -> None:
    """If this breaks, the event that is named as the ground of a rollback was a good one."""
    rows = rows_for(kind, drawn)
    guard = make(kind, run_length=100.0) if kind == "stable_watch" else make(kind, alpha=0.3)

    fired_at = feed(guard, rows).fired_at

    assert fired_at is None or 1.0 == rows.loss[fired_at]


def old(state: dict[str, Any], times: int) -> dict[str, Any]:
    """The state of a detector that has seen so many times the rows, all like these."""

    def grown(value: Any) -> Any:
        if isinstance(value, list):
            return [grown(x) for x in value]
        return value if isinstance(value, bool) or value is None else value * times

    counts = ("counts", "arms", "known", "votes", "sums", "grid", "histogram", "stable", "canary")
    aged = {name: grown(x) if name in counts else x for name, x in state.items()}
    for name in ("rate", "guard"):
        if name in state:
            aged[name] = old(state[name], times)
    if "cohorts" in state:
        aged["cohorts"] = {**state["cohorts"], "count": state["cohorts"]["count"] * times}
    if state["kind"] == "mean":
        aged["open"] = [state["open"][0] * times, *state["open"][1:]]
    if state["kind"] == "stable_watch":
        aged["open"] = [*state["open"][:3], state["open"][3] * times]
    return aged


def mixed(kind: str, seed: int, first: int, bad: float) -> Rows:
    """3,000 rows: the version under judgement is bad at this rate, the stable at .1."""
    rng = np.random.default_rng(seed)
    canary = rng.random(3000) < 0.3
    rate = np.where(canary, bad, 0.1) if is_paired(kind) else bad
    arms: dict[str, Any] = {"canary": canary, "weight": 0.3} if is_paired(kind) else {}
    return rows_of(rng.random(3000) < rate, first=first, **arms)


def numbers_of(detector: Any) -> list[float]:
    reading, interval = detector.reading(), detector.interval()
    told = [reading.statistic, interval.estimate, interval.lower, interval.upper]
    if hasattr(detector, "ratio"):
        ratio = detector.ratio()
        told += [ratio.estimate, ratio.lower, ratio.upper]
    return [number for number in told if number is not None]


@every
def test_a_hundred_million_rows_leave_all_numbers_finite(kind: str) -> None:
    """If this breaks, a version that lives for years is judged by NaN, and NaN is never too much.

    The state of such a life is made from that of a short one; a bad version is found after it.
    """
    proves = kind not in GUARDS
    young = make(kind, bucket=256) if "bucket" in REGISTRY.parameters(kind) else make(kind)
    young.update(mixed(kind, 1, 0, 0.1))
    aged = type(young)(**through_json(young.state())["parameters"])
    aged.restore(old(through_json(young.state()), 33_334))

    numbers: list[float] = []
    for i in range(1, 9):
        aged.update(mixed(kind, 1 + i, 3000 * i, 0.1 if i < 5 else 0.01 if proves else 0.9))
        numbers += numbers_of(aged)
        msgspec.json.encode(aged.state())

    assert all(math.isfinite(number) for number in numbers)
    assert aged.reading().n >= 3e7
    assert "alarm" == aged.reading().level


@every
@pytest.mark.parametrize("loss", [0.0, 1.0])
def test_evidence_stays_within_its_cap(kind: str, loss: float) -> None:
    """If this breaks, evidence overflows to infinity, or sinks so low that it never comes back."""
    budget = next(b for b in ("alpha", "beta", "run_length") if b in REGISTRY.parameters(kind))
    detector = make(kind, **{budget: 1e300 if budget == "run_length" else 1e-300})
    for i in range(20):
        canary = np.arange(5000) % 2 == (0 if kind in GUARDS else 1)
        arms: dict[str, Any] = {"canary": canary, "weight": 0.5} if is_paired(kind) else {}
        rows = rows_of(np.full(5000, loss), first=5000 * i, **arms)
        if is_paired(kind):
            rows = rows._replace(loss=np.where(canary, loss, 0.0))
        reading = detector.update(rows)

    assert reading.statistic is None or math.isfinite(reading.statistic)
    assert (reading.statistic or 0.0) <= LOG_CAP
    msgspec.json.encode(detector.state())


def test_no_mass_in_no_evidence_is_no_number_gone_wrong() -> None:
    """If this breaks, a fresh guard computes NaN from minus infinity twice, and never alarms."""
    with np.errstate(all="raise"):
        joined = restarted(np.full(8, -np.inf), -math.inf)

    assert np.isneginf(joined).all()


def test_restarts_count_from_one_and_a_life_never_spends_more_than_its_budget() -> None:
    """If this breaks, the mass of a start before the first makes every bound twice what it says."""
    buckets = Buckets(1, None)
    buckets.cut(np.arange(100_000))

    spent = float(np.exp(log_mass(1, buckets.count)).sum())

    assert 100_000 == buckets.count
    assert spent < 1 < spent + 1 / (1.0691 * 2 * math.log(2) ** 2)
    assert log_mass(1, 1)[0] == pytest.approx(-math.log(1.0691 * 3 * math.log(3) ** 2))


@settings(max_examples=300, deadline=None)
@given(
    counts=st.tuples(*[st.integers(0, 40)] * 2, *[st.integers(0, 200)] * 2),
    guess=st.floats(1e-4, 0.999),
    margin=st.floats(1.0, 3.0),
)
def test_a_guess_inside_the_null_is_worth_exactly_one(
    counts: tuple[int, int, int, int], guess: float, margin: float
) -> None:
    """If this breaks, a block e-value whose mean may exceed one is counted as evidence."""
    n_canary, bad, n_stable, bad_stable = counts
    block = (n_canary, min(bad, n_canary), n_stable, min(bad_stable, n_stable))
    if not n_canary + n_stable:
        return
    ratios = alternatives(margin)

    gains = block_gain(block, guess, ratios, margin)

    inside = np.minimum(ratios * guess, 0.999) <= margin * guess
    assert (gains[inside] == 0).all() and np.isfinite(gains).all()


def shadow(seed: int, n: int, canary_only: float, stable_only: float) -> Rows:
    """Discordant pairs among mirrored requests: whose answer was the bad one, at a share of half.

    Both arms' rows of a pair that agree tell nothing; of one that differs, the bad row is fed.
    """
    canary = np.random.default_rng(seed).random(n) < canary_only / (canary_only + stable_only)
    return rows_of(np.ones(n), canary=canary, weight=0.5)


def test_the_null_of_shadow_traffic_is_about_pairs_that_differ() -> None:
    """If this breaks, reports promise a bound on a ratio of rates that pairs do not speak of.

    1.5 % of requests are bad in both, .65 % in the canary only, .5 % in the stable only: the rates
    are 1.075 apart, within the margin of 1.15, the pairs that differ are 1.3 apart.
    """
    assert (0.015 + 0.0065) / (0.015 + 0.005) < 1.15
    make_guard: Callable[[], CanaryGuard] = lambda: CanaryGuard(bucket_ms=None)  # noqa: E731

    apart = [feed(make_guard(), shadow(s, 30_000, 0.0065, 0.005)) for s in range(10)]
    at_margin = [feed(make_guard(), shadow(s, 5000, 1.15, 1.0)) for s in range(200)]

    assert 10 == sum(reading.level == "alarm" for reading in apart)
    assert sum(reading.level == "alarm" for reading in at_margin) <= 0.01 * 200 + 3


def test_a_pair_at_a_share_of_half_is_a_rate_of_pairs() -> None:
    """If this breaks, shadow traffic is not judged by the test (a) that its bound is proved for."""
    margin = 1.15
    rows = shadow(1, 1, 1.0, 1.0)._replace(canary=np.array([True]))
    guard = CanaryGuard(margin, bucket=1)
    ratios = alternatives(margin)
    share = ratios / (1 + ratios)  # P(canary's | they differ), given the ratio
    limit = margin / (1 + margin)

    said = guard.update(rows).statistic

    expected = log_mass(1, 1)[0] + math.log(np.mean(share / limit))
    assert expected == pytest.approx(said)
