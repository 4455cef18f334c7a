"""Several canaries at once, and versions that no rollout event names."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.commands import Command
from schemas.durations import Duration
from schemas.events import Canary, Rollout
from schemas.facts import Breach
from schemas.observations import Observations
from schemas.policies import GuardSpec, Promote
from schemas.verdicts import Verdict
from schemas.wire import fault_of_rollout
from service.act.plans import Current, fault_of_expected, wanted_shares
from service.act.worker import rollout_of
from service.watch.state import Plan
from service.watch.step import Book
from service.watch.weights import among_two
from tests.service.watch.test_promote import an_answer
from tests.service.watch.traffic import (
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    kinds,
    play,
)

NAMES = ["v41", "v42", "v43"]
OWN = GuardSpec(signal="error_rate", max=0.05)
RELATIVE = GuardSpec(signal="error_rate", max_increase=0.5)


def three(seed: int, seconds: int, shares: list[float], bad: list[float], first: int = 0
          ) -> list[Observations]:  # fmt: skip
    """A hundred predictions a second of v41, v42 and v43."""
    rng, messages = np.random.default_rng(seed), []
    for second in range(first, first + seconds):
        version = rng.choice(3, size=100, p=shares)
        offset = second * 100 + np.arange(100)
        served = START_MS + second * 1000 + np.arange(100) * 10
        error = rng.random(100) < np.array(bad)[version]
        block = a_block(offset=offset, served_ms=served, version=version, error=error)
        messages.append(a_message(block, watermark_ms=int(served[-1]), versions=NAMES))
    return messages


def a_book_of_two(weight: float = 0.2, other: float = 0.1, **policy: Any) -> Book:
    book = a_book(a_policy(**policy))
    book.roll_out(a_rollout(weight=weight, canaries=[Canary("v43", other)]), START_MS)
    return book


@pytest.mark.parametrize(
    ("bad", "guilty", "other"),
    [([0.01, 0.01, 0.3], "v43", "v42"), ([0.01, 0.3, 0.01], "v42", "v43")],
)
@pytest.mark.parametrize("guard", [OWN, RELATIVE])
def test_the_one_that_is_bad_is_rolled_back_and_the_other_keeps_its_share(
    guard: GuardSpec, bad: list[float], guilty: str, other: str
) -> None:
    """If this breaks, a bad canary hides behind a good one, or takes it out of traffic as well."""
    book = a_book_of_two(guards=[guard])

    said = play(book, three(3, 60, [0.7, 0.2, 0.1], bad))

    assert ["breach", "rollback"] == kinds(said)
    (command,) = [fact for fact in said if isinstance(fact, Command)]
    keeps = {"v42": 0.2, "v43": 0.1}
    assert (guilty, "v41", {other: keeps[other]}) == (
        command.from_version, command.to_version, command.keeps,
    )  # fmt: skip
    assert {"v41": 100 * (1 - keeps[other]), other: 100 * keeps[other]} == pytest.approx(
        wanted_shares(command)
    )
    now = Current(shares={"v41": 70.0, "v42": 20.0, "v43": 10.0})
    assert None is fault_of_expected(now, command)
    rollout = rollout_of(an_answer(command, START_MS + 60_000), command)
    assert rollout is not None
    assert ("v41", other, keeps[other], None) == (
        rollout.stable, rollout.canary, rollout.weight, rollout.canaries,
    )  # fmt: skip


def test_healthy_canaries_are_left_alone_and_both_get_a_verdict() -> None:
    """If this breaks, two canaries accuse each other."""
    book = a_book_of_two(guards=[OWN, RELATIVE])

    said = play(book, three(5, 200, [0.7, 0.2, 0.1], [0.02, 0.02, 0.02]))

    assert [] == kinds(said)
    judged = {v.version: v.role for v in said if isinstance(v, Verdict)}
    assert {"v41": "stable", "v42": "canary", "v43": "canary"} == judged


def test_a_canary_is_compared_at_its_weight_among_the_two() -> None:
    """If this breaks, what the other canary has makes this one look better, or worse."""
    plan = Plan("v41", "v42", 0.2, inferred=False, steps=[(0, 0.2)],
                others={"v43": [(0, 0.1), (100, 0.3)]})  # fmt: skip
    times = np.array([50, 150])

    assert [0.2 / 0.9, 0.2 / 0.7] == pytest.approx(among_two(plan, "v42", times).tolist())
    assert [0.1 / 0.8, 0.3 / 0.8] == pytest.approx(among_two(plan, "v43", times).tolist())


def test_weights_that_change_keep_the_evidence() -> None:
    """If this breaks, each step of one canary clears the record of all."""
    book = a_book_of_two(guards=[OWN])
    play(book, three(3, 5, [0.7, 0.2, 0.1], [0.01] * 3))
    guard = book.guards["credit-risk"]["v43"][OWN.label]

    book.roll_out(a_rollout(START_MS + 5000, weight=0.2, canaries=[Canary("v43", 0.3)]), START_MS)
    play(book, three(4, 5, [0.5, 0.2, 0.3], [0.01] * 3, first=5))

    plan = book.models["credit-risk"].plan
    assert plan is not None
    assert [(START_MS, 0.1), (START_MS + 5000, 0.3)] == plan.others["v43"]
    assert guard is book.guards["credit-risk"]["v43"][OWN.label]


def test_nothing_is_promoted_while_there_are_several() -> None:
    """If this breaks, the first of two candidates wins because it is named first."""
    promote = Promote(steps=[0.2, 1.0], margin=5.0, bake=Duration(20))
    book = a_book_of_two(promote=promote, guards=[GuardSpec(signal="error_rate", max=0.2)])

    said = play(book, three(3, 120, [0.7, 0.2, 0.1], [0.05] * 3))

    assert [] == kinds(said)
    told = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert ("pass", True) == (told.verdict, "several canaries" in told.text)


def test_a_version_that_no_plan_names_is_judged_and_not_moved() -> None:
    """If this breaks, a version that slipped into traffic is seen by nobody."""
    book = a_book(a_policy(guards=[OWN, RELATIVE]))
    book.roll_out(a_rollout(weight=0.2), START_MS)

    said = play(book, three(3, 60, [0.7, 0.2, 0.1], [0.01, 0.01, 0.3]))

    assert ["breach", "withheld:unplanned"] == kinds(said)
    (breach,) = [fact for fact in said if isinstance(fact, Breach)]
    assert ("v43", OWN.label) == (breach.version, breach.guard)
    assert "extra" in {v.role for v in said if isinstance(v, Verdict) and v.version == "v43"}


def test_a_version_of_an_earlier_plan_that_drains_is_not_judged_again() -> None:
    """If this breaks, the last requests of a version that was taken out open a second incident."""
    book = a_book(a_policy(guards=[OWN]))
    book.roll_out(a_rollout(canary="v43", weight=0.1), START_MS)
    play(book, three(3, 2, [0.9, 0.0, 0.1], [0.01] * 3))
    book.roll_out(a_rollout(START_MS + 2000, canary=None, weight=None), START_MS)

    said = play(book, three(3, 60, [0.9, 0.0, 0.1], [0.01, 0.01, 0.5], first=2))

    assert [] == kinds(said)


def test_a_restart_with_several_canaries_changes_nothing() -> None:
    """If this breaks, a crash forgets the second canary."""
    messages = three(3, 60, [0.7, 0.2, 0.1], [0.02, 0.02, 0.08])
    whole, first = a_book_of_two(guards=[RELATIVE]), a_book_of_two(guards=[RELATIVE])

    expected = play(whole, messages)
    said = play(first, messages[:7])
    second = a_book(a_policy(guards=[RELATIVE]))
    second.restore({key: first.save(key) for key in ("", "credit-risk")})
    said += play(second, messages[5:])

    facts = [[f for f in part if not isinstance(f, Verdict)] for part in (expected, said)]
    assert facts[0] == facts[1]
    assert ["breach", "rollback"] == kinds(said)


def test_a_list_alone_gives_its_first_as_canary() -> None:
    """If this breaks, a pipeline that only sends a list has no canary."""
    book, canaries = a_book(), [Canary("v42", 0.2), Canary("v43", 0.1)]
    book.roll_out(a_rollout(canary=None, weight=None, canaries=canaries), START_MS)

    plan = book.models["credit-risk"].plan
    assert plan is not None
    assert ("v42", 0.2, ["v43"]) == (plan.canary, plan.weight, list(plan.others))


@pytest.mark.parametrize(
    ("canaries", "expected"),
    [
        ([Canary("v41", 0.1)], "found a version twice"),
        ([Canary("v42", 0.1)], "found a version twice"),
        ([Canary("v43", 0.95)], "found weights above 1 together"),
        ([Canary("v43", 0.1)], None),
    ],
)
def test_a_list_that_cannot_be_is_refused(canaries: list[Canary], expected: str | None) -> None:
    """If this breaks, shares are compared that no router could have."""
    event: Rollout = a_rollout(canaries=canaries)

    fault = fault_of_rollout(event, START_MS + 1000)

    assert (expected is None) == (fault is None)
    assert (expected or "") in (fault or "")
