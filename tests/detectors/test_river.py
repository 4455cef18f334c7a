"""ADWIN and Page-Hinkley: river's own decisions, one-sided, latched and restorable."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import pytest
from river.drift import ADWIN as RiverAdwin
from river.drift import PageHinkley as RiverPageHinkley

import detectors.river_latch
from detectors.adwin import Adwin
from detectors.base import StateMismatch
from detectors.page_hinkley import PageHinkley
from tests.detectors.worlds import coin_rows, feed, part, rows_of

KINDS = [Adwin, PageHinkley]
UP = np.where(np.arange(8_000) < 4_000, 0.1, 0.4)


def first_flag(river: Any, losses: Any) -> int | None:
    """The row at which river itself first raises its flag."""
    for index, loss in enumerate(losses.tolist()):
        river.update(loss)
        if river.drift_detected:
            return index
    return None


@pytest.mark.parametrize("seed", range(3))
def test_they_fire_on_the_row_on_which_river_fires(seed: int) -> None:
    """If this breaks, the adapter misses flags, which river shows for one row only."""
    rows = coin_rows(seed, 8_000, UP)

    expected = first_flag(RiverAdwin(), rows.loss)
    assert expected is not None and expected == feed(Adwin(), rows, [5_000]).fired_at
    expected = first_flag(RiverPageHinkley(mode="up"), rows.loss)
    assert expected is not None and expected == feed(PageHinkley(), rows, [5_000]).fired_at


@pytest.mark.parametrize("cls", KINDS)
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


@pytest.mark.parametrize("cls", KINDS)
@pytest.mark.parametrize("side", ["up", "down"])
@pytest.mark.parametrize("cut", [1, 700, 4_050])
def test_a_restored_river_goes_on_identically(cls: Any, side: str, cut: int) -> None:
    """If this breaks, a restart moves or loses a drift warning."""
    rows = coin_rows(4, 12_000, np.concatenate([UP, np.full(4_000, 0.9)]))
    if side == "down":
        rows = rows._replace(loss=1 - rows.loss)
    straight, stopped = cls(side=side), cls(side=side)
    feed(straight, part(rows, 0, cut))
    stopped.restore(msgspec.json.decode(msgspec.json.encode(straight.state())))

    for i in range(cut, 12_000, 100):
        assert straight.update(part(rows, i, i + 100)) == stopped.update(part(rows, i, i + 100))
        if straight.reading().level == "alarm":
            straight.rearm()
            stopped.rearm()
    assert straight.state() == stopped.state()


@pytest.mark.parametrize("cls", KINDS)
def test_a_flag_right_before_the_snapshot_is_part_of_it(cls: Any) -> None:
    """If this breaks, river does not reset after a restore, and goes on with the old window."""
    rows = coin_rows(1, 8_000, UP)
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
    assert "warming" == detector.reading().level


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


@pytest.mark.parametrize("cls", KINDS)
def test_the_flag_can_be_read_as_a_warning(cls: Any) -> None:
    """If this breaks, a drift hint cannot be kept from acting like an alarm."""
    reading = feed(cls(level="warning"), coin_rows(1, 8_000, UP))

    assert "warning" == reading.level and reading.fired_at is not None


@pytest.mark.parametrize("cls", KINDS)
def test_parameters_out_of_range_are_refused(cls: Any) -> None:
    """If this breaks, a typing error in a policy silently watches both sides."""
    with pytest.raises(ValueError, match="side must be"):
        cls(side="worse")
    with pytest.raises(ValueError, match="level must be"):
        cls(level="quiet")


def test_numbers_of_page_hinkley_out_of_range_are_refused() -> None:
    """If this breaks, a forgetting factor above one makes sums that grow without end."""
    with pytest.raises(ValueError, match="forgetting"):
        PageHinkley(forgetting=1.5)
    with pytest.raises(ValueError, match="min_instances"):
        PageHinkley(min_instances=0)
    with pytest.raises(ValueError, match="clock"):
        Adwin(clock=0)
