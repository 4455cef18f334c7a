"""The detectors of river: its own decisions, one-sided, latched and restorable."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from river import drift
from river.drift import binary

import detectors.river_latch
from detectors.adwin import Adwin
from detectors.base import InvalidRows, StateMismatch
from detectors.ddm import Ddm
from detectors.dummy import Dummy
from detectors.eddm import Eddm
from detectors.fhddm import Fhddm
from detectors.hddma import Hddma
from detectors.hddmw import Hddmw
from detectors.kswin import Kswin, least_shift
from detectors.no_drift import NoDrift
from detectors.page_hinkley import PageHinkley
from tests.detectors.worlds import coin_rows, feed, part, rows_of

KINDS: list[Any] = [Adwin, PageHinkley, Kswin, Ddm, Eddm, Fhddm, Hddma, Hddmw, Dummy, NoDrift]
BINARY = [Ddm, Eddm, Fhddm, Hddma, Hddmw]
SIDED = [Adwin, PageHinkley]
UP = np.where(np.arange(8_000) < 4_000, 0.1, 0.4)
CLIFF = np.where(np.arange(8_000) < 4_000, 0.1, 0.9)

RIVERS: list[tuple[Any, Callable[[], Any]]] = [
    (Adwin, drift.ADWIN),
    (PageHinkley, lambda: drift.PageHinkley(mode="up")),
    (Ddm, binary.DDM),
    (Eddm, binary.EDDM),
    (Hddma, binary.HDDMA),
    (Hddmw, binary.HDDMW),
    (Dummy, lambda: drift.DummyDriftDetector(seed=0)),
    (NoDrift, drift.NoDrift),  # type: ignore[list-item]
]


def flags(river: Any, losses: Any) -> list[int]:
    """The rows at which river itself raises its flag."""
    found = []
    for index, loss in enumerate(losses.tolist()):
        river.update(loss)
        if river.drift_detected:
            found.append(index)
    return found


def our_flags(detector: Any, losses: Any) -> list[int]:
    """The rows at which ours does, rearmed after each."""
    found = []
    for index, loss in enumerate(losses.tolist()):
        if detector.update(rows_of([loss], first=index)).fired_at is not None:
            found.append(index)
            detector.rearm()
    return found


@pytest.mark.parametrize(("cls", "river"), RIVERS)
@pytest.mark.parametrize("seed", range(3))
def test_they_fire_on_the_rows_on_which_river_fires(cls: Any, river: Any, seed: int) -> None:
    """If this breaks, the adapter misses flags, which river shows for one row only."""
    rows = coin_rows(seed, 8_000, CLIFF)

    expected = flags(river(), rows.loss)
    fired_at = feed(cls(), rows, [5_000]).fired_at
    assert fired_at == (expected[0] if expected else None)
    # ADWIN and Page-Hinkley also flag what got better afterwards, if anything did.
    assert expected == our_flags(cls(side="both") if cls is Adwin else cls(), rows.loss)
    assert bool(expected) == (cls is not NoDrift)


@pytest.mark.parametrize("size", [(100, 30), (60, 30), (200, 20), (40, 7)])
@pytest.mark.parametrize("kind", ["normal", "coins", "few_values"])
def test_kswin_decides_as_river_does_without_asking_for_a_p_value(
    size: tuple[int, int], kind: str
) -> None:
    """If this breaks, looking the p-value up has changed what `kswin` sees."""
    rng = np.random.default_rng(7)
    late = np.where(np.arange(1_500) < 900, 0.0, 1.0)
    losses = {
        "normal": rng.normal(late, 1.0),
        "coins": (rng.random(1_500) < 0.2 + 0.5 * late) * 1.0,
        "few_values": rng.integers(0, 4, 1_500) + 2.0 * late,
    }[kind]
    window, stat = size
    river = drift.KSWIN(alpha=0.02, window_size=window, stat_size=stat, seed=3)
    ours = Kswin(alpha=0.02, window_size=window, stat_size=stat, seed=3, side="both")

    expected = flags(river, losses)

    assert expected and expected == our_flags(ours, losses)


def test_another_seed_draws_other_rows_and_one_seed_always_the_same() -> None:
    """If this breaks, a replay of a kswin guard warns elsewhere than the daemon did."""
    losses = np.random.default_rng(1).normal(0, 1, 6_000)
    found = [our_flags(Kswin(alpha=0.02, seed=s, side="both"), losses) for s in (1, 1, 2)]

    assert found[0] == found[1] != found[2]


def test_the_least_distance_that_alarms_is_the_one_of_the_p_value() -> None:
    """If this breaks, `kswin` alarms on less, or on nothing."""
    # p of 13 of 30 ranks apart is .0065, of 14 it is .0025.
    assert (14, 13, 4) == (least_shift(30, 0.005), least_shift(30, 0.01), least_shift(30, 0.99))
    with pytest.raises(ValueError, match="stat_size 3 can never alarm"):
        Kswin(stat_size=3)


@pytest.mark.parametrize("cls", SIDED)
def test_only_the_guarded_side_raises_the_flag(cls: Any) -> None:
    """If this breaks, a canary that improves is reported as drifting for the worse."""
    rows, better = coin_rows(1, 8_000, UP), coin_rows(2, 8_000, 0.5 - UP)
    both = coin_rows(3, 12_000, np.concatenate([0.5 - UP, np.full(4_000, 0.5)]))

    assert "alarm" == feed(cls(), rows).level
    assert "quiet" == feed(cls(side="down"), rows).level
    assert "quiet" == feed(cls(), better).level
    assert "alarm" == feed(cls(side="down"), better).level
    assert "alarm" == feed(cls(side="both"), better).level
    fired_at = feed(cls(), both).fired_at
    assert fired_at is not None and fired_at >= 8_000


def test_kswin_tells_the_side_by_the_means_and_both_sees_the_shape() -> None:
    """If this breaks, a canary whose latency falls is warned about, or a change of shape is not."""
    even = np.tile([-0.1, 0.1], 500)

    for shift in (1.0, -1.0):
        losses = np.concatenate([even, even + shift])
        worse = our_flags(Kswin(side="up"), losses)
        better = our_flags(Kswin(side="down"), losses)
        assert (shift > 0, shift < 0) == (bool(worse), bool(better))
    wider = np.concatenate([even, np.tile([-3.0, 3.0], 500)])
    assert our_flags(Kswin(side="both"), wider)


@pytest.mark.parametrize("cls", [Fhddm, Hddma, Hddmw])
@pytest.mark.parametrize("seed", range(5))
def test_a_collapse_alarms_and_a_recovery_does_not(cls: Any, seed: int) -> None:
    """If this breaks, bad rows are taken for good ones, as the manual of FHDDM has it."""
    worse, better = coin_rows(seed, 8_000, CLIFF), coin_rows(seed, 8_000, 1 - CLIFF)

    assert 4_000 <= (feed(cls(), worse).fired_at or 0) < 4_100
    assert feed(cls(), better).fired_at is None


@pytest.mark.parametrize("cls", [Ddm, Eddm])
def test_errors_that_become_rarer_never_alarm(cls: Any) -> None:
    """If this breaks, a version that learns is reported; errors are even, so chance has no part."""
    rates = (0.5, 0.2, 0.1, 0.02)
    losses = np.concatenate([np.diff(np.floor(np.arange(2_001) * r + 1e-9)) for r in rates])

    assert feed(cls(), rows_of(losses)).fired_at is None
    assert feed(cls(), rows_of(np.concatenate([losses, losses]))).fired_at is not None


def test_fhddm_fed_as_its_manual_says_is_deaf() -> None:
    """If this breaks, river has mended its direction, and 1 - x must go from `fhddm.py`."""
    losses = coin_rows(1, 8_000, CLIFF).loss

    fed_as_documented = flags(binary.FHDDM(), losses)
    fed_good_rows = flags(binary.FHDDM(), 1 - losses)

    assert [] == [row for row in fed_as_documented if row < 4_100]
    assert 4_000 <= fed_good_rows[0] < 4_100 and fed_good_rows == our_flags(Fhddm(), losses)


def test_the_short_window_of_fhddm_is_sooner() -> None:
    """If this breaks, `short_window_size` is accepted and does nothing."""
    rows = coin_rows(1, 8_000, CLIFF)

    short, long = feed(Fhddm(short_window_size=20), rows), feed(Fhddm(), rows)

    assert 4_000 <= (short.fired_at or 0) < (long.fired_at or 0)


@pytest.mark.parametrize("good", [40, 400, 4_000])
def test_the_first_error_of_ddm_is_no_alarm(good: int) -> None:
    """If this breaks, a version without errors is accused by its first one."""
    detector, river = Ddm(), binary.DDM()
    losses = np.zeros(good + 1)
    losses[-1] = 1

    assert [good] == flags(river, losses)
    assert feed(detector, rows_of(losses)).fired_at is None
    again = detector.update(rows_of(np.ones(20), first=good + 1))
    assert "alarm" == again.level


@pytest.mark.parametrize(("cls", "jump"), [(Hddmw, 0.42), (Fhddm, 0.26)])
def test_the_blind_ones_do_not_see_a_fivefold_rate_and_say_so(cls: Any, jump: float) -> None:
    """If this breaks, a user takes silence for health; 2 % to 10 % is a disaster elsewhere."""
    rows = coin_rows(1, 12_000, np.where(np.arange(12_000) < 4_000, 0.02, 0.10))
    detector = cls()

    assert feed(detector, rows).fired_at is None
    assert jump == pytest.approx(detector.jump, abs=0.005)
    assert f"less than {jump:.2f}" in detector.explain()["beware"]


@pytest.mark.parametrize("cls", [Ddm, Eddm, Hddma, Hddmw])
def test_a_warning_zone_is_read_as_a_warning_and_ends(cls: Any) -> None:
    """If this breaks, the parameters of river's warnings do nothing."""
    losses = coin_rows(2, 9_000, np.concatenate([UP - 0.05, np.full(1_000, 0.9)])).loss
    detector, levels = cls(), []

    for index, loss in enumerate(losses.tolist()):
        levels.append(detector.update(rows_of([loss], first=index)).level)
        if levels[-1] == "alarm":
            detector.rearm()

    warned = levels.index("warning")
    assert "quiet" in levels[:warned] and "quiet" in levels[warned:]


@pytest.mark.parametrize("cls", BINARY)
def test_the_binary_ones_refuse_anything_but_coins(cls: Any) -> None:
    """If this breaks, EDDM counts a half as a good row and says nothing."""
    with pytest.raises(InvalidRows, match=r"0 .good. or 1 .bad."):
        cls().update(rows_of([0.0, 0.5]))


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("cut", [1, 99, 700, 4_050])
def test_a_restored_river_goes_on_identically(cls: Any, seed: int, cut: int) -> None:
    """If this breaks, a restart moves or loses a drift warning."""
    rows = coin_rows(seed, 12_000, np.concatenate([UP, np.full(4_000, 0.9)]))
    straight, stopped = cls(), cls()
    feed(straight, part(rows, 0, cut))
    stopped.restore(msgspec.json.decode(msgspec.json.encode(straight.state())))

    for i in range(cut, 12_000, 100):
        assert straight.update(part(rows, i, i + 100)) == stopped.update(part(rows, i, i + 100))
        if straight.reading().level == "alarm":
            straight.rearm()
            stopped.rearm()
    assert straight.state() == stopped.state()


@pytest.mark.parametrize("w", [0, 50])
@pytest.mark.parametrize("method", ["fixed", "random"])
def test_a_restored_dummy_draws_what_it_would_have_drawn(method: Any, w: int) -> None:
    """If this breaks, a benchmark that is resumed has another yardstick."""
    if method == "random" and not w:
        return
    straight = Dummy(method, t_0=100, w=w, seed=5)
    feed(straight, rows_of(np.zeros(333)))
    straight.rearm()
    stopped = Dummy(method, t_0=100, w=w, seed=5)
    stopped.restore(msgspec.json.decode(msgspec.json.encode(straight.state())))
    river = drift.DummyDriftDetector(method, t_0=100, w=w, seed=5)
    expected = [row for row in flags(river, np.zeros(1_333)) if row >= 333]

    for detector in (straight, stopped):
        found = []
        for row in range(333, 1_333):
            if detector.update(rows_of([0.0], first=row)).fired_at is not None:
                found.append(row)
                detector.rearm()
        assert expected == found


@pytest.mark.parametrize("cls", [kind for kind in KINDS if kind is not NoDrift])
def test_a_flag_right_before_the_snapshot_is_part_of_it(cls: Any) -> None:
    """If this breaks, river does not reset after a restore, and goes on with the old window."""
    rows = coin_rows(1, 8_000, CLIFF)
    fired_at = feed(cls(), rows).fired_at
    straight, stopped = cls(), cls()
    feed(straight, part(rows, 0, fired_at + 1))
    stopped.restore(straight.state())

    feed(straight, part(rows, fired_at + 1, 8_000))
    feed(stopped, part(rows, fired_at + 1, 8_000))
    assert straight.state() == stopped.state()


@pytest.mark.parametrize("cls", KINDS)
def test_state_of_another_river_is_refused(cls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, an upgrade of river reads old bytes in a new layout."""
    detector = cls()
    feed(detector, coin_rows(1, 500, 0.1))
    state = detector.state()
    monkeypatch.setattr(detectors.river_latch, "river_version", "0.27.0")

    with pytest.raises(StateMismatch, match=r"river 0\.26.*installed is 0\.27\.0"):
        detector.restore(state)
    assert 0 == detector.reading().n


def test_damaged_bytes_never_reach_the_extension() -> None:
    """If this breaks, one flipped bit in storage panics inside Rust and stops the daemon."""
    detector = Adwin()
    feed(detector, coin_rows(1, 500, 0.1))
    state = detector.state()
    state["river"][1][0] = state["river"][1][0][:-8] + "AAAAAAA="

    with pytest.raises(StateMismatch, match="checksum differs"):
        detector.restore(state)
    assert 0 == detector.reading().n
    feed(detector, rows_of([0.0, 1.0]))


@pytest.mark.parametrize(
    ("cls", "damage"),
    [(Ddm, {"_p.n": "x"}), (Eddm, {"foreign": 1}), (Kswin, {"draws": "0"}), (Dummy, {"draws": ""}),
     (Fhddm, {"window": 7}), (Hddmw, {"means": {}})],
)  # fmt: skip
def test_damaged_numbers_are_refused_and_leave_it_fresh(cls: Any, damage: Any) -> None:
    """If this breaks, a damaged checkpoint fails at some later row, inside river."""
    detector = cls()
    feed(detector, coin_rows(1, 500, 0.1))
    state = detector.state()
    state["river"][1] |= damage

    with pytest.raises(StateMismatch, match="damaged"):
        detector.restore(state)
    assert cls().state() == detector.state()


@pytest.mark.parametrize("cls", [kind for kind in KINDS if kind is not NoDrift])
def test_the_flag_can_be_read_as_a_warning(cls: Any) -> None:
    """If this breaks, a drift hint cannot be kept from acting like an alarm."""
    reading = feed(cls(level="warning"), coin_rows(1, 8_000, CLIFF))

    assert "warning" == reading.level and reading.fired_at is not None


@pytest.mark.parametrize(
    ("cls", "changes", "words"),
    [
        (Adwin, {"side": "worse"}, "side must be"),
        (Adwin, {"level": "quiet"}, "level must be"),
        (Adwin, {"clock": 0}, "clock must be at least 1"),
        (Adwin, {"grace_period": 2.5}, "grace_period must be a whole number"),
        (Adwin, {"delta": "small"}, "delta must be a finite number, got 'small'"),
        (PageHinkley, {"alpha": 1.5}, "alpha must lie above 0 and up to 1"),
        (PageHinkley, {"min_instances": 0}, "min_instances must be at least 1"),
        (PageHinkley, {"threshold": 0}, "threshold must be above 0"),
        (Kswin, {"window_size": 50}, "window_size must be at least 60"),
        (Kswin, {"seed": -1}, "seed must be at least 0"),
        (Ddm, {"warning_threshold": 4}, "warning_threshold must be at most"),
        (Ddm, {"warm_start": float("inf")}, "warm_start must be a finite number"),
        (Eddm, {"beta": 0.99}, "beta must be at most alpha"),
        (Fhddm, {"short_window_size": 101}, "short_window_size must be at most"),
        (Fhddm, {"sliding_window_size": 5}, "sliding_window_size 5 can never alarm"),
        (Hddma, {"warning_confidence": 0.0001}, "warning_confidence must be at least"),
        (Hddmw, {"lambda_val": 0.5}, "lambda_val 0.5 can never alarm"),
        (Dummy, {"trigger_method": "often"}, "trigger_method must be"),
        (Dummy, {"trigger_method": "random"}, "w must be at least"),
        (Dummy, {"trigger_method": "random", "t_0": 5000, "w": 1}, "w must be at least"),
    ],
)  # fmt: skip
def test_parameters_out_of_range_are_refused_by_name(cls: Any, changes: Any, words: str) -> None:
    """If this breaks, a typing error in a policy watches the wrong side, or nothing, in silence."""
    with pytest.raises(ValueError, match=words):
        cls(**changes)


def test_numbers_as_a_policy_gives_them_are_whole_where_river_wants_them_so() -> None:
    """If this breaks, `clock: 64` in a policy is refused, because settings hold 64.0."""
    given = [Adwin(clock=64.0), Kswin(window_size=80.0, seed=4.0), Fhddm(short_window_size=20.0)]  # type: ignore[arg-type]

    for detector in given:
        feed(detector, coin_rows(1, 500, 0.1))
    assert [Adwin(clock=64), Kswin(window_size=80, seed=4), Fhddm(short_window_size=20)] == given


@pytest.mark.parametrize("cls", KINDS)
def test_what_river_says_of_itself_is_never_a_promise(cls: Any) -> None:
    """If this breaks, a report promises a bound on false alarms that nobody has."""
    said = cls().explain()

    assert (False, None) == (said["guarantee"], said["alpha"])
    assert (cls in SIDED) == (said["beware"] is None)
