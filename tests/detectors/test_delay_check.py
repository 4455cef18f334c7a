"""Delay check: equal delays are not accused, unequal ones never trusted."""

from __future__ import annotations

import doctest
from itertools import pairwise, product
from math import comb
from typing import Any

import msgspec
import numpy as np
import pytest

import detectors.delay_check as module
from detectors.base import InvalidRows, Rows, StateMismatch
from detectors.canary_guard import CanaryGuard
from detectors.delay_check import DelayCheck, block_gain
from tests.detectors.worlds import part, rows_of

HORIZON_S = 8000


def ages(seed: int, n: int, share: float, canary_s: float, stable_s: float) -> Rows:
    """Matured bad rows of both arms with delays of these means, in ms; a prediction a second."""
    rng = np.random.default_rng(seed)
    canary = rng.random(n) < share
    delay_s = rng.exponential(np.where(canary, canary_s, stable_s))
    return rows_of(np.minimum(delay_s, HORIZON_S) * 1000, canary=canary, weight=share)


def check(alpha: float = 0.05) -> DelayCheck:
    return DelayCheck(horizon_ms=HORIZON_S * 1000, alpha=alpha)


def test_evidence_of_a_block_has_a_mean_of_at_most_one_whatever_the_share() -> None:
    """If this breaks, delays are called unequal more often than was promised."""
    canary_n, stable_n = 4, 7
    for share, guess, odds in product((0.02, 0.3, 0.7), (0.1, 0.5), (0.25, 4.0)):
        mean = 0.0
        for a, b in product(range(canary_n + 1), range(stable_n + 1)):
            chance = comb(canary_n, a) * comb(stable_n, b) * share ** (a + b)
            chance *= (1 - share) ** (canary_n + stable_n - a - b)
            counts = np.array([canary_n, a]), np.array([stable_n, b])
            gain = block_gain(*counts, np.array([[guess]]), np.array([[odds]]))
            mean += chance * float(np.exp(gain[0, 0]))
        assert mean <= 1 + 1e-12


def test_equal_delays_are_called_unequal_with_chance_alpha_at_most() -> None:
    """If this breaks, labels on arrival are given up without a cause."""
    said = [check().update(ages(seed, 4000, 0.5, 2000, 2000)) for seed in range(200)]

    assert said.count("unequal") <= 0.05 * 200
    assert said.count("equal") >= 0.9 * 200


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize(("canary_s", "stable_s"), [(500, 2000), (2000, 500), (1000, 2000)])
def test_unequal_delays_are_found_before_equal_is_said(
    share: float, canary_s: float, stable_s: float
) -> None:
    """If this breaks, a canary whose labels are quicker is rolled back for it."""
    for seed in range(20):
        judge, rows = check(), ages(seed, 12_000, share, canary_s, stable_s)
        told = set()
        for first in range(0, 12_000, 250):
            told.add(judge.update(part(rows, first, first + 250)))
            if judge.standing == "unequal":
                break
        assert "unequal" in told and "equal" not in told


def world(seed: int, n: int, canary_s: float, share: float) -> tuple[Any, Any, Any]:
    """Bad rows of two equally good versions: when served, whose, and the delay, in seconds."""
    rng = np.random.default_rng(seed)
    canary = rng.random(n) < share
    delay = rng.exponential(np.where(canary, canary_s, 4 * canary_s))
    bad = np.flatnonzero((rng.random(n) < 0.05) & (delay <= HORIZON_S))
    return bad, canary[bad], delay[bad]


def bad_rows(first: int, at_s: Any, canary: Any, share: float) -> Rows:
    position = np.arange(first, first + len(at_s))
    time_ms = (at_s * 1000).astype(np.int64)
    return Rows(np.ones(len(at_s)), position, time_ms, canary, np.full(len(at_s), share))


def on_arrival(seed: int, canary_s: float, share: float) -> bool:
    """Whether labels on arrival alone roll the canary back."""
    served, canary, delay = world(seed, 20_000, canary_s, share)
    order = np.argsort(served + delay, kind="stable")
    rows = bad_rows(0, (served + delay)[order], canary[order], share)
    return CanaryGuard(bucket_ms=None, bucket=16).update(rows).level == "alarm"


def checked(seed: int, canary_s: float, share: float) -> bool:
    """The same with the check: labels on arrival while equal, and matured ones; alpha halved."""
    served, canary, delay = world(seed, 20_000, canary_s, share)
    arrival, matured = (CanaryGuard(alpha=0.005, bucket_ms=None, bucket=16) for _ in range(2))
    judge = check()
    came = np.argsort(served + delay, kind="stable")
    for now in range(500, 20_001, 500):
        new = came[((served + delay)[came] > now - 500) & ((served + delay)[came] <= now)]
        if judge.standing == "equal":
            arrival.update(bad_rows(20_000 * now, (served + delay)[new], canary[new], share))
        ripe = np.flatnonzero((served + HORIZON_S > now - 500) & (served + HORIZON_S <= now))
        rows = bad_rows(20_000 * now, served[ripe] + HORIZON_S, canary[ripe], share)
        matured.update(rows)
        judge.update(rows._replace(loss=delay[ripe] * 1000))
        if "alarm" in (arrival.reading().level, matured.reading().level):
            return True
    return False


@pytest.mark.parametrize(("share", "least"), [(0.1, 0.05), (0.5, 0.30)])
def test_quick_bad_labels_of_the_canary_no_longer_roll_it_back(share: float, least: float) -> None:
    """If this breaks, the pilot's 13 % and 32 % false rollbacks are back."""
    runs = 60
    alone = sum(on_arrival(seed, 750, share) for seed in range(runs))
    together = sum(checked(seed, 750, share) for seed in range(runs))

    assert alone / runs >= least
    assert together / runs <= 2 / 60  # alpha .01: the chance of three or more of 60 is .02


def test_packing_changes_nothing() -> None:
    """If this breaks, how messages are packed decides which labels count."""
    rows = ages(3, 3000, 0.3, 1000, 2000)
    whole, packed, single = check(), check(), check()

    whole.update(rows)
    for first, end in pairwise([0, 1, 63, 64, 65, 700, 701, 3000]):
        packed.update(part(rows, first, end))
    for first in range(3000):
        single.update(part(rows, first, first + 1))

    assert whole.state() == packed.state() == single.state()
    assert "unequal" == whole.standing


def test_saving_and_restoring_changes_nothing_and_fits_a_kilobyte() -> None:
    """If this breaks, a restart forgets that delays are unequal."""
    rows = ages(4, 6000, 0.5, 2000, 2000)
    straight, stopped = check(), check()
    for first in range(0, 6000, 500):
        straight.update(part(rows, first, first + 500))
        restored = check()
        restored.restore(msgspec.json.decode(msgspec.json.encode(stopped.state())))
        restored.update(part(rows, first, first + 500))
        stopped = restored

    assert straight.state() == stopped.state()
    assert (straight.standing, straight.reason) == (stopped.standing, stopped.reason)
    assert len(msgspec.json.encode(straight.state())) <= 1024
    with pytest.raises(StateMismatch, match="start afresh"):
        check(alpha=0.01).restore(straight.state())


def test_it_says_why_in_words() -> None:
    """If this breaks, nobody can tell why labels on arrival do not count."""
    judge = check()
    assert "0 bad labels of the canary" in judge.reason
    judge.update(ages(1, 300, 0.5, 2000, 2000))
    assert "of what it takes to see" in judge.reason
    judge.update(ages(2, 12_000, 0.5, 2000, 2000)._replace(position=300 + np.arange(12_000)))
    assert judge.reason.startswith("Bad labels come equally late: ")
    uneven = check()
    uneven.update(ages(3, 12_000, 0.5, 500, 2000))
    assert uneven.reason.startswith("Delays differ: ")
    assert uneven.reason.endswith("in 500 s.") or uneven.reason.endswith("in 2000 s.")


def test_labels_too_quick_to_compare_are_never_called_equal() -> None:
    """If this breaks, delays that no age can tell apart are trusted."""
    judge = check()
    rows = ages(5, 20_000, 0.5, 0.1, 0.4)

    assert "unknown" == judge.update(rows)


def test_rows_and_parameters_out_of_range_are_refused() -> None:
    """If this breaks, an outcome from before its prediction counts as a quick label."""
    with pytest.raises(InvalidRows, match="negative"):
        check().update(rows_of([-1.0], canary=[True], weight=0.5))
    with pytest.raises(ValueError, match="alpha"):
        check(alpha=1.0)
    with pytest.raises(ValueError, match="horizon_ms"):
        DelayCheck(horizon_ms=0)


def test_the_example_runs() -> None:
    """If this breaks, the first thing a reader tries does not work."""
    results = doctest.testmod(module)
    assert (0, True) == (results.failed, results.attempted > 0)
