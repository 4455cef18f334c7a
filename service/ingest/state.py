"""What `ingest` knows of one partition, and what one step of it says and changes.

`Partition` is a fold of the log; `Window` is the effect of one step, emptied by the worker: first
what it says is appended, then what it changed is stored, in one batch with the positions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from msgspec import Struct

from service.ingest.find import Ints
from service.ingest.models import Models
from service.ingest.pending import Pending, Piece, Rows
from service.ingest.slices import Slices
from service.ingest.texts import Texts

PREDICTIONS, OUTCOMES = "predictions", "outcomes"

NO_ROWS: Ints = np.empty(0, np.int64)


class Parked(Struct, array_like=True, gc=False):
    """An outcome that came before its prediction."""

    offset: int
    observed_ms: int
    label: float | str
    cost: float | None
    model: str | None
    due_s: int
    value: bytes
    """The original, cut, for `dead-letters`."""
    size: int
    sampled: float | None = None


class Taken(NamedTuple):
    """Accepted events of one topic as columns of equal length, oldest first."""

    events: list[Any]
    offsets: Ints
    times_ms: Ints
    values: list[bytes]


class Mark(NamedTuple):
    """How far expiry has come: rows due at or before `due_s`, taken in before these offsets."""

    due_s: int = 0
    predictions: int = 0
    outcomes: int = 0


NOTHING = Mark()


class Run(Struct, array_like=True):
    """Label blobs of a few windows, which die together."""

    first: int
    last: int
    max_due_s: int
    count: int


@dataclass
class Fold:
    """A partition that is built again from the log: silent up to what was committed."""

    settled: dict[str, int]
    """Committed offset of each topic; what lies below was said by whoever owned it before."""
    owed: list[int] = field(default_factory=list)
    """Rows that met an outcome from below the committed offset and lie above it themselves."""


@dataclass
class Partition:
    """One partition of predictions and outcomes."""

    number: int
    streams: dict[str, str]
    models: Models
    taken: dict[str, int]
    """Next offset of each topic."""
    until: dict[str, int]
    """Where each topic ended at assignment: up to there it is behind."""
    by: str = ""
    """Which store this state lives in; another one has another name."""
    seq: int = 0
    """Steps so far."""
    pending: Pending = field(default_factory=Pending)
    texts: Texts = field(default_factory=Texts)
    slices: Slices = field(default_factory=Slices)
    parked: dict[bytes, Parked] = field(default_factory=dict)
    parked_due: list[tuple[int, bytes]] = field(default_factory=list)
    """Heap; entries of outcomes that were met since are skipped."""
    watermark_ms: int = 0
    seen_ms: dict[str, int] = field(default_factory=lambda: {PREDICTIONS: 0, OUTCOMES: 0})
    """Highest accepted event time of each topic."""
    intent: Mark = NOTHING
    """What may expire: durable before the first row of it is said."""
    ended: Mark = NOTHING
    """The intent before, of which everything was said."""
    due: Ints = field(default_factory=lambda: NO_ROWS)
    """Rows of the intent that are still to be said, by offset."""
    due_parked: list[bytes] = field(default_factory=list)
    runs: list[Run] = field(default_factory=list)
    busy: frozenset[str] = frozenset()
    """Topics that brought events a moment ago: there may be more of their past to read."""
    settled_ms: int = 2**62
    """The watermark of a moment ago: outcomes logged since may not have been read."""
    fold: Fold | None = None

    def is_behind(self) -> bool:
        """Whether it still reads what was there when it was assigned."""
        return any(self.taken[topic] < self.until[topic] for topic in self.taken)

    def oldest(self) -> dict[str, int]:
        """Where another machine has to begin reading to build this state."""
        slabs = self.pending.slabs.values()
        parked = next(iter(self.parked.values()), None)
        return {
            PREDICTIONS: min((s.first_offset for s in slabs), default=self.taken[PREDICTIONS]),
            OUTCOMES: min(
                self.taken[OUTCOMES] if parked is None else parked.offset,
                min((s.floor for s in slabs), default=self.taken[OUTCOMES]),
            ),
        }


class Blob(NamedTuple):
    """New rows of one slab, for the store."""

    piece: Piece
    rows: Rows
    ids: list[bytes]
    floor: int


class Said(NamedTuple):
    """Rows of one kind that are to be said, oldest first."""

    kind: str
    topic: str
    offsets: Ints
    """Their names."""
    rows: Rows
    events: list[Any] | None = None
    """The predictions themselves, for what a row does not keep; `served` only."""


@dataclass
class Window:
    """What one step says and changes."""

    said: list[Said] = field(default_factory=list)
    labelled: dict[str, list[tuple[Ints, Ints]]] = field(
        default_factory=lambda: {PREDICTIONS: [], OUTCOMES: []}
    )
    """(names, rows) of completed pairs, by the topic of the event that completed them."""
    labels: list[Ints] = field(default_factory=list)
    """Rows that got their label in this step."""
    blobs: list[Blob] = field(default_factory=list)
    parked: set[bytes] = field(default_factory=set)
    """Ids whose parked outcome came or went."""
    orphans: list[tuple[bytes, Parked]] = field(default_factory=list)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    """(topic, offset, reason) of accepted events for whose names there is no room."""
    dropped: list[int] = field(default_factory=list)
    """Slabs that are gone."""
    dropped_runs: list[Run] = field(default_factory=list)
    newest: dict[str, int] = field(default_factory=dict)
    seen_ms: dict[str, int] = field(default_factory=dict)
    """Highest event time by topic of what is no repetition."""
    duplicates: int = 0
    corrections: int = 0

    def rows_of(self, pairs: Iterable[tuple[Ints, Ints]]) -> tuple[Ints, Ints]:
        """All names and rows of completed pairs, by name."""
        names, rows = (np.concatenate(part) for part in zip(*pairs, strict=True))
        if bool((names[1:] < names[:-1]).any()):
            order = np.argsort(names, kind="stable")
            return names[order], rows[order]
        return names, rows
