"""Counting: intervals, delays, and who counts as early, found or missed."""

from __future__ import annotations

from math import exp, inf, lgamma, log, log1p

import numpy as np
import pytest

from detectors.base import Rows
from evidence.cells import Cell, Tally, clopper_pearson
from evidence.worlds import rows_of


def cell(judge_at: int | None = 0, since: int | None = None, **more: object) -> Cell:
    """A cell whose judge alarms at one row of a hundred, or never."""
    given = {"world": lambda _seed: rows_of(np.zeros(100)), "judge": lambda _rows: judge_at}
    return Cell("S0", "table", "world", "rival", **(given | more), runs=1, since=since)  # type: ignore[arg-type]


def at_most(hits: int, n: int, share: float) -> float:
    """Chance of so many hits or fewer, summed term by term."""
    return sum(
        exp(lgamma(n + 1) - lgamma(k + 1) - lgamma(n - k + 1) + k * log(share)
            + (n - k) * log1p(-share))
        for k in range(hits + 1)
    )  # fmt: skip


@pytest.mark.parametrize(("hits", "n"), [(0, 1000), (8, 1000), (40, 4000), (30, 40), (40, 40)])
def test_the_interval_is_clopper_and_pearson_s(hits: int, n: int) -> None:
    """If this breaks, every interval of the document is wrong."""
    low, high = clopper_pearson(hits, n)

    if hits:
        assert pytest.approx(0.025, abs=1e-9) == 1 - at_most(hits - 1, n, low)
    if hits < n:
        assert pytest.approx(0.025, abs=1e-9) == at_most(hits, n, high)
    assert (hits == 0, hits == n) == (low == 0, high == 1)


def test_an_alarm_before_the_change_is_early_and_no_delay() -> None:
    """If this breaks, a detector that cries wolf looks fast."""
    early, found, never = (cell(at, since=50).play(0) for at in (10, 59, None))
    tally = Tally(cell(since=50), (early, found, never))

    assert (1, 1, 10.0, inf) == (
        tally.alarms, tally.found, tally.quantile(0.5), tally.quantile(0.9),
    )  # fmt: skip


def test_a_delay_in_canary_rows_counts_those_of_the_canary_only() -> None:
    """If this breaks, delays of two arms are told ten times too long."""
    arms = np.arange(100) % 10 == 0
    paired = cell(99, since=0, world=lambda _seed: rows_of(np.zeros(100), canary=arms, weight=0.1),
                  unit="canary rows")  # fmt: skip

    assert (99, 10.0) == paired.play(0)


def test_all_judges_of_a_world_see_the_same_rows_and_other_runs_others() -> None:
    """If this breaks, rivals are compared on different luck."""
    seen: list[Rows] = []

    def world(seed: object) -> Rows:
        seen.append(rows_of(np.random.default_rng(seed).random(5)))  # type: ignore[arg-type]
        return seen[-1]

    for run in (0, 0, 1):
        cell(world=world).play(run)

    assert seen[0].loss.tolist() == seen[1].loss.tolist() != seen[2].loss.tolist()
