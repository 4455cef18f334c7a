"""One vote per unit: requests of one user or session are one witness, not many."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import service.watch.votes as votes_module
from detectors.base import Rows
from schemas.commands import Command
from schemas.durations import Duration
from schemas.facts import Breach
from schemas.observations import Observations
from schemas.policies import GuardSpec, Policy, Promote
from schemas.verdicts import Verdict
from service.watch.order import Said
from service.watch.step import Book
from service.watch.votes import Votes
from tests.service.replay.recordings import a_prediction, packed, replayed
from tests.service.replay.recordings import a_rollout as a_plan
from tests.service.watch.traffic import (
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    a_tick,
    in_pieces,
    kinds,
    play,
    restarted,
)

ERRORS = GuardSpec(signal="error_rate", max=0.05)
WORSE = GuardSpec(signal="error_rate", max_increase=0.25)


def sessions(
    seed: int = 3, count: int = 2000, broken: float = 0.02, canary_broken: float = 0.02,
    rows: int = 20, share: float = 0.5, sticky: bool = True, told: bool = True,
    per_message: int = 500,
) -> list[Observations]:  # fmt: skip
    """Sessions of `rows` predictions over 20 s, one starts each second; in a broken one all fail.

    Of sessions that are not sticky the router draws the version anew for each request, and a
    request fails by the chance of its own version, if the user is one who meets failures at all.
    """
    random = np.random.default_rng(seed)
    unlucky = random.random(count)
    arm = random.random(count) < share
    start, step = np.repeat(np.arange(count), rows), np.tile(np.arange(rows), count)
    version = arm[start] if sticky else random.random(count * rows) < share
    error = unlucky[start] < np.where(version, canary_broken, broken)
    served = START_MS + start * 1000 + step * (20_000 // rows)
    order = np.argsort(served, kind="stable")
    columns: dict[str, Any] = {
        "served_ms": served[order], "version": version[order].astype(int), "error": error[order],
        "latency_ms": np.where(error, 900.0, 100.0)[order], "unit": start[order] + 1,
        "weight": np.where(version, share, 1 - share)[order] * (1.0 if told else np.nan),
    }  # fmt: skip
    messages = []
    for at in range(0, len(order), per_message):
        part = {name: column[at : at + per_message] for name, column in columns.items()}
        block = a_block(offset=np.arange(at, at + len(part["unit"])), **part)
        messages.append(a_message(block, watermark_ms=int(part["served_ms"].max())))
    return messages


def a_unit_policy(*guards: GuardSpec, **changes: Any) -> Policy:
    given: dict[str, Any] = {"guards": list(guards or [ERRORS]), "votes": "unit",
                             "unit_window": Duration(60)}  # fmt: skip
    return a_policy(**(given | changes))


def a_started_book(policy: Policy) -> Book:
    book = a_book(policy)
    book.roll_out(a_rollout(weight=0.5), START_MS)
    return book


def breaches(said: list[Said]) -> list[Breach]:
    return [fact for fact in said if isinstance(fact, Breach)]


# -- what a vote is ------------------------------------------------------------------------------


def cast(votes: Votes, *rows: tuple[int, float, int]) -> list[tuple[float, int, int]]:
    """Take (second, loss, unit) in one table; what closed: mean, second, index of the closer."""
    when, loss, unit = zip(*rows, strict=True)
    when_ms = np.array(when, np.int64) * 1000
    taken = votes.take(Rows(np.array(loss, np.float64), np.arange(len(rows)), when_ms), 0, when_ms,
                       np.array(unit, np.uint64))  # fmt: skip
    return [
        (float(loss), int(ms) // 1000, int(at))
        for loss, ms, at in zip(taken.rows.loss, taken.rows.time_ms, taken.closer, strict=True)
    ]


def test_a_unit_s_rows_within_the_window_are_their_mean_and_the_row_after_it_opens_another() -> (
    None
):
    """If this breaks, a session counts twice, or never."""
    votes = Votes(30_000)

    closed = cast(votes, (0, 1, 7), (10, 0, 7), (29, 0, 7), (29, 1, 8), (30, 1, 7), (59, 0, 9),
                  (61, 0, 9))  # fmt: skip

    assert [(1 / 3, 30, 4), (1.0, 59, 5), (1.0, 60, 6)] == closed


def test_rows_without_a_unit_count_singly_and_at_once() -> None:
    """If this breaks, traffic without users is judged half an hour late, or as one user."""
    assert [(1.0, 0, 0), (0.0, 1, 1)] == cast(Votes(30_000), (0, 1, 0), (1, 0, 0))


def test_a_late_row_joins_the_open_vote_and_opens_none_in_the_past() -> None:
    """If this breaks, rows out of order close votes out of order, and a replay differs."""
    closed = cast(Votes(30_000), (100, 0, 1), (95, 1, 1), (90, 1, 2), (130, 0, 3))

    assert [(0.5, 130, 3), (1.0, 130, 3)] == closed


def test_too_many_open_votes_close_the_oldest_early_and_say_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """If this breaks, a flood of users fills the memory of the worker."""
    monkeypatch.setattr(votes_module, "MOST_OPEN", 2)
    votes = Votes(30_000)

    closed = cast(votes, (0, 1, 1), (1, 0, 2), (2, 0, 3), (3, 1, 3), (4, 1, 1))

    assert [(1.0, 2, 2), (0.0, 4, 4)] == closed
    assert 2 == votes.early


# -- what guards make of votes -------------------------------------------------------------------


def test_a_few_broken_sessions_are_no_proof_by_unit_though_they_are_by_prediction() -> None:
    """If this breaks, two broken sessions of a healthy canary take it out of traffic."""
    messages = sessions(count=400, rows=100, broken=0.03, canary_broken=0.03)

    by_unit = play(a_started_book(a_unit_policy()), messages)
    by_row = play(a_started_book(a_unit_policy(votes="prediction")), messages)

    assert [] == kinds(by_unit)
    assert "breach" in kinds(by_row)


def test_a_canary_that_breaks_many_sessions_is_rolled_back() -> None:
    """If this breaks, votes protect bad canaries too."""
    said = play(a_started_book(a_unit_policy()), sessions(canary_broken=0.2))

    assert ["breach", "rollback"] == kinds(said)
    (command,) = [fact for fact in said if isinstance(fact, Command)]
    assert command.reason.endswith("votes of units).")
    (breach,) = breaches(said)
    assert "unit" == breach.evidence.votes


def test_against_the_stable_broken_sessions_count_once_as_well() -> None:
    """If this breaks, `max_increase` finds harm in the luck of a few sessions."""
    healthy = sessions(count=3000, broken=0.05, canary_broken=0.05)
    bad = sessions(count=3000, broken=0.05, canary_broken=0.2)
    policy = a_unit_policy(WORSE)

    assert [] == kinds(play(a_started_book(policy), healthy))
    assert ["breach", "rollback"] == kinds(play(a_started_book(policy), bad))
    by_row = a_unit_policy(WORSE, votes="prediction")
    assert "breach" in kinds(play(a_started_book(by_row), healthy))


def test_rows_of_unknown_share_prove_nothing_by_unit() -> None:
    """If this breaks, an unknown split of traffic is guessed at."""
    book = a_book(a_unit_policy(WORSE))

    said = play(book, sessions(canary_broken=0.4, told=False))

    assert [] == kinds(said)


def test_latency_is_the_share_of_each_unit_s_requests_above_the_limit() -> None:
    """If this breaks, one slow session is a slow version."""
    slow = GuardSpec(signal="latency_ms", quantile=0.9, max=300)
    policy = a_unit_policy(slow)

    few = play(a_started_book(policy), sessions(count=600, canary_broken=0.03))
    many = play(a_started_book(policy), sessions(canary_broken=0.3))

    assert [] == kinds(few)
    assert ["breach", "rollback"] == kinds(many)
    (breach,) = breaches(many)
    assert 850 < (breach.evidence.estimate or 0) < 950
    healthy = [v for v in few if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert "pass" == healthy.verdict


def test_a_promotion_is_proven_by_units_too() -> None:
    """If this breaks, a canary is promoted on the word of a few sessions."""
    policy = a_unit_policy(ERRORS, promote=Promote(margin=1.0))
    book = a_started_book(policy)

    play(book, sessions(count=6000, broken=0.04, canary_broken=0.04, rows=3))

    own = book.guards["credit-risk"]["v42"]
    gate = own["promote error_rate against v41"].detector.reading()
    assert gate.fired_at is not None
    assert 5000 < gate.n < 6100


@pytest.mark.parametrize("guard", [ERRORS, WORSE])
def test_a_restart_in_the_middle_changes_nothing(guard: GuardSpec) -> None:
    """If this breaks, open votes are lost or doubled when a worker is restarted."""
    policy, messages = a_unit_policy(guard), sessions(canary_broken=0.2)
    whole, first = a_started_book(policy), a_started_book(policy)

    expected = play(whole, messages)
    said = play(first, messages[:9])
    other = restarted(first, policy)
    said += play(other, messages[9:])

    assert ["breach", "rollback"] == kinds(expected)
    assert expected == said
    assert whole.save("credit-risk") == other.save("credit-risk")


@pytest.mark.parametrize("guard", [ERRORS, WORSE])
def test_packing_changes_neither_evidence_nor_the_event_that_decided(guard: GuardSpec) -> None:
    """If this breaks, a replay of the same traffic decides otherwise."""
    messages = sessions(count=500, canary_broken=0.3, per_message=700)
    pieces = [piece for message in messages for piece in in_pieces(message, 33)]

    (expected,) = breaches(play(a_started_book(a_unit_policy(guard)), messages))
    (actual,) = breaches(play(a_started_book(a_unit_policy(guard)), pieces))

    assert expected.position == actual.position
    assert expected.evidence.evidence == actual.evidence.evidence


def test_votes_that_are_due_close_when_traffic_ends() -> None:
    """If this breaks, the last half hour of a canary is never judged."""
    book = a_started_book(a_unit_policy(unit_window=Duration(3600)))
    messages = sessions(count=300, canary_broken=0.6)
    before = play(book, messages)
    last_ms = messages[-1].watermark_ms

    after = play(book, [a_tick(last_ms + s * 1000) for s in range(0, 4000, 50)])

    assert [] == kinds(before)
    assert "breach" in kinds(after)


UNITS = """\
policies:
  - model: credit-risk
    mode: enforce
    votes: unit
    unit_window: 20s
    guards: [{signal: error_rate, max: 0.05}]
"""


def test_a_recording_with_units_is_replayed_by_votes() -> None:
    """If this breaks, a replay counts broken sessions as proof, or names no line."""
    random = np.random.default_rng(8)
    lines = [a_plan(weight=0.5)]
    for session in range(500):
        version = str(random.choice(["v41", "v42"]))
        breaks = random.random() < (0.25 if version == "v42" else 0.01)
        for row in range(4):
            more = {"error": "boom"} if breaks else {}
            lines.append(a_prediction(f"p{session}-{row}", session + row / 4, version,
                                      unit=f"u{session}", **more))  # fmt: skip

    result = replayed(packed(lines), UNITS)
    (breach,) = result.of("breach")

    assert "unit" == breach["evidence"]["votes"]
    assert 4 * breach["evidence"]["n"] < breach["line"]
    assert result == replayed(packed(lines), UNITS, window=113)
    by_row = replayed(packed(lines), UNITS.replace("votes: unit", "votes: prediction"))
    assert by_row.of("breach")[0]["line"] < breach["line"]
