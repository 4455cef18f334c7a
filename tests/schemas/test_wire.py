"""Reading what anyone may send: whole or refused, and never anything else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schemas.events import Outcome, Prediction, Rollout
from schemas.times import FUTURE_LIVE_MS
from schemas.wire import (
    MAX_EVENT_BYTES,
    InvalidEvent,
    decode_batch,
    decode_one,
    fault_of,
    key_of,
    sort_of,
    unknown_fields,
)
from tests.builders import NOW

WORDS = ("prediction", "outcome", "rollout")
EVENTS: dict[str, dict[str, Any]] = {
    "prediction": {
        "prediction_id": "p1", "model": "credit-risk", "version": "v42", "served_at": NOW,
        "prediction": 1, "score": 0.25, "latency_ms": 12.5, "error": "timeout", "weight": 0.1,
        "unit": "u1", "features": {"age": 41, "city": "Ulm"}, "segments": {"region": "eu"},
        "arrived_at": NOW + 5,
    },
    "outcome": {
        "prediction_id": "p1", "observed_at": NOW, "label": 1, "model": "credit-risk", "cost": 9.5,
        "sampled": 0.1, "arrived_at": "2026-01-01T00:00:00Z",
    },
    "rollout": {
        "model": "credit-risk", "stable": "v41", "canary": "v42", "weight": 0.1, "at": NOW,
        "rollout_id": "r1", "source": "argo", "arrived_at": NOW,
    },
}  # fmt: skip
"""A whole event of each word, every field there."""


def an_event(word: str = "prediction", **changes: Any) -> bytes:
    """A whole event as JSON; one argument breaks one field."""
    return json.dumps(EVENTS[word] | changes).encode()


def an_envelope(**changes: Any) -> bytes:
    """The same prediction in a CloudEvents envelope."""
    envelope = {
        "specversion": "1.0", "id": "1", "source": "/router", "type": "com.example.prediction",
        "datacontenttype": "application/json", "data": EVENTS["prediction"],
    }  # fmt: skip
    return json.dumps(envelope | changes).encode()


def with_raw(raw: bytes, field: str = "score") -> bytes:
    """A prediction in which one field holds these very bytes."""
    return an_event(**{field: "HERE"}).replace(b'"HERE"', raw)


def reason_of(word: str, value: bytes) -> str:
    with pytest.raises(InvalidEvent) as refused:
        decode_one(word, value)
    return str(refused.value)


POISON = {
    "empty": (b"", "prediction is not JSON: Input data was truncated"),
    "cut off": (an_event()[:-1], "prediction is not JSON: Input data was truncated"),
    "two": (an_event() * 2, "trailing characters"),
    "a JSON array": (b"[1]", "prediction: expected object, got array"),
    "null": (b"null", "prediction: expected object, got null"),
    "not UTF-8": (with_raw(b'"\xff"', "unit"), "prediction is not valid UTF-8"),
    "raw surrogate": (with_raw(b'"\xed\xa0\x80"', "unit"), "prediction is not valid UTF-8"),
    "lone surrogate": (with_raw(b'"\\ud800"', "unit"), "surrogate pair"),
    "UTF-16": (an_event().decode().encode("utf-16"), "prediction is not JSON"),
    "byte order mark": (b"\xef\xbb\xbf" + an_event(), "prediction is not JSON"),
    "NaN": (with_raw(b"NaN"), "prediction is not JSON: JSON is malformed"),
    "Infinity": (with_raw(b"-Infinity"), "prediction is not JSON: JSON is malformed"),
    "1e309": (with_raw(b"1e309"), "prediction.score: number out of range"),
    "many digits": (with_raw(b"9" * 5000), "prediction.score: number out of range"),
    "huge time": (with_raw(b"9" * 5000, "served_at"), "prediction.served_at: integer value out"),
    "bomb in features": (with_raw(b"[" * 30_000, "features"), "prediction.features: expected"),
    "bomb of objects": (with_raw(b'{"a":' * 9000, "zzz"), "prediction is nested too deeply"),
    "bomb of lists": (with_raw(b"[" * 30_000, "zzz"), "prediction is nested too deeply"),
    "65 KiB": (an_event(zzz="x" * 65 * 1024), f"send at most {MAX_EVENT_BYTES}"),
    "NUL in a name": (an_event(model="a\0b"), "prediction.model: found a NUL character"),
    "NUL in a key": (an_event(segments={"\0": "b"}), "prediction.segments: found a NUL character"),
}


@pytest.mark.parametrize("name", POISON)
def test_poison_is_refused_with_what_is_wrong(name: str) -> None:
    """If this breaks, one broken producer stops a partition, or feeds half an event to a guard."""
    value, words = POISON[name]

    assert words in reason_of("prediction", value)


@pytest.mark.parametrize("word", WORDS)
def test_one_poisoned_message_does_not_touch_its_neighbours(word: str) -> None:
    """If this breaks, good events are lost because a bad one was fetched with them."""
    good = decode_one(word, an_event(word))
    values = [an_event(word), *(value for value, _ in POISON.values()), an_event(word)]

    decoded = decode_batch(word, values)

    assert [good, *([None] * len(POISON)), good] == decoded.events
    assert list(range(1, 1 + len(POISON))) == [refused.at for refused in decoded.refused]


def test_a_batch_reads_like_its_messages_one_by_one() -> None:
    """If this breaks, what is accepted depends on what came beside it."""
    values = [an_event(), an_event(unit='a\\b"c'), an_envelope(), an_event(unit="\\u0000")]

    one_by_one = [decode_one("prediction", value) for value in values]

    assert one_by_one == decode_batch("prediction", values).events
    assert ([], []) == decode_batch("prediction", [])[:2]


WRONG: dict[str, dict[str, list[Any]]] = {
    "prediction": {
        "prediction_id": [None, 1, "", "x" * 129], "model": [1, ""], "version": [True, "v" * 129],
        "served_at": [None, True, 1.5, 1e300, "", "yesterday", "2026-01-01T00:00:00", "1767225600",
                      "2026-02-30T00:00:00Z", {}],
        "prediction": [True, [1], {}], "score": ["0.5", True, []],
        "latency_ms": [-0.001, "12"], "error": [1, [], {}], "weight": [0, 1.0001, -1, "0.1"],
        "unit": [5, []], "features": [[], {"a": None}, {"a": [1]}, {"a": True},
                                      {str(i): 1 for i in range(65)}],
        "segments": [{"a": 1}, {str(i): "x" for i in range(9)}, "eu"],
        "arrived_at": ["soon", False],
    },
    "outcome": {
        "prediction_id": [None, 7, ""], "observed_at": [None, "now", 2.5],
        "label": [None, True, [], {}], "model": [1, ""], "cost": ["9", True],
        "sampled": [0, -0.1, 1.0001, "0.1", True, []],
    },
    "rollout": {
        "model": [None, 1, ""], "stable": [None, ""], "canary": [1, ""],
        "weight": [-0.1, 1.1, "0.5"], "at": [None, "then"], "rollout_id": [1, ""], "source": [1],
    },
}  # fmt: skip


@pytest.mark.parametrize(
    ("word", "field", "value"),
    [(w, f, v) for w, fields in WRONG.items() for f, values in fields.items() for v in values],
)
def test_a_field_of_the_wrong_kind_refuses_the_event_and_is_named(
    word: str, field: str, value: Any
) -> None:
    """If this breaks, a producer's mistake becomes evidence against a version."""
    assert f"{word}.{field}" in reason_of(word, an_event(word, **{field: value}))


@pytest.mark.parametrize(
    ("word", "field"),
    [
        *(("prediction", name) for name in ("prediction_id", "model", "version", "served_at")),
        *(("outcome", name) for name in ("prediction_id", "observed_at", "label")),
        *(("rollout", name) for name in ("model", "stable", "canary", "at")),
    ],
)
def test_a_required_field_that_is_missing_is_named(word: str, field: str) -> None:
    """If this breaks, an event without an id or a time is counted for something."""
    event = {name: value for name, value in EVENTS[word].items() if name != field}

    assert f"missing required field {field}" in reason_of(word, json.dumps(event).encode())


def test_null_means_absent_and_unknown_fields_are_counted() -> None:
    """If this breaks, a producer that writes null or one field more is refused."""
    optional: dict[str, Any] = dict.fromkeys(
        ("prediction", "score", "latency_ms", "error", "weight", "unit")
    )

    read = decode_one("prediction", an_event(**optional, zzz={"deep": [1]}, type="prediction"))

    assert (None, None) == (read.error, read.score)
    assert 1 == unknown_fields("prediction", an_event(zzz=1, type="prediction"))
    assert 1 == unknown_fields("prediction", an_envelope(data=EVENTS["prediction"] | {"zzz": 1}))
    assert 0 == unknown_fields("prediction", b"[")


def test_numbers_are_one_kind_of_class() -> None:
    """If this breaks, the class 1 and the class 1.0 are two, and accuracy drops to nothing."""
    whole, real = (decode_one("outcome", an_event("outcome", label=n)) for n in (1, 1.0))

    assert whole == real
    assert decode_one("outcome", an_event("outcome", label="1")) != whole


def test_of_a_key_that_comes_twice_the_last_one_holds() -> None:
    """If this breaks, it is left open what was read."""
    twice = b'{"prediction_id":"first",' + an_event()[1:]

    assert "p1" == decode_one("prediction", twice).prediction_id


def test_an_enveloped_event_is_the_bare_one() -> None:
    """If this breaks, producers that speak CloudEvents are refused."""
    assert decode_one("prediction", an_event()) == decode_one("prediction", an_envelope())


@pytest.mark.parametrize(
    "changes",
    [
        {"type": "com.example.outcome"}, {"specversion": "0.3"}, {"specversion": 1.0},
        {"data": json.dumps(EVENTS["prediction"])}, {"data": [1]}, {"data": None}, {"type": None},
        {"data": {"prediction_id": "p1"}},
    ],
)  # fmt: skip
def test_an_envelope_of_another_kind_is_refused(changes: dict[str, Any]) -> None:
    """If this breaks, an event of another type is read as a prediction."""
    assert reason_of("prediction", an_envelope(**changes)).startswith("prediction: ")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b'{"type":"prediction"}', "prediction"), (b'{"type":"rollout","at":1}', "rollout"),
        (an_envelope(), "prediction"), (an_envelope(type="org.bank.outcome"), "outcome"),
    ],
)  # fmt: skip
def test_a_line_says_what_it_is(value: bytes, expected: str) -> None:
    """If this breaks, a recording's lines go to the wrong topic."""
    assert expected == sort_of(value)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (b"{}", "event.type: found nothing"), (b"", "not JSON"), (b"[]", "expected object"),
        (b"\xff", "not JSON"), (b'{"type": "\xff"}', "not valid UTF-8"), (b'{"type":1}', "str"),
        (b'{"type":"misprediction"}', "found 'misprediction'"),
        (b'{"type":"' + b"x" * 60_000 + b'"}', "found 'xxx"), (b"x" * 70_000, "send at most"),
        (b'{"a":' * 9000, "nested too deeply"),
    ],
)  # fmt: skip
def test_a_line_of_no_known_type_is_refused_briefly(value: bytes, words: str) -> None:
    """If this breaks, a log line holds 60 kB of someone's text, or a bare line is guessed at."""
    with pytest.raises(InvalidEvent) as refused:
        sort_of(value)

    assert words in str(refused.value)
    assert 200 > len(str(refused.value))


TIMES = [
    (946_684_799_999, "lies outside"), (-1, "lies outside"), (10**30, "lies outside"),
    (4_102_444_800_000, "lies outside"), (1_767_225_600, "lies outside"),
    ("1999-12-31T23:59:59.999Z", "lies outside"), ("0001-01-01T00:00:00+23:59", "lies outside"),
    ("9999-12-31T23:59:59-23:59", "lies outside"),
    (NOW + FUTURE_LIVE_MS + 60_000, "is 60 s further ahead of its arrival than is allowed"),
    (NOW + FUTURE_LIVE_MS, None), (946_684_800_000, None), ("2025-12-31T23:00:00-01:00", None),
]  # fmt: skip


@pytest.mark.parametrize(("time", "words"), TIMES)
@pytest.mark.parametrize(
    ("word", "field"), [("prediction", "served_at"), ("outcome", "observed_at"), ("rollout", "at")]
)
def test_a_time_out_of_range_is_refused(
    word: str, field: str, time: int | str, words: str | None
) -> None:
    """If this breaks, one wrong clock moves the watermark and every label counts as missing."""
    event = decode_one(word, an_event(word, **{field: time}))
    fault = fault_of(event, NOW)

    assert (words is None) == (fault is None)
    assert words is None or (words in str(fault) and f"{word}.{field}" in str(fault))


@pytest.mark.parametrize(
    ("word", "changes", "words"),
    [
        ("prediction", {"error": False}, "prediction.error: found false"),
        ("rollout", {"weight": None}, "rollout.weight: found none"),
        ("rollout", {"canary": "v41"}, "rollout.canary: found the stable version"),
    ],
)
def test_what_types_cannot_say_is_found(word: str, changes: dict[str, Any], words: str) -> None:
    """If this breaks, `error: false` counts as a failed request, or a plan has no share."""
    assert words in str(fault_of(decode_one(word, an_event(word, **changes)), NOW))


def test_no_canary_needs_no_weight() -> None:
    """If this breaks, nobody can say that a rollout is over."""
    event = decode_one("rollout", an_event("rollout", canary=None, weight=None))

    assert fault_of(event, NOW) is None


def test_events_travel_under_their_key() -> None:
    """If this breaks, a prediction and its outcome land in different partitions."""
    events = [decode_one(word, an_event(word)) for word in WORDS]

    assert [b"p1", b"p1", b"credit-risk"] == [key_of(event) for event in events]


NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=128)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
VALUES = NUMBERS | NAMES
STAMPS = st.integers(0, 2**62)
PREDICTIONS = st.builds(
    Prediction, prediction_id=NAMES, model=NAMES, version=NAMES, served_at=STAMPS,
    prediction=st.none() | VALUES, score=st.none() | NUMBERS,
    latency_ms=st.none() | st.floats(0, 1e300), error=st.none() | NAMES | st.booleans(),
    weight=st.none() | st.floats(0, 1, exclude_min=True), unit=st.none() | NAMES,
    features=st.none() | st.dictionaries(NAMES, VALUES, max_size=5),
    segments=st.none() | st.dictionaries(NAMES, NAMES, max_size=5),
    arrived_at=st.none() | STAMPS,
)  # fmt: skip
OUTCOMES = st.builds(
    Outcome, prediction_id=NAMES, observed_at=STAMPS, label=VALUES, model=st.none() | NAMES,
    cost=st.none() | NUMBERS, arrived_at=st.none() | STAMPS,
)  # fmt: skip
ROLLOUTS = st.builds(
    Rollout, model=NAMES, stable=NAMES, canary=st.none() | NAMES, at=STAMPS,
    weight=st.none() | st.floats(0, 1), rollout_id=st.none() | NAMES,
    source=st.none() | NAMES, arrived_at=st.none(),
)  # fmt: skip


@given(PREDICTIONS | OUTCOMES | ROLLOUTS)
def test_what_is_written_is_read_again(event: Prediction | Outcome | Rollout) -> None:
    """If this breaks, the daemon misreads its own rollout events, or a producer's names."""
    word = type(event).__name__.lower()

    assert event == decode_one(word, msgspec.json.encode(event))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=10,
)
ALMOST = st.builds(
    lambda word, changes, dropped: json.dumps(
        {k: v for k, v in (EVENTS[word] | changes).items() if k not in dropped}
    ).encode(),
    st.sampled_from(WORDS),
    st.dictionaries(st.sampled_from(sorted({*EVENTS["prediction"], *EVENTS["rollout"]})), JSON),
    st.sets(st.sampled_from(sorted(EVENTS["prediction"])), max_size=2),
)


@given(st.binary(max_size=200) | JSON.map(lambda v: json.dumps(v).encode()) | ALMOST)
@example(b"\xed\xa0\x80")
@example(b'{"specversion":"1.0","type":"prediction","data":' + b"[" * 30_000)
def test_any_bytes_are_accepted_or_refused_and_nothing_else(value: bytes) -> None:
    """If this breaks, some bytes stop a partition for ever."""
    for word in WORDS:
        decoded = decode_batch(word, [value])
        assert (decoded.events == [None]) == (len(decoded.refused) == 1)
        for event in filter(None, decoded.events):
            key_of(event)
            fault_of(event, NOW)
        unknown_fields(word, value)
    try:
        assert sort_of(value) in WORDS
    except InvalidEvent as refused:
        assert str(refused)
