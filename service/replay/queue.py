"""Rows of one model that its guards have not seen yet, by the line that made them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from schemas.observations import Observations, unpack
from service.ingest.find import Ints
from service.ingest.observe import Sampler, observations
from service.ingest.pending import LABELLED, ROW, Rows
from service.ingest.state import Partition, Said, Window
from service.replay.join import SOURCE

MATURED = "matured"
"""The topic under which matured rows are named while it is not known which line decides."""

NEVER = 1 << 62
"""The line of what does not come."""

_NONE: Ints = np.empty(0, np.int64)


class Part(NamedTuple):
    """Columns of one kind, in order of their lines."""

    lines: Ints
    marks: Ints
    """Watermark after each line."""
    names: Ints
    """Growing within the kind: the line, or a running number of matured rows."""
    rows: Rows
    events: list[Any]
    """The predictions themselves; `served` only."""


@dataclass
class Queue:
    """One kind; what lies before `at` was fed."""

    held: Part = field(default_factory=lambda: Part(_NONE, _NONE, _NONE, np.zeros(0, ROW), []))
    at: int = 0

    def add(self, more: Part) -> None:
        """Add rows of later lines."""
        left = self.slice(len(self.held.lines))
        self.held = Part(
            np.concatenate((left.lines, more.lines)), np.concatenate((left.marks, more.marks)),
            np.concatenate((left.names, more.names)), np.concatenate((left.rows, more.rows)),
            left.events + more.events,
        )  # fmt: skip
        self.at = 0

    def end(self, line: int) -> int:
        """Where the rows after a line begin."""
        return max(self.at, int(np.searchsorted(self.held.lines, line, side="right")))

    def slice(self, end: int) -> Part:
        """What was not fed, up to `end`."""
        lines, marks, names, rows, events = self.held
        now = slice(self.at, end)
        return Part(lines[now], marks[now], names[now], rows[now], events[now])


class Queues:
    """Rows of all kinds of one model."""

    def __init__(self, model: str, part: Partition) -> None:
        self._model, self._part = model, part
        # All features are read: there is no flood to save memory from.
        self._sampler = Sampler(1 << 40)
        self.served, self.labelled, self.final = Queue(), Queue(), Queue()
        self.merged: Ints = _NONE
        """Line of every row, sorted; of those before `at` all were fed."""
        self.at = 0

    @property
    def all(self) -> tuple[Queue, Queue, Queue]:
        """The three kinds."""
        return self.served, self.labelled, self.final

    def add(self, served: Part, labelled: Part, final: Part) -> None:
        """Add what a block brought."""
        for queue, more in zip(self.all, (served, labelled, final), strict=True):
            if len(more.lines):
                queue.add(more)
        every = [queue.held.lines[queue.at :] for queue in self.all]
        self.merged, self.at = np.sort(np.concatenate(every), kind="stable"), 0

    def waiting(self) -> int:
        """Rows that were not fed."""
        return len(self.merged) - self.at

    def count(self, line: int) -> int:
        """Rows up to this line that were not fed."""
        return max(0, int(np.searchsorted(self.merged, line, side="right")) - self.at)

    def last(self, line: int) -> int | None:
        """The last line up to this one that has rows to feed."""
        end = int(np.searchsorted(self.merged, line, side="right"))
        return int(self.merged[end - 1]) if end > self.at else None

    def line_at(self, time_ms: int) -> int:
        """The first line that has rows to feed and a watermark of at least this."""
        found = NEVER
        for queue in self.all:
            at = queue.at + int(np.searchsorted(queue.held.marks[queue.at :], time_ms))
            if at < len(queue.held.lines):
                found = min(found, int(queue.held.lines[at]))
        return found

    def lines(self, line: int) -> tuple[Ints, Ints]:
        """Lines up to this one that have rows to feed, each once, with their watermarks."""
        parts = [queue.slice(queue.end(line)) for queue in self.all]
        lines = np.concatenate([part.lines for part in parts])
        marks = np.concatenate([part.marks for part in parts])
        unique, first = np.unique(lines, return_index=True)
        return unique, marks[first]

    def line_of(self, position: dict[str, int | str]) -> int:
        """The line that a guard's position names."""
        offset = int(position["offset"])
        if position["topic"] != MATURED:
            return offset
        names, lines = self.final.held.names, self.final.held.lines
        return int(lines[np.searchsorted(names, offset)])

    def messages(self, line: int, mark_ms: int, newest: dict[str, int]) -> list[Observations]:
        """All up to a line as observation messages, as `ingest` packs them; at least one."""
        served, labelled, final = (queue.slice(queue.end(line)) for queue in self.all)
        window = Window(newest=newest)
        if len(served.lines):
            window.said.append(Said("served", SOURCE, served.names, served.rows, served.events))
        if len(labelled.lines):
            window.said.append(Said("labelled", SOURCE, labelled.names, labelled.rows))
        if len(final.lines):
            with_label = final.rows["state"] == LABELLED
            for kind, chosen in (("matured", with_label), ("unlabelled", ~with_label)):
                if chosen.any():
                    said = Said(kind, MATURED, final.names[chosen], final.rows[chosen])
                    window.said.append(said)
        self._part.watermark_ms = mark_ms
        if not window.said:
            return [self.no_rows(mark_ms)]
        packed: Sequence[tuple[bytes, bytes]] = observations(self._part, window, self._sampler)
        return [unpack(message) for _, message in packed]

    def no_rows(self, mark_ms: int) -> Observations:
        """A message that only says how far time has come."""
        return Observations(self._model, 0, self._part.streams, mark_ms, [], [], [], {})

    def last_mark(self, line: int) -> int | None:
        """Watermark at the last line up to this one that has rows to feed."""
        ends = [(queue, queue.end(line)) for queue in self.all]
        return max((int(queue.held.marks[end - 1]) for queue, end in ends if end > queue.at),
                   default=None)  # fmt: skip

    def fed(self, line: int) -> None:
        """Forget all up to a line."""
        for queue in self.all:
            queue.at = queue.end(line)
        self.at = int(np.searchsorted(self.merged, line, side="right"))
