"""Forecasts: what is planned is what the guards do, counted in requests of the whole model."""

from __future__ import annotations

from math import inf

import numpy as np
import pytest

from schemas.durations import Duration
from schemas.policies import GuardSpec, Policy, Promote
from service.watch.detect import guards_for
from service.watch.forecast import Forecast, Traffic, forecast
from tests.detectors.worlds import feed, paired_rows, part, rows_of
from tests.service.watch.traffic import REGISTRY, a_policy


def planned(guard: GuardSpec, worse: float = 2.0, traffic: Traffic | None = None,
            **policy: object) -> Forecast:  # fmt: skip
    asked = a_policy(guards=[guard], positive=1, **policy)
    return forecast(asked, REGISTRY, traffic or Traffic(), [worse])[0]


def requests_needed(guard: GuardSpec, traffic: Traffic, worse: float, most: int) -> float:
    """Median requests of both versions until the real guard fires."""
    found = []
    for seed in range(150):
        policy: Policy = a_policy(guards=[guard])
        built = guards_for(policy, "canary", REGISTRY, "v41")[guard.label]
        rows = paired_rows(seed, most, traffic.base_rate, worse, traffic.share)
        if built.arms == "single":
            own = np.flatnonzero(rows.canary) if rows.canary is not None else np.arange(0)
            rows = rows_of(rows.loss[own])._replace(position=own)
        reading = feed(built.detector, part(rows, 0, len(rows.loss)))
        found.append(inf if reading.fired_at is None else reading.fired_at + 1)
    return float(np.median(found))


@pytest.mark.parametrize(
    ("guard", "worse"),
    [
        (GuardSpec(signal="error_rate", max=0.05), 2.0),
        (GuardSpec(signal="error_rate", max=0.05), 4.0),
        (GuardSpec(signal="error_rate", max_increase=0.15), 2.0),
        (GuardSpec(signal="error_rate", max_increase=0.15), 4.0),
    ],
)
@pytest.mark.parametrize("share", [0.1, 0.5])
def test_requests_are_those_that_the_real_guard_needs(
    guard: GuardSpec, worse: float, share: float
) -> None:
    """If this breaks, people choose traffic and limits by wrong figures. 0.7 to 1.3 is stated."""
    traffic = Traffic(share=share, base_rate=0.04)
    (size,) = planned(guard, worse, traffic).sizes
    assert size.requests is not None

    needed = requests_needed(guard, traffic, worse, int(4 * size.requests))

    assert 0.7 <= needed / size.requests <= 1.3


def test_what_lies_within_the_limit_is_never_caught() -> None:
    """If this breaks, a plan promises to catch what the policy permits."""
    (size,) = planned(GuardSpec(signal="error_rate", max=0.05)).sizes

    assert (None, None, None) == (size.requests, size.canary_requests, size.time_s)


def test_time_follows_from_traffic_and_waits_for_labels() -> None:
    """If this breaks, a plan forgets the week that labels take."""
    traffic = Traffic(per_s=100, base_rate=0.1)
    increase = GuardSpec(signal="error", max_increase=0.15)
    matured = planned(increase, 3.0, traffic, horizon=Duration(86_400)).sizes[0]
    arriving = planned(increase, 3.0, traffic, horizon=Duration(86_400), labels="conditional")
    without = planned(GuardSpec(signal="error_rate", max_increase=0.15), 3.0, traffic).sizes[0]

    assert matured.requests == without.requests and without.requests is not None
    assert without.requests / 100 == without.time_s
    # Labels on arrival have half of alpha, so they need more requests, and no wait.
    assert without.requests < (arriving.sizes[0].requests or 0) < 1.3 * without.requests
    assert (arriving.sizes[0].requests or 0) / 100 == arriving.sizes[0].time_s
    assert arriving.note.endswith("found to be equally late")
    assert without.requests / 100 + 86_400 == matured.time_s
    assert planned(increase, 3.0).sizes[0].time_s is None


def test_a_proof_is_planned_for_each_gate_with_the_policys_margin() -> None:
    """If this breaks, a plan speaks of another proof than the one that `pass` waits for.

    The figure is that of the design table: 206 bad requests at margin 1.5 and half of the traffic.
    """
    policy = a_policy(promote=Promote(margin=0.5))

    told = forecast(policy, REGISTRY, Traffic(share=0.5, base_rate=0.02), [2.0])

    (gate,) = [line for line in told if line.proof is not None]
    assert gate.proof is not None
    assert ("promote error_rate", 0.5, 206, 10_278) == (
        gate.guard, gate.proof.margin, round(gate.proof.bad), round(gate.proof.requests),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        (GuardSpec(signal="score", detector="adwin"), "does not bound"),
        (GuardSpec(signal="traffic_share", max=0.3), "follows the router"),
        (GuardSpec(signal="prometheus", query="up", max=1), "polled"),
    ],
)
def test_what_promises_nothing_is_not_planned(guard: GuardSpec, words: str) -> None:
    """If this breaks, a drift warning gets a date that nobody can keep."""
    told = planned(guard)

    assert ([], True) == (told.sizes, words in told.note)


def test_every_kind_that_acts_can_be_planned() -> None:
    """If this breaks, a guard is left out of the plan without a word."""
    guards = [
        GuardSpec(signal="error_rate", max=0.05), GuardSpec(signal="recall", min=0.9),
        GuardSpec(signal="latency_ms", quantile=0.95, max=300),
        GuardSpec(signal="latency_ms", quantile=0.95, max_increase=0.2),
        GuardSpec(signal="false_positive_rate", max_increase=0.15),
        GuardSpec(signal="brier", max=0.1), GuardSpec(signal="cost", max=2, cap=50),
        GuardSpec(signal="label_coverage", min=0.9),
    ]  # fmt: skip

    told = forecast(a_policy(guards=guards, positive=1), REGISTRY, Traffic(base_rate=0.3), [3.0])

    shown = [line for line in told if line.proof is None]
    assert len(guards) == len(shown)
    assert all(line.sizes[0].requests and line.sizes[0].requests > 0 for line in shown)
    assert "requests whose label is negative" == shown[4].rows_of
