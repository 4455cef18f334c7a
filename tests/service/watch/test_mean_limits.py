"""Limits on a mean: Brier score, absolute error, cost."""

from __future__ import annotations

import numpy as np

from detectors.base import F64, Rows
from schemas.commands import Command
from schemas.durations import Duration
from schemas.observations import Observations
from schemas.policies import GuardSpec
from service.watch.detect import build
from service.watch.order import Said
from tests.service.watch.traffic import (
    REGISTRY,
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    kinds,
    play,
)


def matured(second: int, score_when_bad: float, cost: float | F64 = 0.0) -> Observations:
    """A hundred labelled predictions that reached their horizon; half are v42's, label is 1."""
    n = 100
    version = np.arange(n) % 2
    served = START_MS + second * 1000 + np.arange(n) * 10
    bad = version == 1
    block = a_block(
        "matured", offset=np.arange(n) + second * n, served_ms=served, observed_ms=served + 1,
        version=version, value=np.ones(n), label_value=np.ones(n),
        score=np.where(bad, score_when_bad, 0.9), cost=np.where(bad, cost, 0.0),
    )  # fmt: skip
    return a_message(block, watermark_ms=int(served[-1]) + 1000)


def said_of(guard: GuardSpec, messages: list[Observations]) -> list[Said]:
    book = a_book(a_policy(guards=[guard], positive=1, horizon=Duration(1)))
    book.roll_out(a_rollout(weight=0.5), START_MS)
    return play(book, messages)


def test_a_canary_with_a_worse_brier_score_is_rolled_back() -> None:
    """If this breaks, a canary whose probabilities are worthless stays in traffic."""
    guard = GuardSpec(signal="brier", max=0.1)

    said = said_of(guard, [matured(second, score_when_bad=0.4) for second in range(20)])

    assert ["breach", "rollback"] == kinds(said)
    (command,) = [fact for fact in said if isinstance(fact, Command)]
    assert command.reason.startswith("brier of v42 is 0.36, proved to miss its limit 0.1 (")


def test_a_canary_within_its_brier_limit_is_left_alone() -> None:
    """If this breaks, a healthy version is rolled back."""
    guard = GuardSpec(signal="brier", max=0.1)

    said = said_of(guard, [matured(second, score_when_bad=0.75) for second in range(20)])

    assert [] == kinds(said)


def test_costs_are_judged_up_to_their_cap_and_one_huge_one_is_no_breach() -> None:
    """If this breaks, one row decides about a version, or a costly version is kept."""
    guard = GuardSpec(signal="cost", max=2, cap=10)
    one_huge = np.where(np.arange(100) == 51, 1e9, 0.5)

    huge = said_of(guard, [matured(second, 0.9, cost=one_huge) for second in range(20)])
    costly = said_of(guard, [matured(second, 0.9, cost=6) for second in range(20)])

    assert [] == kinds(huge)
    assert ["breach", "rollback"] == kinds(costly)


def test_what_a_guard_says_of_late_is_capped_like_its_evidence() -> None:
    """If this breaks, one huge cost of the stable version forbids every rollback."""
    guard = build(GuardSpec(signal="cost", max=2, cap=10), a_policy(), REGISTRY)
    when = np.arange(3)

    guard.feed(Rows(np.array([1.0, -5.0, 1e9]), when, when))

    assert (1.0 + 0.0 + 10.0) / 3 == guard.recent_mean()
