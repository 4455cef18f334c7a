"""One step of a partition: say what is due, take in a window, decide what is due next.

Predictions come before outcomes in every step, whatever the order in which they were read: a window
that is done again after a crash then makes the same pairs under the same names.

While the state is built again from the log, a window is cut where the owner before had committed,
and where it had decided the last expiry: outcomes beyond that did not find what was due.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from service.ingest.expire import decide_due, end_fold, say_due
from service.ingest.join import take_outcomes, take_predictions
from service.ingest.state import OUTCOMES, PREDICTIONS, Partition, Taken, Window


class Batch(NamedTuple):
    """What was accepted of one topic, and the offset after all that was read, also refused."""

    taken: Taken
    next_offset: int


def step(part: Partition, batches: Mapping[str, Sequence[Batch]], passed_ms: int) -> Window:
    """Take in one window.

    Parameters
    ----------
    batches : mapping
        By topic, oldest first.
    passed_ms : int
        Wall time that passed without any event; moves the watermark.
    """
    window = Window()
    if part.fold is None:
        say_due(part, window)
    for batch in batches.get(PREDICTIONS, ()):
        for piece in _cut(part, PREDICTIONS, batch.taken):
            if piece.events:
                silent = _is_settled(part, PREDICTIONS, int(piece.offsets[0]))
                take_predictions(part, window, piece, silent)
        _move(part, window, PREDICTIONS, batch)
    for batch in batches.get(OUTCOMES, ()):
        for piece in _cut(part, OUTCOMES, batch.taken):
            if piece.events:
                _reach(part, window, int(piece.offsets[0]))
                take_outcomes(part, window, piece)
        _move(part, window, OUTCOMES, batch)
    if part.fold is not None:
        _reach(part, window, part.taken[OUTCOMES])
    if part.fold is None and not part.is_behind() and part.watermark_ms:
        part.watermark_ms += passed_ms
    decide_due(part)
    return window


def _move(part: Partition, window: Window, topic: str, batch: Batch) -> None:
    part.taken[topic] = batch.next_offset
    window.newest[topic] = batch.next_offset - 1
    if topic in window.seen_ms:
        seen_ms = max(part.seen_ms[topic], window.seen_ms[topic])
        part.seen_ms[topic] = seen_ms
        part.watermark_ms = max(part.watermark_ms, seen_ms)


def _is_settled(part: Partition, topic: str, offset: int) -> bool:
    return part.fold is not None and offset < part.fold.settled[topic]


def _reach(part: Partition, window: Window, outcome: int) -> None:
    """Come to an outcome while the state is built again."""
    if part.fold is None:
        return
    if outcome >= part.intent.outcomes:
        part.pending.close(part.intent.due_s)
    settled = part.fold.settled
    if outcome >= settled[OUTCOMES] and part.taken[PREDICTIONS] >= settled[PREDICTIONS]:
        end_fold(part, window)


def _cut(part: Partition, topic: str, taken: Taken) -> Iterator[Taken]:
    """Cut a batch where something changes; one piece outside of a fold."""
    if part.fold is None:
        yield taken
        return
    marks = {part.fold.settled[topic]}
    if topic == OUTCOMES:
        marks.add(part.intent.outcomes)
    at = sorted(int(taken.offsets.searchsorted(mark)) for mark in marks)
    edges = [0, *at, len(taken.events)]
    for start, end in pairwise(edges):
        yield Taken(taken.events[start:end], taken.offsets[start:end], taken.times_ms[start:end],
                    taken.values[start:end])  # fmt: skip
