"""A canary that should serve and does not, beside a stable that goes on."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.facts import Breach
from schemas.policies import GuardSpec, faults_of_policies
from schemas.verdicts import Verdict
from service.watch.step import Book
from tests.service.watch.traffic import (
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_rollout,
    a_tick,
    kinds,
    play,
)

HEALTHY = {"v41": 0.01, "v42": 0.01}
LEAST = GuardSpec(signal="traffic_share", min=0.02)
RELATIVE = GuardSpec(signal="traffic_share", max_decrease=0.5)


def a_watched_book(guard: GuardSpec, weight: float = 0.1, **policy: Any) -> Book:
    book = a_book(a_policy(guards=[guard], **policy))
    book.roll_out(a_rollout(weight=weight), START_MS)
    return book


def with_action(guard: GuardSpec, action: str) -> GuardSpec:
    return GuardSpec(signal="traffic_share", min=guard.min, max_decrease=guard.max_decrease,
                     action=action)  # type: ignore[arg-type]  # fmt: skip


@pytest.mark.parametrize("guard", [LEAST, RELATIVE])
@pytest.mark.parametrize(
    ("action", "expected"),
    [("alert", ["breach"]), ("hold", ["breach", "hold"]), ("rollback", ["breach", "rollback"])],
)
def test_a_canary_that_stops_beside_its_stable_breaches_and_the_policy_says_what_follows(
    guard: GuardSpec, action: str, expected: list[str]
) -> None:
    """If this breaks, a canary whose instances died is waited for in silence."""
    book, traffic = a_watched_book(with_action(guard, action)), Traffic()

    well = play(book, [traffic.second(HEALTHY) for _ in range(60)])
    said = play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(30)])

    assert [] == kinds(well)
    assert expected == kinds(said)
    (breach,) = [fact for fact in said if isinstance(fact, Breach)]
    assert "v42 serves 0.0% of the predictions of late, proved to be below" in breach.text
    assert "while the other versions go on" in breach.text


def test_a_share_far_below_its_weight_is_found_and_one_a_little_below_is_not() -> None:
    """If this breaks, a canary that gets a fifth of its traffic looks healthy for ever."""
    starved, nearly = a_watched_book(RELATIVE, 0.3), a_watched_book(RELATIVE, 0.3)
    one, other = Traffic(), Traffic()

    said = play(starved, [one.second(HEALTHY, share=0.06) for _ in range(60)])
    calm = play(nearly, [other.second(HEALTHY, share=0.22) for _ in range(300)])

    assert ["breach", "rollback"] == kinds(said)
    assert [] == kinds(calm)


def test_the_share_is_asked_for_at_the_weight_of_each_moment() -> None:
    """If this breaks, a canary on its first small step is accused of the next one's weight."""
    book, traffic = a_watched_book(RELATIVE, 0.01), Traffic()

    first = play(book, [traffic.second(HEALTHY, share=0.01) for _ in range(60)])
    book.roll_out(a_rollout(traffic.now_ms, weight=0.5), traffic.now_ms)
    # A router takes a few seconds to follow.
    late = play(book, [traffic.second(HEALTHY, share=0.01) for _ in range(4)])
    second = play(book, [traffic.second(HEALTHY, share=0.5) for _ in range(60)])

    assert [] == kinds(first) + kinds(late) + kinds(second)


@pytest.mark.parametrize("guard", [LEAST, RELATIVE])
def test_a_canary_without_weight_is_not_missed(guard: GuardSpec) -> None:
    """If this breaks, a canary that waits at weight 0 is rolled back for not serving."""
    book, traffic = a_watched_book(guard, weight=0.0), Traffic()

    said = play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(60)])

    assert [] == kinds(said)


@pytest.mark.parametrize("guard", [LEAST, RELATIVE])
def test_when_all_telemetry_is_lost_the_canary_is_not_accused(guard: GuardSpec) -> None:
    """If this breaks (H9), a broken pipeline of events rolls back a healthy version."""
    book, traffic = a_watched_book(guard), Traffic()
    play(book, [traffic.second(HEALTHY) for _ in range(20)])

    said = play(book, [a_tick(traffic.now_ms + s * 1000) for s in range(600)])

    assert [] == kinds(said)
    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert "unknown" == last.verdict


@pytest.mark.parametrize("guard", [LEAST, RELATIVE])
def test_a_share_that_is_kept_passes(guard: GuardSpec) -> None:
    """If this breaks, a guard on shares keeps every promotion waiting for ever."""
    book, traffic = a_watched_book(guard, 0.3), Traffic()

    said = play(book, [traffic.second(HEALTHY, share=0.3) for _ in range(120)])

    last = [v for v in said if isinstance(v, Verdict) and v.version == "v42"][-1]
    assert "pass" == last.verdict


@pytest.mark.parametrize(
    ("guard", "path"),
    [
        (GuardSpec(signal="error_rate", max_decrease=0.5), "max_decrease"),
        (GuardSpec(signal="traffic_share", max_decrease=1.5), "max_decrease"),
        (GuardSpec(signal="traffic_share", max_decrease=0.5, min=0.1), "guards[0]: found"),
    ],
)
def test_a_limit_on_shares_that_cannot_work_is_refused(guard: GuardSpec, path: str) -> None:
    """If this breaks, a limit is accepted that nothing judges."""
    faults = list(faults_of_policies([a_policy(guards=[guard])], set()))

    assert any(path in fault for fault in faults)
