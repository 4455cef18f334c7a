"""From the lines of a recording to events, strictly as live.

Why. A recording is read once, a line an event, in order of arrival; what live would refuse is
refused here with the same sentence. Lines are numbered over all files from 1, empty ones too, so
that a number finds its line with any editor. Messages of a log are numbered in the order in which
they are merged, and say themselves when they arrived.

How. A line whose `type` comes bare is decoded in one pass; all others (envelopes, faults, very long
lines, a NUL) take the slow way through `schemas/wire.py`.

Refused here: times. What is believed of a time depends on what came before (`join.py`).
"""

from __future__ import annotations

import gzip
import sys
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from operator import contains
from pathlib import Path
from typing import IO, NamedTuple, Protocol

import msgspec

from schemas.events import TOPIC_OF, Event, Outcome, Prediction, Rollout
from schemas.wire import (
    MAX_EVENT_BYTES,
    UNREADABLE,
    InvalidEvent,
    decode_batch,
    decode_one,
    sort_of,
)

PREDICTION, OUTCOME, ROLLOUT = 0, 1, 2
"""Kinds of events, as the join tells them apart."""


class _Prediction(Prediction, tag="prediction", tag_field="type", frozen=True, gc=False):
    pass


class _Outcome(Outcome, tag="outcome", tag_field="type", frozen=True, gc=False):
    pass


class _Rollout(Rollout, tag="rollout", tag_field="type", frozen=True, kw_only=True):
    pass


KIND_OF: dict[type, int] = {
    Prediction: PREDICTION, _Prediction: PREDICTION, Outcome: OUTCOME, _Outcome: OUTCOME,
    Rollout: ROLLOUT, _Rollout: ROLLOUT,
}  # fmt: skip

_decode = msgspec.json.Decoder(_Prediction | _Outcome | _Rollout).decode


class RecordingFault(RuntimeError):
    """A recording cannot be read on; the text says where and why."""


class Read(NamedTuple):
    """The events of some lines, and what was refused of them."""

    lines: list[int]
    events: list[Event]
    refused: list[tuple[int, str]]
    """(line, reason)."""
    arrived_ms: list[int] | None = None
    """When each event arrived, as the log noted it; None: as the events say, or unknown."""


class Arrived(Protocol):
    """A message of a log, as far as it is read here."""

    @property
    def topic(self) -> str:
        """Without prefix."""

    @property
    def time_ms(self) -> int:
        """When the log took it, epoch ms."""

    @property
    def value(self) -> bytes:
        """The event."""


def read_records(first: int, records: Sequence[Arrived]) -> Read:
    """Read messages of topics, in order of arrival.

    Parameters
    ----------
    first : int
        Number of the first of them.
    """
    events: list[Event | None] = [None] * len(records)
    refused: list[tuple[int, str]] = []
    for word, topic in TOPIC_OF.items():
        places = [at for at, record in enumerate(records) if record.topic == topic]
        decoded = decode_batch(word, [records[at].value for at in places])
        for at, event in zip(places, decoded.events, strict=True):
            events[at] = event
        refused += [(first + places[at], reason) for at, reason in decoded.refused]
    kept = [at for at, event in enumerate(events) if event is not None]
    return Read(
        [first + at for at in kept], [event for event in events if event is not None],
        sorted(refused), [records[at].time_ms for at in kept],
    )  # fmt: skip


def read(first: int, lines: Sequence[bytes]) -> Read:
    """Read lines of a recording.

    Parameters
    ----------
    first : int
        Number of the first of them.
    lines : sequence of bytes
        Empty ones are no events.
    """
    decode = _slowly if _needs_a_look(lines) else _decode
    numbers: list[int] = []
    events: list[Event] = []
    refused: list[tuple[int, str]] = []
    for number, line in enumerate(lines, first):
        try:
            events.append(decode(line))
        except (*UNREADABLE, InvalidEvent):
            text = line.strip()
            if not text:
                continue
            try:
                events.append(_slowly(text))
            except InvalidEvent as fault:
                refused.append((number, str(fault)))
                continue
        numbers.append(number)
    return Read(numbers, events, refused)


def _needs_a_look(lines: Sequence[bytes]) -> bool:
    """Whether a line may be too long or hold a NUL, which the fast way would let pass."""
    if max(map(len, lines), default=0) > MAX_EVENT_BYTES:
        return True
    backslash = ord("\\")
    return any(contains(line, backslash) and b"\\u0000" in line for line in lines)


def _slowly(line: bytes) -> Event:
    text = line.strip()
    event: Event = decode_one(sort_of(text), text)
    return event


def chunks(files: Sequence[Path], most: int) -> Iterator[tuple[int, list[bytes]]]:
    """Give the lines of all files, at most so many at once, with the number of the first.

    Raises
    ------
    RecordingFault
        When a packed file is damaged.
    """
    number = 1
    for file in files:
        with _opened(file) as stream:
            while True:
                try:
                    lines = list(islice(stream, most))
                except (EOFError, gzip.BadGzipFile, zlib.error) as fault:
                    raise RecordingFault(
                        f"{file} cannot be unpacked after line {number - 1} of all ({fault}); "
                        "is it complete?"
                    ) from None
                if not lines:
                    break
                yield number, lines
                number += len(lines)


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """A recording as plain lines: packed or not, or standard input."""
    source = sys.stdin.fileno() if str(file) == "-" else file
    with open(source, "rb", closefd=str(file) != "-") as raw:
        packed = raw.peek(2)[:2] == b"\x1f\x8b"
        yield gzip.GzipFile(fileobj=raw) if packed else raw  # type: ignore[misc]
