"""Detectors that a policy names: found fit before anything runs, and fed as they want."""

from __future__ import annotations

import pytest

from schemas.policies import GuardSpec
from service.watch.named import faults_of_detectors
from tests.service.watch.traffic import (
    REGISTRY,
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_rollout,
    kinds,
    play,
)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (GuardSpec(signal="error_rate", detector="adwine"), "of kind 'adwine'; known: adwin"),
        (GuardSpec(signal="error_rate", detector="adwin", params={"detla": 1}), "no field 'detla'"),
        (GuardSpec(signal="error_rate", detector="adwin", params={"delta": 7}), "delta must lie"),
        (GuardSpec(signal="error_rate", detector="stable_watch"), "needs 'limit'"),
        (GuardSpec(signal="error_rate", detector="promote"), "compares two versions"),
        (GuardSpec(signal="score", detector="stable_watch", params={"limit": 0.1}), "is a rate"),
    ],
)
def test_a_detector_that_cannot_serve_is_found_before_the_first_row(
    guard: GuardSpec, words: str
) -> None:
    """If this breaks, `check` is content and the daemon fails when traffic comes."""
    (line,) = faults_of_detectors([a_policy(guards=[guard])], REGISTRY)

    assert line.startswith("policies[0].guards[0].detector: ") and words in line


def test_detectors_that_can_serve_are_no_fault() -> None:
    """If this breaks, valid settings are refused."""
    guards = [
        GuardSpec(signal="score", detector="adwin"),
        GuardSpec(signal="error_rate", detector="page_hinkley", params={"side": "both"}),
        GuardSpec(signal="error_rate", detector="stable_watch", params={"limit": 0.02}),
    ]

    assert [] == faults_of_detectors([a_policy(guards=guards)], REGISTRY)


def test_a_stable_version_can_be_watched_for_ever() -> None:
    """If this breaks, `stable_watch` in a policy stops the daemon, or moves traffic."""
    params: dict[str, float | str] = {"limit": 0.02, "hold": 500}
    guard = GuardSpec(signal="error_rate", detector="stable_watch", params=params)
    book, traffic = a_book(a_policy(guards=[guard])), Traffic()
    book.roll_out(a_rollout(canary=None, weight=None), START_MS)
    bad = {"v41": 0.3}

    said = play(book, [traffic.second(bad, share=0.0) for _ in range(20)])
    reading = book.guards["credit-risk"]["v41"][guard.label].detector.reading()
    play(book, [traffic.second({"v41": 0.001}, share=0.0) for _ in range(20)])
    after = book.guards["credit-risk"]["v41"][guard.label].detector.reading()

    assert (["breach"], "alarm", "quiet") == (kinds(said), reading.level, after.level)
