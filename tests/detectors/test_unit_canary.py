"""Votes of units in two arms: the factor, what it reduces to, and the promise for real users."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.base import Rows
from detectors.canary_guard import CanaryGuard
from detectors.unit_arms import UnitVotes, gains
from detectors.unit_canary import UnitCanary
from detectors.unit_promote import UnitPromote
from tests.detectors.worlds import feed, paired_rows

RUNS = 600


def votes_of_units(
    random: np.random.Generator, ratio: float, *, sticky: bool, share: float = 0.2, n: int = 4000
) -> Rows:
    """Votes of units of ten rows, all of which meet failures together or not at all."""
    rows = 10
    unlucky, start = random.random(n), np.repeat(np.arange(n), rows)
    canary = (random.random(n) < share)[start] if sticky else random.random(n * rows) < share
    loss = unlucky[start] < np.where(canary, 0.04 * ratio, 0.04)
    of_canary = np.bincount(start, loss & canary) / rows
    of_stable = np.bincount(start, loss & ~canary) / rows
    part = np.bincount(start, canary) / rows
    has = part > 0
    when = np.arange(n)
    return Rows(np.where(has, of_canary, of_stable), when, when * 1000, has, np.full(n, share),
                np.where(has, of_stable, 0.0), part)  # fmt: skip


@pytest.mark.parametrize("sticky", [True, False])
def test_overdispersed_units_are_not_held_against_a_canary_at_its_margin(sticky: bool) -> None:
    """If this breaks, the error budget is a lie for traffic of real users.

    The canary fails 1.25 times as often, exactly what is accepted, and all rows of a unit together.
    600 runs at alpha 0.05 may alarm 30 times on average, and 47 times with a chance below 0.002.
    """
    alarms = 0
    for seed in range(RUNS):
        rows = votes_of_units(np.random.default_rng(seed), 1.25, sticky=sticky)
        alarms += UnitCanary(margin=1.25, alpha=0.05).update(rows).fired_at is not None

    assert alarms < 47


@pytest.mark.parametrize("sticky", [True, False])
def test_a_canary_worse_by_the_margin_is_seldom_promoted(sticky: bool) -> None:
    """If this breaks, a gate is won on the luck of a few units."""
    won = 0
    for seed in range(RUNS):
        rows = votes_of_units(np.random.default_rng(seed), 1.5, sticky=sticky)
        won += UnitPromote(margin=1.5).update(rows).fired_at is not None

    assert won < 47


def test_one_vote_per_arm_would_not_keep_the_promise() -> None:
    """If this breaks, the form that `unit_arms.py` refuses would have been good enough."""
    alarms = 0
    for seed in range(40):
        rows = votes_of_units(np.random.default_rng(seed), 1.0, sticky=False)
        own, both = rows.canary_part, rows.stable_loss
        assert own is not None and both is not None
        loss = np.concatenate([rows.loss / np.maximum(own, 0.1), both / np.maximum(1 - own, 0.1)])
        arm = np.repeat([True, False], len(own))
        order = np.argsort(np.concatenate([rows.time_ms, rows.time_ms]), kind="stable")
        when = np.arange(len(loss))
        apart = Rows(loss[order], when, when, arm[order], np.full(len(loss), 0.2))
        alarms += UnitCanary(margin=1.25, alpha=0.05).update(apart).fired_at is not None

    assert alarms > 20


@pytest.mark.parametrize("sticky", [True, False])
def test_a_canary_three_times_as_bad_is_found(sticky: bool) -> None:
    """If this breaks, votes protect bad canaries too."""
    found = 0
    for seed in range(40):
        rows = votes_of_units(np.random.default_rng(seed), 3.0, sticky=sticky)
        found += UnitCanary(margin=1.25).update(rows).fired_at is not None

    assert found > 36


def test_units_of_one_row_with_losses_of_0_and_1_are_what_the_canary_guard_weighs() -> None:
    """If this breaks, votes are judged by another law than predictions."""
    rows = paired_rows(4, 20_000, 0.02, 2.5, 0.1)
    unit, guard = UnitCanary(), CanaryGuard()

    feed(unit, rows)
    feed(guard, rows)

    assert unit.reading().fired_at == guard.reading().fired_at
    assert unit.reading().statistic == pytest.approx(guard.reading().statistic)
    assert unit.ratio().estimate == pytest.approx(guard.ratio().estimate)
    assert unit.interval().upper == pytest.approx(guard.interval().upper)


@pytest.mark.parametrize(("ratio", "margin"), [(2.0, 1.15), (8.0, 1.0), (0.8, 1.25)])
def test_the_mean_factor_of_any_mix_is_at_most_one_at_the_margin(
    ratio: float, margin: float
) -> None:
    """If this breaks, evidence grows by itself. By enumeration over arm and loss of two rows."""
    share, stable_mean = 0.3, 0.2
    mean = 0.0
    for arms in np.ndindex(2, 2):
        for losses in np.ndindex(2, 2):
            # The rows of a unit fail together: the second is bad exactly if the first is.
            if losses[0] != losses[1]:
                continue
            means = [stable_mean * (margin if arm else 1.0) for arm in arms]
            low, high = min(means), max(means)
            chance = {True: low, False: 1 - high}[bool(losses[0])]
            weight = float(np.prod([share if arm else 1 - share for arm in arms]))
            canary = sum(x for x, arm in zip(losses, arms, strict=True) if arm) / 2
            stable = sum(losses) / 2 - canary
            vote = UnitVotes(*(np.array([x]) for x in (canary, stable, sum(arms) / 2, share)))
            told = float(np.exp(gains(vote, np.array([ratio]), margin)[0, 0]))
            mean += weight * chance * told
            if low < high and losses[0]:
                # Between the two rates only the worse arm's rows are bad.
                worse = [x == high for x in means]
                canary = sum(1 for bad, arm in zip(worse, arms, strict=True) if bad and arm) / 2
                stable = sum(worse) / 2 - canary
                vote = UnitVotes(*(np.array([x]) for x in (canary, stable, sum(arms) / 2, share)))
                told = float(np.exp(gains(vote, np.array([ratio]), margin)[0, 0]))
                mean += weight * (high - low) * told

    assert mean <= 1 + 1e-12
