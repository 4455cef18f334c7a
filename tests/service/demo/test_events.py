"""What the demonstration posts is what the contract accepts."""

import msgspec
import numpy as np
import pytest

from schemas.wire import decode_one, fault_of, sort_of
from service.demo.events import HORIZON_S, delay_s, outcome_event, prediction_event, rollout_event
from service.demo.model_server import Answer
from service.demo.people import Person
from tests.builders import NOW

PERSON = Person({"AGEP": 42, "SCHL": 21}, 1)
ANSWER = Answer(version="v42", score=0.81, prediction=1, latency_ms=0.04)


@pytest.mark.parametrize(
    ("word", "event"),
    [
        ("prediction", prediction_event("a-1", PERSON, ANSWER, 0.2, NOW)),
        ("outcome", outcome_event("a-1", PERSON, NOW)),
        ("rollout", rollout_event("v41", {"v41": 80, "v42": 20}, NOW)),
        ("rollout", rollout_event("v41", {"v41": 100, "v42": 0}, NOW)),
    ],
)
def test_every_event_is_accepted(word: str, event: dict[str, object]) -> None:
    """If this breaks, the daemon refuses what the demonstration sends."""
    value = msgspec.json.encode(event)

    assert word == sort_of(value)
    assert fault_of(decode_one(word, value), NOW) is None


def test_a_version_that_got_no_share_carries_no_weight() -> None:
    """If this breaks, a request under way while the router moves is refused as weight 0."""
    event = prediction_event("a-1", PERSON, ANSWER, 0.0, NOW)

    assert "weight" not in event


def test_a_rollout_says_the_share_of_the_canary() -> None:
    """If this breaks, the daemon expects another split than the router makes."""
    event = rollout_event("v41", {"v41": 80, "v42": 20}, NOW)

    assert ("v42", 0.2) == (event["canary"], event["weight"])
    assert rollout_event("v41", {"v41": 100, "v42": 0}, NOW)["canary"] is None


def test_truth_comes_within_the_horizon_or_never() -> None:
    """If this breaks, labels that exist count as missing."""
    draws = np.random.default_rng(1)
    delays = [delay_s(label, draws) for label in (0, 1) for _ in range(2000)]
    known = [delay for delay in delays if delay is not None]

    assert max(known) < HORIZON_S
    assert 0.02 < 1 - len(known) / len(delays) < 0.04
