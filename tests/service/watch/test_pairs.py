"""Pairs of shadow traffic: one request, both versions, and only differences tell."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.durations import Duration
from schemas.facts import Breach
from schemas.observations import Observations
from schemas.policies import GuardSpec, Policy, Promote
from service.watch.order import Said
from service.watch.step import Book
from tests.service.replay.recordings import a_prediction, packed, replayed
from tests.service.replay.recordings import a_rollout as a_plan
from tests.service.watch.traffic import (
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    in_pieces,
    kinds,
    play,
    restarted,
)

WORSE = GuardSpec(signal="error_rate", max_increase=0.15)


def mirrored(
    count: int = 4000, both: float = 0.3, canary: float = 0.01, stable: float = 0.01,
    seed: int = 2, lost: float = 0.0,
) -> list[Observations]:  # fmt: skip
    """Requests ten a second, each answered by v41 and, half a second later, by v42."""
    random = np.random.default_rng(seed)
    common = random.random(count) < both
    bad = {0: common | (random.random(count) < stable), 1: common | (random.random(count) < canary)}
    columns: dict[str, Any] = {
        "served_ms": np.concatenate([START_MS + np.arange(count) * 100 + arm * 500
                                     for arm in (0, 1)]),
        "version": np.repeat([0, 1], count), "unit": np.tile(np.arange(count) + 1, 2),
        "error": np.concatenate([bad[0], bad[1]]),
    }  # fmt: skip
    order = np.argsort(columns["served_ms"], kind="stable")
    order = order[(columns["version"][order] == 0) | (random.random(2 * count) >= lost)]
    messages = []
    for at in range(0, len(order), 400):
        part = {name: column[order[at : at + 400]] for name, column in columns.items()}
        block = a_block(offset=np.arange(at, at + len(part["unit"])), **part)
        messages.append(a_message(block, watermark_ms=int(part["served_ms"].max())))
    return messages


def a_pair_policy(*guards: GuardSpec, **changes: Any) -> Policy:
    given: dict[str, Any] = {"guards": list(guards or [WORSE]), "votes": "pair",
                             "unit_window": Duration(30)}  # fmt: skip
    return a_policy(**(given | changes))


def a_started_book(policy: Policy) -> Book:
    book = a_book(policy)
    book.roll_out(a_rollout(weight=0.5), START_MS)
    return book


def breaches(said: list[Said]) -> list[Breach]:
    return [fact for fact in said if isinstance(fact, Breach)]


def test_a_small_difference_is_found_under_much_common_failure() -> None:
    """If this breaks, shadow traffic is compared like two crowds: here that sees nothing."""
    messages = mirrored(canary=0.04)

    in_pairs = play(a_started_book(a_pair_policy()), messages)
    in_crowds = play(a_started_book(a_pair_policy(votes="prediction")), messages)

    assert "breach" in kinds(in_pairs)
    assert [] == kinds(in_crowds)
    (breach,) = breaches(in_pairs)
    assert "pair" == breach.evidence.votes
    assert breach.text.endswith(" pairs).")
    assert (breach.evidence.estimate or 0) > 2 * (breach.evidence.stable_estimate or 1)


def test_pairs_that_agree_in_failing_say_nothing() -> None:
    """If this breaks, a bad hour of the world is held against the canary."""
    assert [] == kinds(play(a_started_book(a_pair_policy()), mirrored(both=0.6)))


def test_the_budget_holds_at_the_margin() -> None:
    """If this breaks, canaries within the margin are rolled back more often than was promised.

    120 runs at alpha 0.05 alarm 6 times on average, 13 times or more with a chance below 0.006.
    """
    policy = a_pair_policy(alpha=0.05)

    runs = [play(a_started_book(policy), mirrored(1500, 0.1, 0.046, 0.04, seed=seed))
            for seed in range(120)]  # fmt: skip

    assert sum(bool(kinds(said)) for said in runs) < 13


def test_halves_without_the_other_are_counted_and_prove_nothing() -> None:
    """If this breaks, requests that the canary dropped count as compared."""
    book = a_started_book(a_pair_policy())

    play(book, mirrored(canary=0.5, lost=1.0))

    guard = book.guards["credit-risk"]["v42"][WORSE.label]
    assert 0 == guard.detector.reading().n
    assert guard.votes is not None
    assert 3600 < guard.votes.state()["alone"] <= 4000


def test_a_promotion_is_proven_by_pairs_too() -> None:
    """If this breaks, the most powerful evidence does not help to promote."""
    policy = a_pair_policy(promote=Promote(margin=0.5))
    book = a_started_book(policy)

    play(book, mirrored(8000, canary=0.04, stable=0.04))

    gate = book.guards["credit-risk"]["v42"]["promote error_rate against v41"]
    assert gate.detector.reading().fired_at is not None


def test_restart_and_packing_change_nothing() -> None:
    """If this breaks, halves are lost at a restart, or a replay decides otherwise."""
    policy, messages = a_pair_policy(), mirrored(canary=0.04)
    whole, first = a_started_book(policy), a_started_book(policy)
    pieces = [piece for message in messages for piece in in_pieces(message, 33)]

    expected = play(whole, messages)
    said = play(first, messages[:3])
    other = restarted(first, policy)
    said += play(other, messages[3:])
    (apart,) = breaches(play(a_started_book(policy), pieces))

    assert expected == said
    assert whole.save("credit-risk") == other.save("credit-risk")
    assert breaches(expected)[0].position == apart.position
    assert breaches(expected)[0].evidence.evidence == pytest.approx(apart.evidence.evidence)


PAIRS = """\
policies:
  - model: credit-risk
    mode: enforce
    votes: pair
    unit_window: 10s
    guards: [{signal: error_rate, max_increase: 0.15}]
"""


def test_a_recording_of_shadow_traffic_is_replayed_by_pairs() -> None:
    """If this breaks, a replay cannot show what shadow traffic proves."""
    random = np.random.default_rng(5)
    lines = [a_plan(weight=0.0)]
    for n in range(1000):
        for version, chance in (("v41", 0.01), ("v42", 0.08)):
            more = {"error": "boom"} if random.random() < chance else {}
            lines.append(a_prediction(f"{version}-{n}", n / 10, version, unit=f"r{n}", **more))

    result = replayed(packed(lines), PAIRS)
    (breach,) = result.of("breach")

    assert "v42" == lines[breach["line"] - 1]["version"]
    assert result == replayed(packed(lines), PAIRS, window=97)
