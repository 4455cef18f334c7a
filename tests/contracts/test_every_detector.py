"""What every detector owes, asked of each that exists: a new file is tested without an edit here.

Parameters that have no default are given by their name (`PARAMETERS`); worlds fit the mark's facts.
"""

from __future__ import annotations

import doctest
import importlib
import math
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
import pytest
from scipy.stats import beta

import detectors
from detectors.base import Detector, InvalidRows, Rows, StateMismatch
from schemas.plugins import Registry
from tests.detectors.worlds import feed, one_by_one, part, rows_of

REGISTRY = Registry.of(detectors, family="detector")
KINDS = REGISTRY.kinds()
PARAMETERS: dict[str, Any] = {"limit": 0.3, "quantile": 0.9}
BUDGETS = {"alpha": (0.1, 0.0001), "beta": (0.1, 0.0001), "run_length": (1e3, 1e9), "delta": (0, 0)}
"""Names of budgets, each with a loose and a strict value."""
BOUNDS = (*BUDGETS, "drift_confidence", "confidence_level", "drift_threshold", "t_0")
"""Names of parameters that bound at least one look, and are never -1, 0 or NaN."""
MOST_STATE_BYTES = 5120
"""Beyond 3,125 of it only where a seeded generator has to be kept."""
MOST_RING_BYTES = 65_536
"""Where predictions are kept by served time for a horizon; it is filled in `test_cohorts.py`."""
MOST_US_PER_ROW = 20.0
SLOW_US_PER_ROW = 100.0
SLOW = frozenset({"kswin", "hddma", "hddmw"})
"""What costs river itself microseconds a row, without batches; docs/detectors.md has the table."""


def is_paired(kind: str) -> bool:
    return REGISTRY.facts(kind)["arms"] == "paired"


def takes_coins(kind: str) -> bool:
    return REGISTRY.facts(kind).get("losses", "value") == "binary"


def promises(kind: str) -> bool:
    return REGISTRY.facts(kind).get("guarantee", "no") != "no"


def proves_health(kind: str) -> bool:
    """Whether `alarm` is good news, so that every world has to be turned round."""
    return REGISTRY.facts(kind).get("proves") == "no_worse"


def rearms_itself(kind: str) -> bool:
    return REGISTRY.facts(kind).get("rearms") == "itself"


def keeps_a_ring(kind: str) -> bool:
    """Whether labels come later, and find their buckets."""
    return REGISTRY.facts(kind).get("labels") == "arrive"


def hears(kind: str) -> bool:
    """Whether losses move it at all; a yardstick for benchmarks is moved by none."""
    return REGISTRY.facts(kind).get("hears") != "nothing"


def restless(kind: str) -> bool:
    """Whether it alarms now and then though nothing changes: only even losses keep it quiet."""
    return REGISTRY.facts(kind).get("restless") == "yes"


def budget_of(kind: str) -> str:
    """The parameter that a promise, or at least a look, is bounded by."""
    return next(name for name in BOUNDS if name in REGISTRY.parameters(kind))


GUARANTEED = [kind for kind in KINDS if promises(kind)]

every_detector = pytest.mark.parametrize("kind", KINDS)
every_hearing = pytest.mark.parametrize("kind", [kind for kind in KINDS if hears(kind)])


def make(kind: str, **changes: Any) -> Any:
    known = REGISTRY.parameters(kind)
    given = {name: value for name, value in PARAMETERS.items() if name in known}
    return REGISTRY.make(kind, **{**given, **changes})


def losses(kind: str, rng: np.random.Generator, n: int, mean: float) -> Any:
    """Losses with about this mean: coins, or values spread around it."""
    if restless(kind):
        return even_losses(kind, n, mean)
    if takes_coins(kind):
        return (rng.random(n) < mean).astype(np.float64)
    return rng.beta(12 * mean, 12 * (1 - mean), n)


def even_losses(kind: str, n: int, mean: float) -> Any:
    """The same without chance: bad rows at even distances, values spread evenly."""
    if takes_coins(kind):
        return np.diff(np.floor(np.arange(n + 1) * mean + 1e-9))
    golden = np.arange(n) * (math.sqrt(5) - 1) / 2 % 1
    quantiles: Any = beta.ppf(golden, 12 * mean, 12 * (1 - mean))
    return quantiles


def world(kind: str, seed: int, *spans: tuple[int, float], first: int = 0) -> Rows:
    """Spans of (rows, mean loss of the version under judgement); the stable stays at 0.1."""
    rng = np.random.default_rng(seed)
    own = np.concatenate([losses(kind, rng, n, mean) for n, mean in spans])
    if not is_paired(kind):
        return rows_of(own, first=first)
    canary = rng.random(len(own)) < 0.3
    stable = losses(kind, rng, len(own), 0.1)
    return rows_of(np.where(canary, own, stable), first=first, canary=canary, weight=0.3)


def telling_world(kind: str, seed: int, first: int = 0) -> Rows:
    """3,000 rows that settle nothing, then 3,000 that must alarm."""
    before, after = (0.13, 0.01) if proves_health(kind) else (0.1, 0.7)
    return world(kind, seed, (3000, before), (3000, after), first=first)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    restored: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(state))
    return restored


@every_hearing
def test_it_catches_what_is_plainly_worse_and_names_the_row(kind: str) -> None:
    """If this breaks, a canary that is plainly worse stays in traffic; one plainly better waits."""
    detector = make(kind)
    rows = telling_world(kind, 1)

    reading = feed(detector, rows)

    assert "alarm" == reading.level
    assert reading.fired_at is not None and 3000 <= reading.fired_at < 6000
    assert int(rows.time_ms[reading.fired_at]) == reading.fired_ms
    if promises(kind):
        assert reading.statistic >= reading.threshold
    else:
        assert (None, None) == (reading.statistic, reading.threshold)


@every_detector
def test_an_alarm_stays_until_it_is_rearmed(kind: str) -> None:
    """If this breaks, an alarm is gone before anyone, or the policy, has looked."""
    detector = make(kind)
    fired = feed(detector, telling_world(kind, 1))

    later = feed(detector, world(kind, 2, (2000, 0.1), (2000, 0.8), first=6000))

    if rearms_itself(kind):
        assert ("alarm", True) == (later.level, later.fired_at >= 8000)
    else:
        assert (fired.level, fired.fired_at, fired.statistic) == (
            later.level,
            later.fired_at,
            later.statistic,
        )
    detector.rearm()
    rearmed = detector.reading()
    assert ("quiet", None, None) == (rearmed.level, rearmed.fired_at, rearmed.fired_ms)
    again = feed(detector, telling_world(kind, 3, first=10_000))
    if not hears(kind):
        return
    assert "alarm" == again.level and again.fired_at is not None and again.fired_at >= 13_000


@every_hearing
def test_it_never_alarms_the_wrong_way(kind: str) -> None:
    """If this breaks, a canary that improves is rolled back, or one that fails is promoted."""
    spans = ((3000, 0.2), (6000, 0.6)) if proves_health(kind) else ((3000, 0.1), (6000, 0.01))
    for seed in range(5):
        reading = feed(make(kind), world(kind, seed, *spans))
        assert reading.level in ("quiet", "warning")


@every_detector
def test_it_does_not_alarm_before_it_has_warmed_up(kind: str) -> None:
    """If this breaks, the first few rows of a new version can take it out of traffic."""
    good, worst = make(kind), make(kind)
    paired = is_paired(kind)
    # What a gate wants to see is a bad row of the stable, not of the canary.
    arms: dict[str, Any] = {"canary": [not proves_health(kind)], "weight": 0.3} if paired else {}
    assert "warming" == good.reading().level

    for i in range(1000):
        if good.update(rows_of([0.0], first=i, **arms)).level != "warming":
            break
        assert "warming" == worst.update(rows_of([1.0], first=i, **arms)).level
    else:
        pytest.fail("still warming after 1000 rows")


@every_detector
def test_the_same_rows_give_the_same_readings(kind: str) -> None:
    """If this breaks, a replay of an incident does not reproduce the decision."""
    rows = world(kind, 4, (2000, 0.1), (500, 0.2), (1000, 0.6))
    left, right = make(kind), make(kind)

    for i in range(0, 3500, 250):
        assert left.update(part(rows, i, i + 250)) == right.update(part(rows, i, i + 250))
    assert left.state() == right.state()


@every_detector
@pytest.mark.parametrize("seed", range(3))
def test_one_batch_equals_many(kind: str, seed: int) -> None:
    """If this breaks, how events are packed decides when a version is rolled back."""
    rng = np.random.default_rng(seed)
    n = 3000
    late = 0.01 if proves_health(kind) else 0.6
    rows = world(kind, seed, (1200, 0.1), (1200, 0.1 if late < 0.1 else 0.35), (600, late))
    # Uneven and unsorted event times, so that buckets end by rows and by time.
    steps = rng.integers(-200, 3000, n) * rng.choice([0, 1, 30], n)
    rows = rows._replace(time_ms=1_700_000_000_000 + np.cumsum(steps))
    if rows.canary is not None:
        share = np.where(rng.random(n) < 0.4, np.nan, rng.uniform(0.2, 0.4, n))
        rows = rows._replace(weight=share)
    whole, packed, single = make(kind), make(kind), make(kind)

    expected = feed(whole, rows)

    assert expected == feed(packed, rows, rng.integers(0, n, 40).tolist())
    assert expected == one_by_one(single, rows)
    assert whole.state() == packed.state() == single.state()


@every_detector
def test_saving_and_restoring_changes_nothing(kind: str) -> None:
    """If this breaks, a restart loses evidence or invents some."""
    late = 0.01 if proves_health(kind) else 0.6
    rows = world(kind, 5, (700, 0.1), (500, 0.1 if late < 0.1 else 0.2), (1500, late), (300, 0.1))
    straight, stopped = make(kind), make(kind)

    for i in range(0, 3000, 100):
        batch = part(rows, i, i + 100)
        expected = straight.update(batch)
        restored = make(kind)
        restored.restore(through_json(stopped.state()))
        assert stopped.reading() == restored.reading()
        assert expected == restored.update(batch)
        assert straight.interval() == restored.interval()
        stopped = restored
    assert straight.state() == stopped.state()
    if hears(kind):
        assert "alarm" == stopped.reading().level


@every_detector
@pytest.mark.parametrize("change", ["kind", "version", "parameters", "last"])
def test_a_foreign_or_damaged_state_is_refused_and_leaves_it_fresh(kind: str, change: str) -> None:
    """If this breaks, an upgrade or a changed limit goes on with evidence for another question."""
    detector = make(kind)
    feed(detector, world(kind, 6, (500, 0.1)))
    state = through_json(detector.state())
    if change == "last":
        state = {name: value for name, value in state.items() if name in ("kind", "version")} | {
            "parameters": state["parameters"]
        }
    else:
        state[change] = {"kind": "other", "version": 0, "parameters": {}}[change]

    with pytest.raises(StateMismatch, match="start afresh"):
        detector.restore(state)
    assert make(kind).state() == detector.state()


@every_detector
def test_memory_is_bounded(kind: str) -> None:
    """If this breaks, a long-lived version fills the state store."""
    detector = make(kind)
    sizes = []
    for i in range(10):
        feed(detector, world(kind, i, (10_000, 0.1), first=10_000 * i))
        sizes.append(len(msgspec.json.encode(detector.state())))
    assert sizes[-1] <= (MOST_RING_BYTES if keeps_a_ring(kind) else MOST_STATE_BYTES)
    assert sizes[-1] <= 1.2 * sizes[4] or keeps_a_ring(kind)


@every_detector
@pytest.mark.parametrize("loss", ["good", "bad", "huge", "tiny", "mixed"])
def test_no_number_is_nan_or_infinite(kind: str, loss: str) -> None:
    """If this breaks, a page or a comparison shows NaN, and NaN is never above a limit."""
    n = 5000
    binary = takes_coins(kind)
    ends = (0.0, 1.0) if binary else (-1e12, 1e12)
    values = {
        "good": np.zeros(n),
        "bad": np.ones(n),
        "huge": np.full(n, ends[1]),
        "tiny": np.full(n, ends[0]),
        "mixed": np.where(np.arange(n) % 3 == 0, *ends),
    }[loss]
    detector = make(kind)
    numbers: list[float | None] = []

    for i in range(0, n, 500):
        if is_paired(kind):
            share = np.where(np.arange(500) % 7 == 0, [0.0, 1.0] * 250, 0.5)
            batch = rows_of(values[:500], first=i, canary=np.arange(500) % 2 == 0, weight=share)
            ratio = detector.ratio()
            numbers += [ratio.lower, ratio.upper, ratio.estimate]
        else:
            batch = rows_of(values[i : i + 500], first=i)
        reading, interval = detector.update(batch), detector.interval()
        numbers += [reading.statistic, interval.estimate, interval.lower, interval.upper]
        msgspec.json.encode(detector.state())

    assert all(number is None or math.isfinite(number) for number in numbers)


@every_detector
def test_an_empty_batch_changes_nothing(kind: str) -> None:
    """If this breaks, a tick that only moves time counts as evidence."""
    detector = make(kind)
    paired = is_paired(kind)
    empty = rows_of([], canary=[] if paired else None)
    before = detector.state()

    assert detector.reading() == detector.update(empty)
    assert before == detector.state()
    feed(detector, world(kind, 7, (300, 0.1)))
    before = detector.state()
    detector.update(empty)
    assert before == detector.state()


@every_detector
def test_rows_that_break_their_contract_are_refused_untouched(kind: str) -> None:
    """If this breaks, a repeated or broken batch is counted as new evidence."""
    detector = make(kind)
    rows = world(kind, 8, (200, 0.1))
    detector.update(rows)
    before = detector.state()
    fresh = world(kind, 8, (200, 0.1), first=200)
    nan = fresh.loss.copy()
    nan[7] = np.nan
    wrong_arms = None if fresh.canary is not None else np.zeros(200, dtype=np.bool_)

    for bad in (
        rows,
        fresh._replace(position=fresh.position[::-1].copy()),
        fresh._replace(loss=nan),
        fresh._replace(loss=fresh.loss[:5]),
        fresh._replace(canary=wrong_arms),
        fresh._replace(weight=np.full(200, 1.5)),
    ):
        with pytest.raises(InvalidRows):
            detector.update(bad)
        assert before == detector.state()


@every_detector
def test_it_says_what_an_alarm_proves(kind: str) -> None:
    """If this breaks, a report claims a guarantee that the detector does not have."""
    said = make(kind).explain()

    expected = promises(kind)
    assert expected is said["guarantee"]
    assert isinstance(said["h0"], str) and said["h0"]
    if expected:
        budget = budget_of(kind)
        assert getattr(make(kind), budget) == said[budget]
    else:
        assert "no false-alarm guarantee" in said["h0"]


@pytest.mark.parametrize("kind", GUARANTEED)
def test_a_smaller_budget_needs_more_evidence(kind: str) -> None:
    """If this breaks, alpha in the policy does nothing."""
    rows = world(kind, 9, (1000, 0.1), (3000, 0.01 if proves_health(kind) else 0.5))
    budget = budget_of(kind)
    loose, strict = (make(kind, **{budget: value}) for value in BUDGETS[budget])

    def first(detector: Any) -> int:
        for i in range(0, 4000, 20):
            if (fired_at := detector.update(part(rows, i, i + 20)).fired_at) is not None:
                return int(fired_at)
        return 4000

    assert first(loose) < first(strict) < 4000
    assert loose.reading().threshold < strict.reading().threshold


@every_detector
def test_a_row_costs_little(kind: str) -> None:
    """If this breaks, watching falls behind the events; the limit allows for slow machines."""
    detector = make(kind)
    rows = world(kind, 10, (20_000, 0.1))
    batches = [part(rows, i, i + 200) for i in range(0, 20_000, 200)]

    started = perf_counter()
    for batch in batches:
        detector.update(batch)
    us_per_row = (perf_counter() - started) / 20_000 * 1e6

    assert us_per_row < (SLOW_US_PER_ROW if kind in SLOW else MOST_US_PER_ROW)


@every_detector
def test_its_parameters_and_paper_are_told_and_its_example_runs(kind: str) -> None:
    """If this breaks, a reader cannot tell what a detector does, or is told wrong."""
    cls = REGISTRY.class_of(kind)
    text = cls.__doc__ or ""

    assert all(f"{name}" in text for name in REGISTRY.parameters(kind))
    assert all(f"{section}\n    ---" in text for section in ("Parameters", "Raises", "References"))
    assert ">>>" in text
    module = importlib.import_module(cls.__module__)
    assert module.__doc__
    results = doctest.testmod(module)
    assert (0, True) == (results.failed, results.attempted > 0)


@pytest.mark.parametrize("kind", [k for k in KINDS if set(REGISTRY.parameters(k)) & set(BOUNDS)])
@pytest.mark.parametrize("wrong", [0.0, 1.0, -1.0, float("nan")])
def test_parameters_out_of_range_are_refused_by_name(kind: str, wrong: float) -> None:
    """If this breaks, a typing error in a policy gives a guard that never, or always, alarms."""
    name = budget_of(kind)
    if wrong == 1.0 and kind in ("page_hinkley", "ddm", "dummy"):
        wrong = -1.0  # 1 is in range: nothing is forgotten, one deviation, each row

    with pytest.raises(ValueError, match=name):
        make(kind, **{name: wrong})


def test_the_shipped_kinds_are_there() -> None:
    """If this breaks, a policy that names a shipped detector is refused."""
    shipped = {"rate", "canary", "mean", "quantile", "quantile_canary", "adwin", "page_hinkley",
               "promote", "stable_watch", "kswin", "ddm", "eddm", "fhddm", "hddma", "hddmw",
               "dummy", "no_drift", "optimistic_rate", "optimistic_mean"}  # fmt: skip

    assert shipped <= set(KINDS)


def _is_detector(detector: Detector) -> Detector:
    return detector


@every_detector
def test_it_has_the_shape_of_a_detector(kind: str) -> None:
    """If this breaks, watch cannot hold it."""
    detector = _is_detector(make(kind))
    expected = {"update", "reading", "interval", "rearm", "state", "restore", "explain"}
    if is_paired(kind):
        expected |= {"ratio"}

    assert expected == {name for name in expected if callable(getattr(detector, name, None))}
