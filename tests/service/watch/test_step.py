"""The story of an incident, told by messages alone."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.commands import Command, Order
from schemas.durations import Duration
from schemas.facts import Breach
from schemas.policies import GuardSpec
from schemas.verdicts import Verdict
from service.watch.step import Book
from tests.service.watch.traffic import (
    START_MS,
    Traffic,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_receipt,
    a_rollout,
    a_tick,
    a_wall,
    kinds,
    play,
)

HEALTHY = {"v41": 0.01, "v42": 0.01}
BAD = {"v41": 0.01, "v42": 0.3}


def a_started_book(**policy: object) -> Book:
    book = a_book(a_policy(**policy))
    book.roll_out(a_rollout(), START_MS)
    return book


def test_a_bad_canary_is_breached_then_commanded_once() -> None:
    """If this breaks, a bad canary stays in traffic, or is ordered out twice."""
    book, traffic = a_started_book(), Traffic()

    said = play(book, [traffic.second(BAD) for _ in range(30)])

    assert ["breach", "rollback"] == kinds(said)
    (command,) = [fact for fact in said if isinstance(fact, Command)]
    assert ("v42", "v41", "v41", "v42", 0.1) == (
        command.from_version, command.to_version, command.expected.stable,
        command.expected.canary, command.expected.weight,
    )  # fmt: skip


def test_each_breach_names_the_event_at_which_its_own_guard_fired() -> None:
    """If this breaks, an incident points at the wrong prediction."""
    guards = [GuardSpec(signal="error_rate", max=0.05), GuardSpec(signal="error_rate", max=0.2)]
    book, traffic = a_started_book(guards=guards), Traffic()

    said = play(book, [traffic.second(BAD) for _ in range(60)])

    early, late = (fact.position["offset"] for fact in said if isinstance(fact, Breach))
    assert int(early) < int(late)


def test_a_healthy_canary_is_left_alone_and_passes_in_the_end() -> None:
    """If this breaks, healthy versions are taken out, or never reported as proven."""
    book, traffic = a_started_book(), Traffic(share=0.5)

    said = play(book, [traffic.second(HEALTHY) for _ in range(60)])

    assert [] == kinds(said)
    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert ("pass", "within_objectives") == (last.verdict, last.reason)


def test_traffic_proves_the_rollback() -> None:
    """If this breaks, a rollback is called verified without proof, or never."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)

    said = play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(3)])

    assert ["verified:traffic_moved"] == kinds(said)


def test_a_platform_that_lied_is_tried_again_and_then_paged() -> None:
    """If this breaks, a platform that answers yes and does nothing is believed."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))

    first = play(book, [traffic.second(BAD) for _ in range(35)])
    book.receive(a_receipt(book, traffic.now_ms))
    second = play(book, [traffic.second(BAD) for _ in range(35)])

    assert ["unverified:still_serving", "escalated:retry", "rollback"] == kinds(first)
    assert ["unverified:still_serving", "paged:still_serving"] == kinds(second)


@pytest.mark.parametrize(
    ("status", "effect", "expected"),
    [
        ("expired", "none", ["rollback"]),
        ("expired", "unknown", ["paged:expired"]),
        ("failed", "none", ["paged:failed"]),
        ("partial", "mixed", ["paged:partial"]),
        ("superseded", "none", []),
    ],
)
def test_what_follows_a_command_that_was_not_applied(
    status: str, effect: str, expected: list[str]
) -> None:
    """If this breaks, a failed rollback is forgotten, or repeated over an unknown outcome."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])
    receipt = a_receipt(book, traffic.now_ms, status=status, detail={"effect": effect})

    said = list(book.receive(receipt))
    said += play(book, [traffic.second(BAD) for _ in range(2)])

    assert expected == kinds(said)


def test_traffic_that_stops_is_said_to_have_stopped() -> None:
    """If this breaks, silence after a rollback passes for proof."""
    book, traffic = a_started_book(retries=0), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))

    said = play(book, [a_tick(traffic.now_ms + s * 1000) for s in range(40)])

    assert ["unverified:no_traffic", "paged:no_traffic"] == kinds(said)


def test_both_became_worse_and_nothing_is_rolled_back() -> None:
    """If this breaks, a change of the world takes out a canary that did no wrong."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(HEALTHY) for _ in range(20)])

    said = play(book, [traffic.second({"v41": 0.3, "v42": 0.3}) for _ in range(30)])

    # One case for each version: stable has no target, canary is not alone in it.
    assert {"breach", "withheld:both_moved", "withheld:no_target"} == set(kinds(said))


def test_silence_is_unknown_even_when_a_guard_has_alarmed() -> None:
    """If this breaks, lost telemetry is taken for health or for harm."""
    book, traffic = a_started_book(mode="observe"), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])

    play(book, [a_tick(traffic.now_ms + s * 1000) for s in range(70)])

    verdict = book.models["credit-risk"].versions["v42"].verdict
    assert verdict is not None
    assert ("unknown", "stale") == (verdict.verdict, verdict.reason)


def test_labels_after_the_last_prediction_are_no_silence() -> None:
    """If this breaks, a version is unknown just when its labels arrive."""
    book = a_started_book(guards=[GuardSpec(signal="accuracy", min=0.9)], horizon=Duration(600))
    rows = range(100)
    served = a_block(offset=rows, served_ms=[START_MS] * 100, version=[0, 1] * 50)
    labelled = a_block("labelled", "outcomes", offset=[0], served_ms=[START_MS], version=[1],
                       observed_ms=[START_MS + 300_000], value=[1], label_value=[1])  # fmt: skip

    said = play(book, [a_message(served), a_message(labelled, watermark_ms=START_MS + 300_000)])

    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert "stale" != last.reason


def test_a_canary_that_is_silent_beside_its_stable_is_unknown() -> None:
    """If this breaks, a canary whose telemetry is lost keeps its good verdict."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(HEALTHY) for _ in range(5)])

    said = play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(70)])

    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert ("unknown", "stale") == (last.verdict, last.reason)


@pytest.mark.parametrize(
    ("policy", "word"),
    [
        ({"mode": "observe"}, "withheld:observe"),
        ({"mode": "propose"}, "proposed:propose"),
    ],
)
def test_only_enforce_sends(policy: dict[str, object], word: str) -> None:
    """If this breaks, a policy that only observes moves production traffic."""
    book, traffic = a_started_book(**policy), Traffic()

    said = play(book, [traffic.second(BAD) for _ in range(30)])

    assert ["breach", word] == kinds(said)


def test_a_proposal_is_sent_once_when_a_person_approves() -> None:
    """If this breaks, an approval does nothing, or can be used twice."""
    book, traffic = a_started_book(mode="propose"), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)])
    (case,) = book.models["credit-risk"].cases.values()
    order = Order(order_id="o1", kind="approve", model="credit-risk", command_id=case.proposed,
                  actor="ann", reason="agreed", at=START_MS)  # fmt: skip

    first = book.obey(order, a_wall(traffic.now_ms))
    second = book.obey(order, a_wall(traffic.now_ms))

    assert ["approved:person", "rollback"] == kinds(first)
    assert [] == kinds(second)


def test_a_hold_withholds_and_its_release_lets_the_command_go() -> None:
    """If this breaks, a hold is ignored, or ends automatic action for good."""
    book, traffic = a_started_book(), Traffic()

    held = play(book, [traffic.second(BAD) for _ in range(30)], held="ann: maintenance")
    released = play(book, [traffic.second(BAD)])

    assert ["breach", "withheld:hold"] == kinds(held)
    assert ["rollback"] == kinds(released)


def test_an_old_decision_is_recorded_and_not_sent() -> None:
    """If this breaks, replaying last month's events moves today's traffic."""
    book, traffic = a_started_book(), Traffic()
    said = []
    for message in [traffic.second(BAD) for _ in range(30)]:
        said += book.observe(message, message.watermark_ms)
        for wanting in list(book.wanting()):
            said += book.act(wanting, a_wall(message.watermark_ms + 301_000), None)

    assert ["breach", "withheld:stale"] == kinds(said)


def test_without_rollout_events_roles_are_inferred_and_acting_needs_permission() -> None:
    """If this breaks, a guess about who is stable moves traffic."""
    book, permitted = a_book(), a_book(a_policy(roles="inferred"))
    messages = [Traffic(seed=3).second(BAD, share=0.0)]
    traffic = Traffic(seed=3)
    messages = [traffic.second(BAD, share=0.0)] + [traffic.second(BAD) for _ in range(40)]

    said, allowed = play(book, messages), play(permitted, messages)

    assert ["breach", "withheld:roles"] == kinds(said)
    assert ["breach", "rollback"] == kinds(allowed)
    assert ["inferred"] == [fact.roles for fact in said if isinstance(fact, Breach)]


def test_a_rollout_that_begins_again_under_its_old_id_is_guarded_again() -> None:
    """If this breaks, a bad version rolled out twice under one id serves for ever."""
    book, traffic = a_book(a_policy(cooldown=Duration(0))), Traffic()
    book.roll_out(a_rollout(rollout_id="r1"), START_MS)
    first = play(book, [traffic.second(BAD) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
    play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(3)])
    book.models["credit-risk"].quarantine.clear()

    book.roll_out(a_rollout(traffic.now_ms, rollout_id="r1"), traffic.now_ms)
    second = play(book, [traffic.second(BAD) for _ in range(30)])

    assert ["breach", "rollback"] == kinds(first)
    assert ["breach", "rollback"] == kinds(second)
    commands = [f.command_id for f in (*first, *second) if isinstance(f, Command)]
    assert 2 == len(set(commands))


def test_a_version_that_no_longer_serves_is_not_ordered_out() -> None:
    """If this breaks, a hold that ends moves traffic over a version that is long gone."""
    book, traffic = a_started_book(), Traffic()
    play(book, [traffic.second(BAD) for _ in range(30)], held="ann: maintenance")
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)

    said = play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(3)])

    assert ["withheld:superseded"] == kinds(said)


def test_a_person_can_roll_back_a_healthy_canary() -> None:
    """If this breaks, the button does nothing, or acts without a record."""
    book, traffic = a_started_book(mode="observe"), Traffic()
    play(book, [traffic.second(HEALTHY) for _ in range(3)])
    order = Order(order_id="o1", kind="rollback", model="credit-risk", actor="ann",
                  reason="complaints", at=START_MS)  # fmt: skip

    said = book.obey(order, a_wall(traffic.now_ms))

    assert ["breach", "rollback"] == kinds(said)
    (command,) = [fact for fact in said if isinstance(fact, Command)]
    assert "ann" == command.actor


def test_a_rollout_takes_effect_between_the_rows_of_its_time() -> None:
    """If this breaks, rows of a later canary are judged as an earlier one's."""
    book = a_started_book()
    book.observe(a_message(a_block(offset=[0], served_ms=[START_MS], version=[0])), START_MS)
    book.roll_out(a_rollout(START_MS + 500, canary="v43", weight=0.2), START_MS)
    block = a_block(offset=[1, 2], served_ms=[START_MS + 100, START_MS + 900], version=[1, 1])

    before = book.models["credit-risk"].plan
    assert before is not None
    assert "v42" == before.canary
    book.observe(a_message(block, watermark_ms=START_MS + 900), START_MS)

    after = book.models["credit-risk"].plan
    assert after is not None
    assert "v43" == after.canary


def test_repeated_rows_are_counted_once_and_a_new_stream_starts_afresh() -> None:
    """If this breaks, a restart of ingest doubles errors, or a topic made again is ignored."""
    book, traffic = a_started_book(), Traffic()
    message = traffic.second(BAD)

    play(book, [message, message])
    counted = book.models["credit-risk"].versions["v41"].predictions
    again = msgspec.structs.replace(message, streams={"predictions": "p2", "outcomes": "o"})
    play(book, [again])

    assert 2 * counted == book.models["credit-risk"].versions["v41"].predictions
    assert 100 == sum(
        v.predictions for v in book.models["credit-risk"].versions.values()
    ) // 2  # fmt: skip


def test_labels_that_are_lost_make_label_signals_unknown_only() -> None:
    """If this breaks, a dead label feed rolls back or clears a version."""
    guards = [GuardSpec(signal="accuracy", min=0.9)]
    book = a_started_book(guards=guards, horizon=Duration(1), mode="observe")
    rows = range(100)
    final = a_block("unlabelled", offset=rows, served_ms=[START_MS] * 100, version=[1] * 100,
                    value=[1] * 100)  # fmt: skip
    served = a_block(offset=rows, served_ms=[START_MS] * 100, version=[1] * 100)

    said = play(book, [a_message(served), a_message(final, watermark_ms=START_MS + 2000)])

    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert ("unknown", "label_outage") == (last.verdict, last.reason)


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 25), repeat=st.integers(0, 3), rate=st.sampled_from([0.01, 0.1, 0.3]))
def test_a_restart_anywhere_changes_nothing_but_repeats(cut: int, repeat: int, rate: float) -> None:
    """If this breaks, a crash makes another decision, or the same under another id."""
    traffic = Traffic()
    messages = [traffic.second({"v41": 0.01, "v42": rate}) for _ in range(25)]
    whole, first = a_started_book(), a_started_book()

    expected = play(whole, messages)
    said = play(first, messages[:cut])
    second = a_book()
    second.restore({key: first.save(key) for key in ("", "credit-risk") if key in first.changed
                    or key in first.models})  # fmt: skip
    said += play(second, messages[max(0, cut - repeat) :])

    facts = [fact for fact in said if not isinstance(fact, Verdict)]
    assert [fact for fact in expected if not isinstance(fact, Verdict)] == facts
    assert whole.models["credit-risk"].versions["v42"].predictions == (
        second.models["credit-risk"].versions["v42"].predictions
    )
