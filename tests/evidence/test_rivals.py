"""Rivals do what their authors say, and the shipped detectors are not copies."""

from __future__ import annotations

import numpy as np
import pytest

from detectors.canary_guard import CanaryGuard
from detectors.rate_guard import RateGuard
from evidence.cells import Judge
from evidence.rivals import asymptotic, of_river, peeked
from evidence.rivals.lineup import rate_rivals
from evidence.rivals.naive_quantile import rolling, running_p2
from evidence.rivals.shipped import BATCH, canary_alone, shipped
from evidence.rivals.threshold import MINUTE, argo, flagger, threshold
from evidence.rivals.ville import ville
from evidence.worlds import betas, coin_rows, paired_rows, rows_of, step


@pytest.mark.parametrize("seed", range(4))
def test_the_shipped_judge_names_the_row_at_which_the_detector_fired(seed: int) -> None:
    """If this breaks, delays are of something else than the shipped detector."""
    rows = coin_rows(seed, 2 * BATCH + 100, step(0.015, 0.06, BATCH, 2 * BATCH + 100))
    detector = RateGuard(limit=0.02)
    detector.update(rows)

    assert detector.reading().fired_at == shipped(lambda: RateGuard(limit=0.02))(rows)


def test_the_plain_e_process_is_the_rate_guard_without_restarts() -> None:
    """If this breaks, the comparison shows more, or less, than what restarts do."""
    rows = coin_rows(3, 4000, 0.06)
    one_bucket = RateGuard(limit=0.02, bucket=10**9, bucket_ms=None)
    # All restarts but those of the first doubling buckets are far apart.
    assert abs((ville(0.02)(rows) or 0) - (shipped(lambda: one_bucket)(rows) or 0)) < 60


def test_measurements_fail_above_the_bar_and_the_nth_failure_counts() -> None:
    """If this breaks, Argo and Flagger are made worse, or better, than they are."""
    windows = np.zeros((6, 10))
    windows[[1, 3, 5], 0] = 1  # a tenth bad in every second window
    rows = rows_of(windows.ravel())

    assert [39, 59, None, None] == [
        threshold(0.05, 10, 2)(rows), threshold(0.05, 10, 3)(rows), threshold(0.05, 10, 4)(rows),
        threshold(0.1, 10, 1)(rows),
    ]  # fmt: skip
    all_bad = rows_of(np.ones(40 * MINUTE))
    assert (5 * MINUTE - 1, 20 * MINUTE - 1) == (flagger(0.02)(all_bad), argo(0.02)(all_bad))


def test_one_look_of_the_z_test_is_right_in_one_of_a_hundred() -> None:
    """If this breaks, its false alarms under peeking are of our making."""
    judge = peeked.one_sample(0.02, every=20_000)

    hits = sum(judge(coin_rows(seed, 20_000, 0.02)) is not None for seed in range(1000))

    assert 2 <= hits <= 22


def test_the_asymptotic_sequence_has_the_published_width() -> None:
    """If this breaks, GrowthBook is measured with another formula than its own."""
    n = np.array([100.0, 5_000.0, 100_000.0])

    widths = asymptotic.half_width(n, np.ones(3), 0.01)

    rho2 = (-2 * np.log(0.02) + np.log(-2 * np.log(0.02) + 1)) / 5000
    by_hand = [
        (2 * (m * rho2 + 1) / (m * m * rho2) * np.log(1 + (m * rho2 + 1) ** 0.5 / 0.02)) ** 0.5
        for m in n
    ]
    assert by_hand == pytest.approx(widths)


@pytest.mark.parametrize("margin", [1.0, 1.15])
@pytest.mark.parametrize("two", [peeked.two_samples, asymptotic.two_samples])
def test_a_canary_five_times_as_bad_is_found_and_an_equal_one_rarely(
    two: object, margin: float
) -> None:
    """If this breaks, a rival was made blind or hasty by our code."""
    judge: Judge = two(margin)  # type: ignore[operator]

    bad = [judge(paired_rows(seed, 10_000, 0.02, 5.0, 0.25)) for seed in range(10)]
    good = [judge(paired_rows(seed, 2_000, 0.05, 0.9, 0.5)) for seed in range(20)]

    assert (True, True) == (None not in bad, sum(at is not None for at in good) <= 6)


def test_every_rival_of_a_rate_sees_a_flood_of_bad_rows_after_a_healthy_past() -> None:
    """If this breaks, a rival is shown as blind because it is fed wrongly."""
    rows = coin_rows(5, 20_000, step(0.015, 0.9, 8_000, 20_000))

    assert [] == [rival.name for rival in rate_rivals(1) if rival.judge(rows) is None]


def test_the_dummy_fires_whatever_comes() -> None:
    """If this breaks, the yardstick for knowing nothing is gone."""
    assert of_river.dummy(rows_of(np.zeros(400))) == of_river.dummy(rows_of(np.ones(400))) == 299


def test_quantile_rules_fire_far_above_their_limit_and_not_far_below() -> None:
    """If this breaks, naive rules are made worse than they are."""
    high, low = betas(1, 3_000, 0.5), betas(1, 3_000, 0.02)

    assert [True, True, False, False] == [
        judge(rows) is not None for rows in (high, low) for judge in (running_p2(0.6), rolling(0.6))
    ]


def test_a_judge_of_the_canary_alone_names_the_row_among_both_arms() -> None:
    """If this breaks, delays of one-armed rivals are told in other rows."""
    rows = paired_rows(2, 4_000, 0.02, 20.0, 0.2)
    at = canary_alone(shipped(lambda: RateGuard(limit=0.02)))(rows)

    assert at is not None and rows.canary is not None and bool(rows.canary[at])
    assert shipped(CanaryGuard)(rows) is not None
