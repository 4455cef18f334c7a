"""Promotion gates at work: `pass` waits for proof, and proof moves nothing."""

from __future__ import annotations

import numpy as np
import pytest

from schemas.durations import Duration
from schemas.observations import Observations
from schemas.policies import GuardSpec, Policy, Promote, faults_of_policies
from schemas.verdicts import Verdict
from service.watch.detect import guards_for, wanted_tables
from service.watch.order import Said
from service.watch.step import Book
from tests.service.watch.traffic import (
    REGISTRY,
    START_MS,
    Traffic,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    kinds,
    play,
)

SAME = {"v41": 0.02, "v42": 0.02}
PROMOTE = Promote(margin=0.5)
ACCURACY = GuardSpec(signal="accuracy", min=0.8)


def a_promoting_book(weight: float = 0.5, **policy: object) -> Book:
    book = a_book(a_policy(**({"promote": PROMOTE} | policy)))
    book.roll_out(a_rollout(weight=weight), START_MS)
    return book


def verdicts(said: list[Said], version: str = "v42") -> list[Verdict]:
    return [fact for fact in said if isinstance(fact, Verdict) and fact.version == version]


def labelled(
    seed: int, seconds: int, bad: float = 0.05, missing: float = 0.0
) -> list[Observations]:
    """A hundred matured predictions a second, half of them v42's; some labels never came."""
    rng, messages = np.random.default_rng(seed), []
    for second in range(seconds):
        n = 100
        offset = second * n + np.arange(n)
        served = START_MS + second * 1000 + np.arange(n) * 10
        version, lost = rng.integers(0, 2, n), rng.random(n) < missing
        label = np.where(rng.random(n) < bad, 0.0, 1.0)
        blocks = [a_block("served", offset=offset, served_ms=served, version=version)]
        for kind, keep in (("matured", ~lost), ("unlabelled", lost)):
            columns = {"offset": offset[keep], "served_ms": served[keep], "version": version[keep],
                       "value": np.ones(int(keep.sum()))}  # fmt: skip
            if kind == "matured":
                columns |= {"label_value": label[keep], "observed_ms": served[keep] + 1}
            if keep.any():
                blocks.append(a_block(kind, **columns))
        messages.append(a_message(*blocks, watermark_ms=int(served[-1])))
    return messages


def test_pass_waits_for_the_gate_and_says_how_far_it_is() -> None:
    """If this breaks, "no alarm yet" is sold as "fit for promotion", or winning moves traffic."""
    book, traffic = a_promoting_book(), Traffic(seed=3, share=0.5)

    said = play(book, [traffic.second(SAME) for _ in range(400)])

    told = verdicts(said)
    pending = [v for v in told if v.reason == "promotion_pending"]
    assert pending and "inconclusive" == pending[0].verdict
    assert pending[0].text.startswith(
        "v42 keeps every limit; not proven fit for promotion yet: "
        "error_rate at most 50% above stable's ("
    )
    assert ("pass", "within_objectives") == (told[-1].verdict, told[-1].reason)
    gate = told[-1].guards[-1]
    assert ("promote error_rate against v41", "pass", "promote", None) == (
        gate.name, gate.verdict, gate.action, gate.alpha,
    )  # fmt: skip
    assert [] == kinds(said)


def test_without_a_promote_block_nothing_has_to_be_proven() -> None:
    """If this breaks, everybody's `pass` is delayed by a proof that nobody asked for."""
    with_gate, without = a_promoting_book(), a_promoting_book(promote=None)
    messages = [Traffic(seed=3, share=0.5).second(SAME)]
    traffic = Traffic(seed=3, share=0.5)
    messages = [traffic.second(SAME) for _ in range(60)]

    last = [verdicts(play(book, messages))[-1].reason for book in (with_gate, without)]

    assert ["promotion_pending", "within_objectives"] == last


def test_a_canary_worse_by_the_margin_does_not_pass_though_it_keeps_its_limit() -> None:
    """If this breaks, a canary that is half as bad again is promoted because its limit is wide."""
    for seed in range(5):
        book, traffic = a_promoting_book(), Traffic(seed=seed, share=0.5)
        said = play(book, [traffic.second({"v41": 0.02, "v42": 0.032}) for _ in range(300)])
        assert "promotion_pending" == verdicts(said)[-1].reason


def test_a_won_gate_does_not_hide_a_breach() -> None:
    """If this breaks, a canary that was proven once can no longer be rolled back."""
    book, traffic = a_promoting_book(), Traffic(seed=3, share=0.5)
    before = play(book, [traffic.second(SAME) for _ in range(400)])
    assert "pass" == verdicts(before)[-1].verdict

    said = play(book, [traffic.second({"v41": 0.02, "v42": 0.4}) for _ in range(60)])

    assert ["breach", "rollback"] == kinds(said)


def test_gates_take_no_alpha_and_stable_has_none() -> None:
    """If this breaks, a promote block makes every guard slower, or judges the stable."""
    policy, plain = a_policy(promote=PROMOTE), a_policy()

    canary = guards_for(policy, "canary", REGISTRY, "v41")
    stable = guards_for(policy, "stable", REGISTRY, "v41")

    assert plain.guard_alpha() == policy.guard_alpha() == canary["error_rate max=0.05"].alpha
    assert ["promote error_rate against v41", "error_rate max=0.05"] == list(canary)
    assert ["error_rate max=0.05"] == list(stable)


def test_each_provable_signal_has_one_gate_and_others_have_none() -> None:
    """If this breaks, latency can never pass, or errors pass unproven."""
    guards = [
        GuardSpec(signal="error_rate", max=0.05), GuardSpec(signal="error_rate", max_increase=0.2),
        GuardSpec(signal="latency_ms", quantile=0.9, max=300), ACCURACY,
        GuardSpec(signal="error", detector="adwin"), GuardSpec(signal="recall", min=0.5),
    ]  # fmt: skip

    built = guards_for(
        a_policy(guards=guards, promote=PROMOTE, positive=1), "canary", REGISTRY, "a"
    )

    gates = [guard.spec.signal for guard in built.values() if guard.gate]
    assert ["error_rate", "accuracy", "recall"] == gates


def test_another_stable_is_another_proof() -> None:
    """If this breaks, proof against last month's stable promotes against today's."""
    book, traffic = a_promoting_book(), Traffic(seed=3, share=0.5)
    play(book, [traffic.second(SAME) for _ in range(400)])
    won = book.guards["credit-risk"]["v42"]["promote error_rate against v41"]
    assert won.detector.reading().fired_at is not None

    book.roll_out(a_rollout(traffic.now_ms, stable="v40", weight=0.5), traffic.now_ms)
    play(book, [traffic.second(SAME)])

    fresh = book.guards["credit-risk"]["v42"]["promote error_rate against v40"]
    assert fresh.detector.reading().fired_at is None
    assert "promote error_rate against v41" not in book.guards["credit-risk"]["v42"]


def test_a_restart_keeps_what_was_proven() -> None:
    """If this breaks, every restart of the daemon starts all promotions afresh."""
    book, traffic = a_promoting_book(), Traffic(seed=3, share=0.5)
    play(book, [traffic.second(SAME) for _ in range(100)])
    again = Book([a_policy(promote=PROMOTE)], REGISTRY, "digest")

    again.restore({key: book.save(key) for key in ("", "credit-risk")})

    name = "promote error_rate against v41"
    left, right = (b.guards["credit-risk"]["v42"][name].detector for b in (book, again))
    assert left.reading() == right.reading() and (left.reading().n > 4000)


@pytest.mark.parametrize(("missing", "reason"), [(0.0, "pass"), (0.2, "promotion_pending")])
def test_labels_that_are_missing_keep_a_gate_open(missing: float, reason: str) -> None:
    """If this breaks, a canary whose bad labels get lost is proven good."""
    book = a_promoting_book(guards=[ACCURACY], horizon=Duration(0.001))

    said = play(book, labelled(1, 250, missing=missing))

    last = verdicts(said)[-1]
    assert reason == ("pass" if last.verdict == "pass" else last.reason)
    if missing:
        assert "labels of 80% of predictions, 90% needed" in last.text


def test_labels_never_prove_anything_on_arrival() -> None:
    """If this breaks, labels that come late for the canary alone promote it."""
    policy = a_policy(guards=[GuardSpec(signal="error", max_increase=0.2)], labels="conditional",
                      promote=PROMOTE)  # fmt: skip
    gate, guard = guards_for(policy, "canary", REGISTRY, "v41").values()

    assert (("final",), ("labelled", "final")) == (
        wanted_tables(gate), wanted_tables(guard),
    )  # fmt: skip


def test_without_a_share_of_traffic_it_says_what_is_missing() -> None:
    """If this breaks, a gate stays open for ever and nobody learns why."""
    book = a_book(a_policy(promote=PROMOTE, roles="inferred"))
    traffic = Traffic(seed=3, share=0.5)
    messages = [traffic.second(SAME, share=0.0)]

    said = play(book, messages + [traffic.second(SAME) for _ in range(100)])

    last = verdicts(said)[-1]
    assert "promotion_pending" == last.reason
    assert "no rollout event tells the canary's share of traffic" in last.text


def test_no_guard_may_bear_a_gates_name() -> None:
    """If this breaks, a guard takes a gate's place and the canary passes unproven."""
    guard = GuardSpec(signal="error_rate", max=0.05, name="promote error_rate against v41")

    faults = list(faults_of_policies([Policy(model="m", guards=[guard])], set()))

    assert ["policies[0].guards[0].name"] == [fault.split(":")[0] for fault in faults]
