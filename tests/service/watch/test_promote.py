"""A canary's way up: each step is earned, held, proven from traffic, and undone by nothing else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import Command, Order
from schemas.durations import Duration
from schemas.events import Rollout
from schemas.facts import Progress, Receipt
from schemas.observations import Observations
from schemas.policies import GuardSpec, Promote
from schemas.verdicts import Verdict
from service.act.worker import rollout_of
from service.watch.order import Said
from service.watch.promote import next_weight
from service.watch.step import Book
from tests.service.watch.traffic import (
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_rollout,
    a_tick,
    a_wall,
    kinds,
    play,
)

SAME = {"v41": 0.1, "v42": 0.1}
BAD = {"v41": 0.1, "v42": 0.8}
GUARD = GuardSpec(signal="error_rate", max=0.5)
STEPS = Promote(steps=[0.3, 0.5, 1.0], margin=0.5, bake=Duration(60))


def a_rising_book(promote: Promote = STEPS, **policy: Any) -> Book:
    book = a_book(a_policy(**({"promote": promote, "guards": [GUARD]} | policy)))
    book.roll_out(a_rollout(weight=0.3), START_MS)
    return book


def commands(said: list[Said]) -> list[Command]:
    return [fact for fact in said if isinstance(fact, Command)]


def seconds(traffic: Traffic, count: int, share: float, bad: dict[str, float] = SAME
            ) -> list[Observations]:  # fmt: skip
    return [traffic.second(bad, share=share) for _ in range(count)]


def an_answer(command: Command, now_ms: int, **changes: object) -> Receipt:
    given: dict[str, object] = {
        "command_id": command.command_id, "status": "applied", "before": {}, "after": {},
        "detail": {}, "adapter": "prod", "started_at": now_ms, "finished_at": now_ms,
        "attempts": 1, "model": command.model, "incident_id": command.incident_id,
        "action": command.action, "from_version": command.from_version,
        "to_version": command.to_version,
    }  # fmt: skip
    return Receipt(**(given | changes))  # type: ignore[arg-type]


def carry_out(book: Book, command: Command, now_ms: int) -> None:
    """What `act` would say after it has moved traffic."""
    receipt = an_answer(command, now_ms)
    rollout = rollout_of(receipt, command)
    assert rollout is not None
    book.receive(receipt)
    book.roll_out(rollout, now_ms)


def test_a_canary_climbs_step_by_step_and_becomes_stable() -> None:
    """If this breaks, a proven version stays a canary for ever, or skips its steps."""
    book, traffic = a_rising_book(), Traffic(share=0.3)

    first = play(book, seconds(traffic, 120, 0.3))
    carry_out(book, commands(first)[0], traffic.now_ms)
    second = play(book, seconds(traffic, 80, 0.5))
    carry_out(book, commands(second)[0], traffic.now_ms)
    third = play(book, seconds(traffic, 20, 1.0))

    assert ["proven:shift", "shift"] == kinds(first)
    assert ["verified:traffic_moved", "proven:promote", "promote"] == kinds(second)
    assert ["verified:traffic_moved"] == kinds(third)
    shift, promotion = commands(first)[0], commands(second)[0]
    assert ("v42", "v41", 0.5) == (shift.from_version, shift.to_version, shift.weight)
    assert ("v41", "v42", 0.3) == (
        shift.expected.stable, shift.expected.canary, shift.expected.weight,
    )  # fmt: skip
    assert ("v41", "v42") == (promotion.from_version, promotion.to_version)
    plan = book.models["credit-risk"].plan
    assert plan is not None
    assert ("v42", None) == (plan.stable, plan.canary)


def test_the_record_with_the_evidence_comes_before_the_command_and_under_its_id() -> None:
    """If this breaks (H14), traffic moves and nobody can tell why."""
    book, traffic = a_rising_book(), Traffic(share=0.3)

    said = [f for f in play(book, seconds(traffic, 120, 0.3)) if not isinstance(f, Verdict)]

    record, command = said
    assert isinstance(record, Progress) and isinstance(command, Command)
    assert record.incident_id == command.incident_id
    assert ["pass", "pass"] == [guard["verdict"] for guard in record.evidence["guards"]]


def test_a_step_is_not_taken_before_it_has_baked() -> None:
    """If this breaks, a version is promoted before it has seen a whole day."""
    book, traffic = a_rising_book(msgspec.structs.replace(STEPS, bake=Duration(86_400))), Traffic()

    said = play(book, seconds(traffic, 120, 0.3))

    told = [v for v in said if isinstance(v, Verdict) and v.version == "v42"]
    assert [] == kinds(said)
    assert "pass" == told[-1].verdict
    assert "Next is 50% of traffic, in 24 h." in told[-1].text


def test_a_step_waits_for_the_proof_and_says_how_long_about() -> None:
    """If this breaks, "no alarm yet" moves traffic, or nobody knows how long to wait."""
    book, traffic = a_rising_book(msgspec.structs.replace(STEPS, bake=Duration(1))), Traffic()

    said = play(book, seconds(traffic, 120, 0.3))

    proven = next(n for n, fact in enumerate(said) if isinstance(fact, Progress))
    before = [v for v in said[:proven] if isinstance(v, Verdict) and v.version == "v42"]
    pending = [v for v in before if v.reason == "promotion_pending"]
    assert len(pending) > 3 and "pass" == before[-1].verdict
    assert any(" of 3.0 nats, about a minute more)" in v.text for v in pending)


def test_with_final_proof_an_early_step_needs_no_proof_but_the_promotion_does() -> None:
    """If this breaks, `proof: final` is ignored, or promotes what is unproven."""
    early = Promote(steps=[0.3, 0.5, 1.0], margin=0.1, bake=Duration(20), proof="final")
    book, traffic = a_rising_book(early), Traffic()

    worse = {"v41": 0.1, "v42": 0.13}
    first = play(book, seconds(traffic, 40, 0.3, worse))
    carry_out(book, commands(first)[0], traffic.now_ms)
    second = play(book, seconds(traffic, 40, 0.5, worse))

    assert ["proven:shift", "shift"] == kinds(first)
    assert ["verified:traffic_moved"] == kinds(second)


def test_a_canary_that_breaches_is_rolled_back_and_never_promoted() -> None:
    """If this breaks, a bad version gets more traffic."""
    book, traffic = a_rising_book(), Traffic()
    play(book, seconds(traffic, 50, 0.3))

    said = play(book, seconds(traffic, 60, 0.3, BAD))

    assert ["breach", "rollback"] == kinds(said)


def test_a_breach_after_the_step_was_withheld_takes_the_step_away() -> None:
    """If this breaks, a step that was earned yesterday is taken by a version that fails today."""
    book, traffic = a_rising_book(), Traffic()

    held = play(book, seconds(traffic, 120, 0.3), held="ann: maintenance")
    ill = play(book, seconds(traffic, 60, 0.3, BAD), held="ann: maintenance")
    released = play(book, seconds(traffic, 5, 0.3, BAD))

    assert ["proven:shift", "withheld:hold"] == kinds(held)
    assert ["breach", "withheld:unproven", "withheld:hold"] == kinds(ill)
    assert ["rollback"] == kinds(released)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ({"mode": "observe"}, ["proven:shift", "withheld:observe"]),
        ({"mode": "propose"}, ["proven:shift", "proposed:propose"]),
    ],
)
def test_only_enforce_moves_traffic(policy: dict[str, Any], expected: list[str]) -> None:
    """If this breaks (H11), a policy that only observes promotes."""
    book, traffic = a_rising_book(**policy), Traffic()

    assert expected == kinds(play(book, seconds(traffic, 120, 0.3)))


def test_a_proposed_step_is_sent_once_when_a_person_approves() -> None:
    """If this breaks (H11), an approval does nothing, or works twice."""
    book, traffic = a_rising_book(mode="propose"), Traffic()
    play(book, seconds(traffic, 120, 0.3))
    (case,) = book.models["credit-risk"].cases.values()
    order = Order(order_id="o1", kind="approve", model="credit-risk", command_id=case.proposed,
                  actor="ann", reason="agreed", at=START_MS)  # fmt: skip

    first, second = (book.obey(order, a_wall(traffic.now_ms)) for _ in range(2))

    assert ["approved:person", "shift"] == kinds(first)
    assert [] == kinds(second)


def test_a_rejected_step_is_not_proposed_again_until_the_plan_changes() -> None:
    """If this breaks, a person who says no is asked again every second."""
    book, traffic = a_rising_book(mode="propose"), Traffic()
    play(book, seconds(traffic, 120, 0.3))
    (case,) = book.models["credit-risk"].cases.values()
    order = Order(order_id="o1", kind="reject", model="credit-risk", command_id=case.proposed,
                  actor="ann", reason="not today", at=START_MS)  # fmt: skip

    book.obey(order, a_wall(traffic.now_ms))
    said = play(book, seconds(traffic, 100, 0.3))
    book.roll_out(a_rollout(traffic.now_ms, weight=0.4), traffic.now_ms)
    again = play(book, seconds(traffic, 62, 0.4))

    assert [] == kinds(said)
    assert ["proven:shift", "proposed:propose"] == kinds(again)


def test_a_share_that_traffic_does_not_show_stops_the_way_up() -> None:
    """If this breaks, a router that did not move is climbed past, and proofs rest on a lie."""
    book, traffic = a_rising_book(), Traffic()
    first = play(book, seconds(traffic, 120, 0.3))
    carry_out(book, commands(first)[0], traffic.now_ms)

    said = play(book, seconds(traffic, 80, 0.3))
    late = play(book, seconds(traffic, 80, 0.5))

    assert ["unverified:still_serving"] == kinds(said)
    assert ["verified:traffic_moved", "proven:promote", "promote"] == kinds(late)


@pytest.mark.parametrize(
    ("status", "effect", "expected"),
    [
        ("superseded", "none", []),
        ("refused", "none", ["withheld:refused"]),
        ("failed", "none", ["withheld:failed"]),
        ("partial", "mixed", ["paged:partial"]),
        ("expired", "unknown", ["paged:expired"]),
        ("expired", "none", ["shift"]),
    ],
)
def test_what_follows_a_step_that_was_not_applied(
    status: str, effect: str, expected: list[str]
) -> None:
    """If this breaks, a refused step is repeated without end, or half of one passes unseen."""
    book, traffic = a_rising_book(), Traffic()
    (command,) = commands(play(book, seconds(traffic, 120, 0.3)))
    answer = an_answer(command, traffic.now_ms, status=status, detail={"effect": effect})

    said = list(book.receive(answer)) + play(book, seconds(traffic, 20, 0.3))

    assert expected == kinds(said)


def test_a_stable_that_is_ill_stops_the_way_up() -> None:
    """If this breaks, a canary is promoted because it is no worse than something broken."""
    book, traffic = a_rising_book(), Traffic()
    play(book, seconds(traffic, 58, 0.3))

    said = play(book, seconds(traffic, 60, 0.3, {"v41": 0.8, "v42": 0.1}))

    assert not commands(said)


def test_a_pipeline_that_moves_on_by_itself_is_followed() -> None:
    """If this breaks, two hands move one canary."""
    book, traffic = a_rising_book(), Traffic()
    first = play(book, seconds(traffic, 120, 0.3))

    book.roll_out(a_rollout(traffic.now_ms, weight=0.5, source="pipeline"), traffic.now_ms)
    said = play(book, seconds(traffic, 62, 0.5))

    assert ["shift"] == [c.action for c in commands(first)]
    assert ["promote"] == [c.action for c in commands(said)]
    assert commands(first)[0].command_id != commands(said)[0].command_id


@pytest.mark.parametrize(
    ("weight", "steps", "expected"),
    [(0.0, [0.05, 1.0], 0.05), (0.05, [0.05, 0.5], 0.5), (0.5, [0.05, 0.5], 1.0),
     (0.07, [0.05, 0.25], 0.25), (1.0, [0.5, 1.0], 1.0)],
)  # fmt: skip
def test_the_next_step_is_the_first_that_is_larger(
    weight: float, steps: list[float], expected: float
) -> None:
    """If this breaks, a canary between two steps is moved down, or never becomes stable."""
    assert expected == next_weight(weight, steps)


def test_silence_holds_a_canary_where_it_is() -> None:
    """If this breaks, a version of which nothing is known gets more traffic."""
    book, traffic = a_rising_book(msgspec.structs.replace(STEPS, bake=Duration(100))), Traffic()
    play(book, seconds(traffic, 80, 0.3))

    said = play(book, [a_tick(traffic.now_ms + s * 1000) for s in range(300)])

    assert [] == kinds(said)


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(56, 84), repeat=st.integers(0, 3))
def test_a_restart_on_the_way_up_changes_nothing(cut: int, repeat: int) -> None:
    """If this breaks, a crash loses a step, or sends it under another id."""
    promote = msgspec.structs.replace(STEPS, margin=2.0)
    traffic = Traffic()
    messages = seconds(traffic, 84, 0.3)
    whole, first = a_rising_book(promote), a_rising_book(promote)

    expected = play(whole, messages)
    said = play(first, messages[:cut])
    second = a_book(a_policy(promote=promote, guards=[GUARD]))
    second.restore({key: first.save(key) for key in ("", "credit-risk")})
    said += play(second, messages[max(0, cut - repeat) :])

    facts = [[f for f in part if not isinstance(f, Verdict)] for part in (expected, said)]
    assert ["proven:shift", "shift"] == kinds(expected)
    assert facts[0] == facts[1]


def test_a_step_keeps_the_rollout_s_id_and_a_promotion_begins_another() -> None:
    """If this breaks, each step of a canary reopens its incidents, or two rollouts share one."""
    book, traffic = a_rising_book(), Traffic()
    (shift,) = commands(play(book, seconds(traffic, 120, 0.3)))
    promotion = msgspec.structs.replace(shift, action="promote", from_version="v41",
                                        to_version="v42", weight=None)  # fmt: skip

    stepped = rollout_of(an_answer(shift, traffic.now_ms), shift)
    promoted = rollout_of(an_answer(promotion, traffic.now_ms), promotion)

    assert isinstance(stepped, Rollout) and isinstance(promoted, Rollout)
    assert shift.rollout_id == stepped.rollout_id != promoted.rollout_id
    assert ("v41", "v42", 0.5) == (stepped.stable, stepped.canary, stepped.weight)
    assert ("v42", None) == (promoted.stable, promoted.canary)
