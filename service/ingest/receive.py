"""Accept events whole or refuse them, a window at a time.

Why. What is half read could cause a rollback. So an event is accepted as it stands, or refused with
one sentence and sent to `dead-letters`; its partition goes on.

How. `schemas/wire.py` reads the batch. Times are checked as one column: a look at its smallest and
largest value clears the usual window, and only a window with something wrong is looked through
event by event. Arrival is the broker's time of each message.

Unknown fields are counted on every hundredth message and the count is multiplied: exact counting
costs as much as reading.

Refused here: repairing. A time in seconds is not turned into milliseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.times import EARLIEST_MS, FUTURE_LIVE_MS, LATEST_MS, to_ms
from schemas.wire import Refused, decode_batch, fault_of, unknown_fields

Ints = NDArray[np.int64]

SAMPLED = 100
"""One message in so many is searched for unknown fields."""

TOPICS = {"predictions": "prediction", "outcomes": "outcome"}
"""The topics of this role and the event each carries."""

REFUSALS = (
    ("bytes; send at most", "size"),
    ("UTF-8", "encoding"),
    ("nested", "nesting"),
    ("is not JSON", "json"),
    ("lies outside", "time"),
    ("ahead of its arrival", "time"),
    ("no prediction", "orphan"),
    ("room", "room"),
)
"""Words of a reason and the class of its refusal, for metrics."""


class Received(NamedTuple):
    """What was accepted of one batch, as columns of equal length, and what was refused."""

    events: list[Any]
    times_ms: Ints
    """Event times."""
    places: Ints | None
    """Which messages of the batch they are; None: all of them."""
    refused: list[Refused]
    unknown_fields: int


def receive(topic: str, values: Sequence[bytes], arrivals_ms: Sequence[int]) -> Received:
    """Read a batch of one topic.

    Parameters
    ----------
    topic : str
        `predictions` or `outcomes`.
    values : sequence of bytes
        Messages as they came, at least one.
    arrivals_ms : sequence of int
        When the broker took each, epoch ms.
    """
    word = TOPICS[topic]
    decoded = decode_batch(word, values)
    unknown = SAMPLED * sum(unknown_fields(word, values[i]) for i in range(0, len(values), SAMPLED))
    times_ms = None if decoded.refused else _clean_times(word, decoded.events, arrivals_ms)
    if times_ms is not None:
        return Received(decoded.events, times_ms, None, [], unknown)
    refused = {at: Refused(at, reason) for at, reason in decoded.refused}
    for index, event in enumerate(decoded.events):
        if event is not None and (reason := fault_of(event, arrivals_ms[index])) is not None:
            refused[index] = Refused(index, reason)
    kept = [index for index in range(len(values)) if index not in refused]
    events = [decoded.events[index] for index in kept]
    times_ms = np.array(list(map(to_ms, _times(word, events))), np.int64)
    faults = [refused[index] for index in sorted(refused)]
    return Received(events, times_ms, np.array(kept, np.int64), faults, unknown)


def _times(word: str, events: list[Any]) -> list[Any]:
    if word == "prediction":
        return [event.served_at for event in events]
    return [event.observed_at for event in events]


def _clean_times(word: str, events: list[Any], arrivals_ms: Sequence[int]) -> Ints | None:
    """Event times of a batch in which nothing is wrong, else None."""
    times = _times(word, events)
    try:
        times_ms = np.array(times, np.int64)
    except (TypeError, ValueError, OverflowError):  # texts were read as datetime; or 10**30
        whole = list(map(to_ms, times))
        if max(whole) >= LATEST_MS or min(whole) < EARLIEST_MS:
            return None
        times_ms = np.array(whole, np.int64)
    if int(times_ms.min()) < EARLIEST_MS or int(times_ms.max()) >= LATEST_MS:
        return None
    if int(times_ms.max()) > min(arrivals_ms) + FUTURE_LIVE_MS and bool(
        (times_ms > np.array(arrivals_ms, np.int64) + FUTURE_LIVE_MS).any()
    ):
        return None
    if word == "prediction":
        errors = [event.error for event in events]
        if errors.count(None) != len(errors) and any(error is False for error in errors):
            return None
    return times_ms


def class_of(reason: str) -> str:
    """The class of a refusal, one of a few words, for metrics.

    Examples
    --------
    >>> class_of("outcome is not valid UTF-8"), class_of("outcome.label: expected str")
    ('encoding', 'field')
    """
    return next((name for words, name in REFUSALS if words in reason), "field")
