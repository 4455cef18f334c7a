"""Late labels: who is judged when, and by what."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.rate_guard import RateGuard
from evidence.rivals.conditional import conditional
from evidence.rivals.optimistic import optimistic
from evidence.rivals.shipped import shipped
from evidence.scenarios.labels import (
    ALL_KNOWN,
    ARRIVED,
    CONDITIONAL,
    MATURED,
    OPTIMISTIC,
    N,
    paired,
    single,
)
from evidence.worlds import START_MS, STEP_MS


@pytest.mark.parametrize("mode", [MATURED, ARRIVED, ALL_KNOWN])
def test_rows_come_in_order_of_their_clock(mode: str) -> None:
    """If this breaks, delays in predictions are nonsense."""
    rows = single(mode, 0.05, 500, 5_000, 2_500)(1)

    assert (np.diff(rows.time_ms) >= 0).all() and len(rows.loss) == len(rows.position)


def test_a_matured_row_is_bad_only_if_its_label_came_by_the_horizon() -> None:
    """If this breaks, the estimand is not the one that watch judges."""
    known = single(ALL_KNOWN, 0.05, 500, 5_000, 2_500)(1)
    matured = single(MATURED, 0.05, 500, 5_000, 2_500)(1)

    assert (matured.loss <= known.loss).all()
    assert pytest.approx(1 - np.exp(-5), abs=0.02) == matured.loss.sum() / known.loss.sum()
    assert START_MS + 2_500 * STEP_MS == matured.time_ms[0]
    assert len(matured.loss) == N


def test_on_arrival_bad_news_that_hurries_is_over_represented_at_first() -> None:
    """If this breaks, the scenario does not show what it says."""
    rows = single(ARRIVED, 0.05, 500, 5_000, 2_500)(1)

    assert rows.loss[:300].mean() > 0.15


def test_the_canary_s_bad_labels_come_sooner_by_the_factor() -> None:
    """If this breaks, the two-armed scenario is not the one that is described."""
    rows = paired(ARRIVED, 2_000, 2_000, 10_000, 4.0)(1)
    bad = rows.loss > 0

    early = bad & (rows.time_ms < START_MS + 1_000 * STEP_MS)

    assert rows.canary is not None and rows.canary[early].mean() > 0.6


def test_the_optimistic_guard_is_told_each_bad_label_once_and_when_it_came() -> None:
    """If this breaks, it is shown as faster than it is, or as blind."""
    rows = single(OPTIMISTIC, 0.10, 500, 5_000, 2_500)(1)
    assert rows.weight is not None
    at = optimistic(0.05, 2_500)(rows)
    known = np.arange(N) + rows.weight <= (at or 0)

    never = rows._replace(weight=np.full(N, np.inf))
    beyond = rows._replace(weight=np.full(N, 2_501.0))

    assert at is not None and rows.loss[: at + 1][known[: at + 1]].sum() > 0
    assert (None, None) == (optimistic(0.05, 2_500)(never), optimistic(0.05, 2_500)(beyond))
    assert at > (shipped(lambda: RateGuard(limit=0.05))(rows._replace(weight=None)) or N)


def test_conditional_labels_find_a_bad_canary_and_leave_a_hasty_one_alone() -> None:
    """If this breaks, the mode is shown as safer, or as blinder, than what watch runs."""
    judge = conditional(10_000)
    rows = paired(CONDITIONAL, 2_000, 2_000, 10_000, 4.0)(1)
    assert rows.canary is not None
    odd = np.arange(N) % 3 > 0

    worse = rows._replace(loss=np.where(~rows.canary & odd, 0.0, rows.loss))

    assert (None, True) == (judge(rows), (judge(worse) or 0) > 10_000)
