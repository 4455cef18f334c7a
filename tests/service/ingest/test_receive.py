"""Poison is refused with a reason, and what lies beside it is accepted."""

from __future__ import annotations

import json

import pytest

from schemas.wire import Refused
from service.ingest.receive import class_of, receive
from tests.service.ingest.journey import NOW, outcome, prediction

FIVE_MINUTES_MS = 300_000


def changed(**fields: object) -> bytes:
    return json.dumps(json.loads(prediction("p")) | fields).encode()


POISON = [
    (b'{"prediction_id":"\xff\xfe"}', "encoding"),
    (prediction("p").replace(b'"v1"', b"NaN"), "json"),
    (prediction("p")[:-1] + b', "score": 1e309}', "field"),
    (b"[" * 100_000, "size"),
    (b'{"x":' + b"[" * 30_000, "nesting"),
    (changed(features={"f": "x" * 65 * 1024}), "size"),
    (changed(model=1), "field"),
    (changed(score="0.5"), "field"),
    (changed(error=False), "field"),
    (changed(weight=0), "field"),
    (changed(served_at=True), "field"),
    (changed(served_at="2026-01-01T00:00:00"), "field"),
    (changed(served_at="1970-01-01T00:00:00Z"), "time"),
    (changed(served_at=10**30), "time"),
    (changed(served_at="2100-01-01T00:00:00Z"), "time"),
    (changed(served_at=NOW + FIVE_MINUTES_MS + 60_000), "time"),
    (b"", "json"),
    (b"null", "field"),
    (b'{"prediction_id": "p"}', "field"),
]


@pytest.mark.parametrize("poison, refusal", POISON)
def test_poison_is_refused_and_its_neighbours_are_not(poison: bytes, refusal: str) -> None:
    """If this breaks, one bad message stops a partition or poisons a verdict."""
    received = receive("predictions", [prediction("a"), poison, prediction("b")], [NOW] * 3)
    assert ["a", "b"] == [event.prediction_id for event in received.events]
    assert [NOW, NOW] == received.times_ms.tolist()
    assert received.places is not None
    assert [0, 2] == received.places.tolist()
    assert [1] == [at for at, _ in received.refused]
    assert refusal == class_of(received.refused[0].reason)


def test_future_is_refused_by_each_message_s_own_arrival() -> None:
    """If this breaks, a broken clock moves the watermark, and waiting predictions expire."""
    late = NOW + 10 * FIVE_MINUTES_MS
    values = [outcome("a", late_s) for late_s in (299.0, 301.0, 301.0)]
    received = receive("outcomes", values, [NOW, NOW, late])
    assert [0, 2] == ([0, 2] if received.places is None else received.places.tolist())
    reason = "outcome.observed_at is 1 s further ahead of its arrival than is allowed"
    assert [Refused(1, reason)] == received.refused


def test_texts_and_integers_are_the_same_time() -> None:
    """If this breaks, events of two producers with two ways to write a time do not meet."""
    text = changed(served_at="2026-01-01T01:00:00.250+01:00")
    received = receive("predictions", [text, changed(served_at=NOW + 250)], [NOW] * 2)
    assert [NOW + 250] * 2 == received.times_ms.tolist()


def test_cloud_events_are_read() -> None:
    """If this breaks, producers that send CloudEvents are refused."""
    wrapped = {
        "specversion": "1.0", "type": "com.example.prediction", "id": "1", "source": "x",
        "data": json.loads(prediction("a")),
    }  # fmt: skip
    received = receive("predictions", [json.dumps(wrapped).encode(), prediction("b")], [NOW] * 2)
    assert ["a", "b"] == [event.prediction_id for event in received.events]
    assert [] == received.refused


def test_unknown_fields_are_estimated_from_one_message_in_a_hundred() -> None:
    """If this breaks, a renamed field goes unnoticed."""
    received = receive("predictions", [changed(sccore=0.5)] * 250, [NOW] * 250)
    assert 300 == received.unknown_fields
