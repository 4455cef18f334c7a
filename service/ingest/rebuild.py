"""Where to begin when a partition is assigned: here, again from the log, or afresh.

Why. The state on this machine may be the newest, older than what another worker committed, or of a
topic that was deleted since. Only the newest may be gone on with; from any other the same pair
could be said under two names.

How. Each commit carries a note: which state made it and at which step, and all that another machine
needs to build it again. Own state is resumed when the note is its own and not newer (after a power
cut it may be newer), or when there is none.

A resumed state may be one step ahead of its commit. That commit is made up for before another step:
two steps beyond the last note could not be named alike by a machine that has only the log.

Refused here: guessing. Without a note and without a state the committed offset is the beginning.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from msgspec import Struct

from service.ingest.remember import Meta
from service.ingest.state import OUTCOMES, PREDICTIONS, Fold, Mark, Partition


class Note(Struct, frozen=True):
    """What is committed beside the offsets, as JSON of about 250 bytes."""

    by: str
    seq: int
    oldest: dict[str, int]
    """Where reading has to begin for the state to be whole."""
    seen_ms: dict[str, int]
    watermark_ms: int
    intent: Mark
    ended: Mark


class Committed(NamedTuple):
    """A committed position, as far as it is of the present stream."""

    offset: int
    note: str


class Opening(NamedTuple):
    """How to begin."""

    resume: bool
    """Go on with the state on this machine; else it is emptied."""
    note: Note | None = None
    """Build the state again from what it says."""


_note = msgspec.json.Decoder(Note)


def note_of(part: Partition) -> str:
    """Write the note of a state."""
    return msgspec.json.encode(Note(
        part.by, part.seq, part.oldest(), part.seen_ms, part.watermark_ms, part.intent, part.ended,
    )).decode()  # fmt: skip


def choose(streams: Mapping[str, str], meta: Meta | None, committed: Mapping[str, Committed]
           ) -> Opening:  # fmt: skip
    """Decide how to begin.

    Parameters
    ----------
    meta : Meta or None
        Of the state on this machine.
    committed : mapping
        By topic; only positions of the present streams.
    """
    note = _read(committed)
    own = meta is not None and not meta.folding and meta.streams == streams
    if own and meta is not None and (
        note is None or (note.by == meta.by and note.seq <= meta.seq)
    ):  # fmt: skip
        return Opening(True)
    return Opening(False, note)


def begin(part: Partition, note: Note | None, committed: Mapping[str, Committed],
          first: Mapping[str, int]) -> None:  # fmt: skip
    """Set an empty state to where reading begins."""
    if note is None:
        for topic in (PREDICTIONS, OUTCOMES):
            held = committed.get(topic)
            part.taken[topic] = held.offset if held else first[topic]
        return
    part.taken = {topic: max(first[topic], at) for topic, at in note.oldest.items()}
    part.seen_ms, part.watermark_ms = dict(note.seen_ms), note.watermark_ms
    part.intent, part.ended = note.intent, note.ended
    part.fold = Fold({topic: held.offset for topic, held in committed.items()})


def is_committed(part: Partition, committed: Mapping[str, Committed]) -> bool:
    """Whether the last commit is of this very state, so that a step may follow."""
    note = _read(committed)
    return note is not None and (note.by, note.seq) == (part.by, part.seq)


def _read(committed: Mapping[str, Committed]) -> Note | None:
    if set(committed) != {PREDICTIONS, OUTCOMES}:
        return None
    try:
        return _note.decode(committed[PREDICTIONS].note)
    except msgspec.MsgspecError:
        return None
