"""Strict reading of what producers send.

Why. Whoever can write events can cause a rollback, so nothing half-read may pass: an event is
accepted whole or refused with one sentence that names the field. Refusing never stops a partition;
the caller sends the original to `dead-letters` and goes on.

How. An event is one JSON object of at most 64 KiB, *bare* or inside a CloudEvents 1.0 envelope.
A batch is decoded in one pass; only when something in it is refused is it read again one by one.
Three exceptions matter: msgspec's own, `UnicodeDecodeError` and `RecursionError`, which it raises
besides.

Refused here: guessing. A number in quotes is a string, a `false` error is a mistake. A text with a
NUL is refused too: PostgreSQL stores none, so a model of such a name would stop its partition for
ever. Of a key that comes twice the last one holds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import repeat
from operator import contains
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from schemas.events import EVENTS, Event, Outcome, Prediction, Rollout
from schemas.times import FUTURE_LIVE_MS, fault_of_time, to_ms

MAX_EVENT_BYTES = 64 * 1024

UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Refused(NamedTuple):
    """One refused message of a batch."""

    at: int
    """Index into the batch."""
    reason: str


class Decoded(NamedTuple):
    """A batch as read: `events[i]` is None where message i was refused."""

    events: list[Any]
    refused: list[Refused]
    unknown_fields: int


class InvalidEvent(ValueError):
    """An event that cannot be accepted; the text says why in one sentence."""


class _Envelope(Struct):
    """CloudEvents 1.0, structured mode, as far as it is read."""

    specversion: str
    type: str
    data: msgspec.Raw


class _Typed(Struct):
    type: str | None = None
    specversion: str | None = None


_decoders: dict[str, msgspec.json.Decoder[Any]] = {
    word: msgspec.json.Decoder(kind) for word, kind in EVENTS.items()
}
_envelopes = msgspec.json.Decoder(_Envelope)
_typed = msgspec.json.Decoder(_Typed)
_fields = {word: frozenset(kind.__struct_fields__) | {"type"} for word, kind in EVENTS.items()}
_anything = msgspec.json.Decoder(dict[str, msgspec.Raw])
_AT = re.compile(r"- at `\$(.*)`$")
_NUL = b"\\u0000"
"""The only way to write a NUL in JSON."""


def decode_batch(word: str, values: Sequence[bytes]) -> Decoded:
    """Read a batch of one topic.

    Parameters
    ----------
    word : str
        `prediction`, `outcome` or `rollout`.
    values : sequence of bytes
        Messages as they came.
    """
    decode = _decoders[word].decode
    if not values:
        return Decoded([], [], 0)
    if max(map(len, values)) <= MAX_EVENT_BYTES and not _may_hold_nul(values):
        try:
            return Decoded([decode(value) for value in values], [], 0)
        except UNREADABLE:
            pass
    events: list[Any] = []
    refused: list[Refused] = []
    for index, value in enumerate(values):
        try:
            events.append(decode_one(word, value))
        except InvalidEvent as fault:
            events.append(None)
            refused.append(Refused(index, str(fault)))
    return Decoded(events, refused, 0)


def decode_one(word: str, value: bytes) -> Any:
    """Read one event, bare or in its envelope.

    Raises
    ------
    InvalidEvent
        With one sentence that names the field.
    """
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"{word} has {len(value)} bytes; send at most {MAX_EVENT_BYTES}")
    event = _decode(word, value)
    if _NUL in value:
        for field in event.__struct_fields__:
            if any("\0" in text for text in _texts(getattr(event, field))):
                raise InvalidEvent(f"{word}.{field}: found a NUL character, expected text without")
    return event


def _may_hold_nul(values: Sequence[bytes]) -> bool:
    # One byte is found ten times faster than six, and most batches have no escape at all.
    return any(map(contains, values, repeat(_NUL[0]))) and any(_NUL in v for v in values)


def _decode(word: str, value: bytes) -> Any:
    decode = _decoders[word].decode
    try:
        return decode(value)
    except UNREADABLE as fault:
        body = _body(word, value)
        if body is None:
            raise InvalidEvent(_sentence(word, fault)) from None
    try:
        return decode(body)
    except UNREADABLE as fault:
        raise InvalidEvent(_sentence(word, fault)) from None


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        yield from value
        yield from (item for item in value.values() if isinstance(item, str))


def _body(word: str, value: bytes) -> bytes | None:
    """The `data` of a CloudEvent of this type, or None when it is no such envelope."""
    try:
        envelope = _envelopes.decode(value)
    except UNREADABLE:
        return None
    if not envelope.specversion.startswith("1.") or not envelope.type.endswith(word):
        return None
    return bytes(envelope.data)


def _sentence(word: str, fault: Exception) -> str:
    if isinstance(fault, UnicodeDecodeError):
        return f"{word} is not valid UTF-8"
    if isinstance(fault, RecursionError):
        return f"{word} is nested too deeply"
    text = str(fault)
    if isinstance(fault, msgspec.ValidationError):
        found = _AT.search(text)
        field = f"{word}{found.group(1)}" if found else word
        message = _AT.sub("", text).strip().replace("`", "")
        return f"{field}: {message[:1].lower()}{message[1:]}"
    return f"{word} is not JSON: {text}"


def sort_of(value: bytes) -> str:
    """Tell what a line of a recording or of `POST /v1/events` is: its event word.

    Raises
    ------
    InvalidEvent
        When `type` is missing or unknown, or the line is not an object.
    """
    if len(value) > MAX_EVENT_BYTES:
        raise InvalidEvent(f"event has {len(value)} bytes; send at most {MAX_EVENT_BYTES}")
    try:
        typed = _typed.decode(value)
    except UNREADABLE as fault:
        raise InvalidEvent(_sentence("event", fault)) from None
    kind = typed.type or ""
    bare = typed.specversion is None
    word = next((w for w in EVENTS if (kind == w if bare else kind.endswith(w))), None)
    if word is None:
        found = "nothing" if typed.type is None else repr(kind[:60])
        raise InvalidEvent(f"event.type: found {found}, expected prediction, outcome or rollout")
    return word


def key_of(event: Event) -> bytes:
    """The key under which an event travels."""
    name = event.model if isinstance(event, Rollout) else event.prediction_id
    return name.encode()


def fault_of(event: Event, arrived_ms: int) -> str | None:
    """Say what types cannot: times out of range, an error that is false, a canary without weight.

    Parameters
    ----------
    arrived_ms : int
        When the event arrived by the broker's or the server's clock, epoch ms.
    """
    latest = arrived_ms + FUTURE_LIVE_MS
    if isinstance(event, Prediction):
        if event.error is False:
            return (
                "prediction.error: found false, expected a string or true; leave it out otherwise"
            )
        return fault_of_time(to_ms(event.served_at), latest, "prediction.served_at")
    if isinstance(event, Outcome):
        return fault_of_time(to_ms(event.observed_at), latest, "outcome.observed_at")
    return fault_of_rollout(event, latest)


def fault_of_rollout(event: Rollout, latest_ms: int) -> str | None:
    """Say what is wrong with a traffic plan, or None."""
    if event.canary is not None and event.weight is None:
        return "rollout.weight: found none, expected the canary's share in [0, 1]"
    if event.canary is not None and event.canary == event.stable:
        return "rollout.canary: found the stable version, expected another one or null"
    named = [event.stable, event.canary, *(each.version for each in event.canaries or [])]
    if len(set(named)) < len(named):
        return "rollout.canaries: found a version twice, expected each once and not the stable"
    if (event.weight or 0.0) + sum(each.weight for each in event.canaries or []) > 1 + 1e-9:
        return "rollout.canaries: found weights above 1 together, expected at most 1"
    return fault_of_time(to_ms(event.at), latest_ms, "rollout.at")


def unknown_fields(word: str, value: bytes) -> int:
    """Count the fields of a readable event that the contract does not know."""
    try:
        known = _fields[word]
        names = _anything.decode(value).keys()
        if "specversion" in names:
            names = _anything.decode(_body(word, value) or b"{}").keys()
        return len(names - known)
    except UNREADABLE:
        return 0
