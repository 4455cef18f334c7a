"""A graduated response: each word in its turn, and a person can end it at every one."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.commands import Command, Order
from schemas.durations import Duration
from schemas.policies import GuardSpec, faults_of_policies
from schemas.verdicts import Verdict
from service.watch.step import Book
from tests.service.watch.test_promote import an_answer, carry_out
from tests.service.watch.traffic import (
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_rollout,
    a_wall,
    kinds,
    play,
)

BAD = {"v41": 0.01, "v42": 0.3}
ALL = ["alert", "hold", "shrink", "rollback"]


def a_patient_book(response: list[str] = ALL, **policy: Any) -> Book:
    book = a_book(a_policy(response=response, patience=Duration(60), **policy))
    book.roll_out(a_rollout(), START_MS)
    return book


def answered(book: Book, traffic: Traffic, seconds: int, share: float = 0.1) -> list[Any]:
    """Bad traffic, with a platform that carries out each command at once."""
    said = []
    for _ in range(seconds):
        new = play(book, [traffic.second(BAD, share=share)])
        said += new
        for command in [fact for fact in new if isinstance(fact, Command)]:
            if command.action == "hold":
                book.receive(an_answer(command, traffic.now_ms))
            else:
                carry_out(book, command, traffic.now_ms)
                share = command.weight or 0.0
    return said


def test_each_word_comes_after_a_time_in_which_nobody_acted() -> None:
    """If this breaks, a team that asked to be told first finds its traffic moved."""
    book, traffic = a_patient_book(), Traffic()

    first = answered(book, traffic, 50)
    said = first + answered(book, traffic, 200)

    assert ["breach"] == kinds(first)
    assert ["breach", "escalated:response", "hold", "escalated:response", "shift",
            "escalated:response", "rollback", "verified:traffic_moved"] == kinds(said)  # fmt: skip
    shrink = next(fact for fact in said if isinstance(fact, Command) and fact.action == "shift")
    assert ("v42", "v41", 0.01) == (shrink.from_version, shrink.to_version, shrink.weight)


def test_without_a_response_a_breach_is_rolled_back_at_once() -> None:
    """If this breaks, every policy of today waits before it acts."""
    book, traffic = a_book(), Traffic()
    book.roll_out(a_rollout(), START_MS)

    assert ["breach", "rollback"] == kinds(play(book, [traffic.second(BAD) for _ in range(20)]))


def test_a_canary_that_has_so_little_already_is_not_shrunk() -> None:
    """If this breaks, "shrink" gives a bad canary more traffic."""
    book, traffic = a_patient_book(["shrink", "rollback"], shrink_to=0.2), Traffic()

    assert ["breach", "rollback"] == kinds(play(book, [traffic.second(BAD) for _ in range(20)]))


def test_a_person_who_moves_the_canary_ends_it() -> None:
    """If this breaks, what a person has settled is ordered again an hour later."""
    book, traffic = a_patient_book(), Traffic()
    answered(book, traffic, 30)

    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
    said = [f for f in answered(book, traffic, 200, share=0.0) if isinstance(f, Command)]

    assert [] == said


def test_a_word_that_is_proposed_waits_for_its_answer() -> None:
    """If this breaks, a person who is still reading finds the next proposal already."""
    book, traffic = a_patient_book(["hold", "rollback"], mode="propose"), Traffic()
    said = play(book, [traffic.second(BAD) for _ in range(120)])
    (case,) = book.models["credit-risk"].cases.values()
    order = Order(order_id="o1", kind="approve", model="credit-risk", command_id=case.proposed,
                  actor="ann", reason="agreed", at=START_MS)  # fmt: skip

    (hold,) = [f for f in book.obey(order, a_wall(traffic.now_ms)) if isinstance(f, Command)]
    book.receive(an_answer(hold, traffic.now_ms))
    later = play(book, [traffic.second(BAD) for _ in range(70)])

    assert ["breach", "proposed:propose"] == kinds(said)
    assert ["escalated:response", "proposed:propose"] == kinds(later)


def test_a_platform_that_cannot_hold_does_not_end_the_response() -> None:
    """If this breaks, a bad canary stays because its router knows no hold."""
    book, traffic = a_patient_book(["hold", "rollback"]), Traffic()
    said = play(book, [traffic.second(BAD) for _ in range(20)])
    (hold,) = [fact for fact in said if isinstance(fact, Command)]

    refused = book.receive(
        an_answer(hold, traffic.now_ms, status="refused", detail={"effect": "none"})
    )
    later = play(book, [traffic.second(BAD) for _ in range(70)])

    assert ["withheld:refused"] == kinds(refused)
    assert ["escalated:response", "rollback"] == kinds(later)


def test_a_rollback_that_is_wanted_after_a_hold_is_sent() -> None:
    """If this breaks, a guard that only holds keeps a worse one from rolling back."""
    guards = [GuardSpec(signal="error_rate", max=0.05, action="hold"),
              GuardSpec(signal="error_rate", max=0.15)]  # fmt: skip
    book, traffic = a_book(a_policy(guards=guards)), Traffic()
    book.roll_out(a_rollout(), START_MS)

    said = answered(book, traffic, 60)

    assert ["breach", "hold", "breach", "rollback"] == kinds(said)[:4]


def test_a_restart_between_two_words_changes_nothing() -> None:
    """If this breaks, a crash begins a response anew, or skips a word."""
    traffic = Traffic()
    messages = [traffic.second(BAD) for _ in range(200)]
    whole, first = a_patient_book(), a_patient_book()

    expected = play(whole, messages)
    said = play(first, messages[:95])
    second = a_book(a_policy(response=ALL, patience=Duration(60)))
    second.restore({key: first.save(key) for key in ("", "credit-risk")})
    said += play(second, messages[93:])

    facts = [[f for f in part if not isinstance(f, Verdict)] for part in (expected, said)]
    assert facts[0] == facts[1]
    assert ["hold", "shift", "rollback"] == [f.action for f in said if isinstance(f, Command)]


@pytest.mark.parametrize("response", [[], ["rollback", "alert"], ["hold", "hold"]])
def test_a_response_that_goes_nowhere_or_backwards_is_refused(response: list[str]) -> None:
    """If this breaks, a response is accepted that never gets to its end."""
    faults = list(faults_of_policies([a_policy(response=response)], set()))

    assert ["policies[0].response"] == [fault.split(":")[0] for fault in faults]
