"""Detectors that a policy names: found fit before anything runs, and fed as they want."""

from __future__ import annotations

import pytest

import detectors.river_latch
from schemas.policies import GuardSpec
from service.watch.detect import build
from service.watch.named import faults_of_detectors, notes_of_detectors
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
        (
            GuardSpec(signal="error", detector="optimistic_rate", params={"limit": 0.1}),
            "which labels: optimistic brings",
        ),
        (GuardSpec(signal="score", detector="stable_watch", params={"limit": 0.1}), "is a rate"),
        (
            GuardSpec(signal="latency_ms", detector="ddm"),
            "'ddm' on 'latency_ms', expected a signal",
        ),
        (GuardSpec(signal="error", detector="eddm", params={"beta": 0.99}), "beta must be at most"),
        (
            GuardSpec(signal="error", detector="hddma", params={"two_sided_test": 1}),
            "no field 'two",
        ),
        (
            GuardSpec(signal="score", detector="kswin", params={"seed": "x"}),
            "seed must be a finite",
        ),
        (GuardSpec(signal="score", detector="kswin", params={"window_size": 80.5}), "whole number"),
        (
            GuardSpec(signal="error", detector="fhddm", params={"sliding_window_size": 6}),
            "can never",
        ),
        (GuardSpec(signal="error", detector="dummy", action="rollback"), "for benchmarks only"),
        (GuardSpec(signal="error", detector="no_drift", action="hold"), "for benchmarks only"),
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
        GuardSpec(signal="error_rate", detector="ddm", action="rollback"),
        GuardSpec(signal="accuracy", detector="hddmw", action="hold", params={"lambda_val": 0.02}),
        GuardSpec(signal="feature:age", detector="kswin", params={"window_size": 80, "seed": 7}),
        GuardSpec(signal="error", detector="fhddm", params={"short_window_size": 25}),
        GuardSpec(signal="error", detector="dummy", params={"t_0": 500}),
        GuardSpec(signal="error", detector="no_drift"),
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


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (GuardSpec(signal="error_rate", detector="adwin", action="rollback"),
         ["can roll back without a false-alarm guarantee"]),
        (GuardSpec(signal="error_rate", detector="page_hinkley", action="hold"),
         ["can hold without a false-alarm guarantee"]),
        (GuardSpec(signal="error_rate", detector="ddm", action="rollback"),
         ["can roll back without a false-alarm guarantee, which is advised against",
          "healthy versions alarm too"]),
        (GuardSpec(signal="error_rate", detector="hddma", action="hold"),
         ["can hold without", "advised against", "blind at low rates"]),
        (GuardSpec(signal="error_rate", detector="hddmw"), ["blind to a jump", "less than 0.42"]),
        (GuardSpec(signal="error_rate", detector="hddmw", params={"lambda_val": 0.01}),
         ["less than 0.19"]),
        (GuardSpec(signal="error_rate", detector="fhddm"), ["blind to a rise", "less than 0.26"]),
        (GuardSpec(signal="error_rate", detector="dummy"), ["benchmark only"]),
        (GuardSpec(signal="error_rate", detector="stable_watch", params={"limit": 0.02},
                   action="rollback"), ["can roll back without a false-alarm guarantee"]),
    ],
)  # fmt: skip
def test_what_may_surprise_about_a_named_detector_is_noted(
    guard: GuardSpec, words: list[str]
) -> None:
    """If this breaks, somebody lets DDM move traffic, or trusts HDDM_W's silence, unwarned."""
    (line,) = notes_of_detectors([a_policy(guards=[guard])], REGISTRY)

    assert line.startswith(f"policies[0].guards[0]: {guard.label}")
    assert [] == [word for word in words if word not in line]
    advised_against = guard.detector in ("ddm", "hddma") and guard.acts != "alert"
    assert advised_against == ("advised against" in line)


def test_a_drift_warning_that_only_warns_is_nothing_to_note() -> None:
    """If this breaks, every policy is noted and nobody reads the notes."""
    guards = [GuardSpec(signal="score", detector=kind) for kind in ("adwin", "page_hinkley")]

    assert [] == notes_of_detectors([a_policy(guards=guards)], REGISTRY)


def test_features_share_adwin_s_delta_and_a_given_one_stays() -> None:
    """If this breaks, fifty features warn fifty times as often as one."""
    features = [GuardSpec(signal=f"feature:{name}", detector="adwin") for name in "abc"]
    given = GuardSpec(signal="feature:d", detector="adwin", params={"delta": 0.01})
    other = GuardSpec(signal="score", detector="adwin")
    policy = a_policy(guards=[*features, given, other])

    built = [build(spec, policy, REGISTRY).detector.delta for spec in policy.guards]
    (note,) = notes_of_detectors([policy], REGISTRY)

    assert [0.0005] * 3 + [0.01, 0.002] == built
    assert "adwin on 4 features has delta 0.0005 each" in note
    (alone,) = [build(spec, a_policy(guards=[spec]), REGISTRY) for spec in features[:1]]
    assert 0.002 == alone.detector.delta


@pytest.mark.parametrize(
    ("signal", "expected"),
    [("error", "up"), ("accuracy", "up"), ("latency_ms", "up"), ("brier", "up"), ("cost", "up"),
     ("score", "both"), ("prediction", "both"), ("feature:age", "both")],
)  # fmt: skip
def test_losses_are_watched_for_worse_and_features_for_any_move(signal: str, expected: str) -> None:
    """If this breaks, a version that improves is warned about, or a feature may move unseen."""
    for kind in ("adwin", "page_hinkley", "kswin"):
        spec = GuardSpec(signal=signal, detector=kind)
        assert expected == build(spec, a_policy(guards=[spec]), REGISTRY).detector.side
    if expected == "up":
        spec = GuardSpec(signal=signal, detector="adwin", params={"side": "both"})
        assert "both" == build(spec, a_policy(guards=[spec]), REGISTRY).detector.side


@pytest.mark.parametrize("kind", ["kswin", "ddm", "eddm", "fhddm", "hddma", "hddmw"])
def test_each_warns_of_a_collapse_in_the_stream_of_the_daemon(kind: str) -> None:
    """If this breaks, a policy that names it is accepted and never hears of anything."""
    guard = GuardSpec(signal="error_rate", detector=kind)
    book, traffic = a_book(a_policy(guards=[guard])), Traffic()
    book.roll_out(a_rollout(), START_MS)

    healthy = [traffic.second({"v41": 0.01, "v42": 0.01}) for _ in range(15)]
    collapse = [traffic.second({"v41": 0.01, "v42": 0.9}) for _ in range(30)]
    said = kinds(play(book, [*healthy, *collapse]))

    assert "breach" in said and "command" not in said
    reading = book.guards["credit-risk"]["v42"][guard.label].detector.reading()
    assert "alarm" == reading.level


def test_a_guard_saved_under_another_river_starts_afresh_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, an upgrade of river stops the daemon, or drops drift state in silence."""
    policy = a_policy(guards=[GuardSpec(signal="error_rate", detector="hddmw")])
    saved = build(policy.guards[0], policy, REGISTRY).state()
    monkeypatch.setattr(detectors.river_latch, "river_version", "0.27.0")
    guard = build(policy.guards[0], policy, REGISTRY)

    guard.restore(saved)

    out = capsys.readouterr().out
    assert "guard_starts_afresh" in out and "river 0.26" in out and "installed is 0.27.0" in out
    assert 0 == guard.detector.reading().n
