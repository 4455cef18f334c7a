"""Pair predictions and outcomes of a recording, event by event in their order of arrival.

Why. Live, two topics are read side by side and windows decide what meets first; a recording has one
order, so here every line has one exact effect: a row served, a pair made, predictions matured by
the line that moved the watermark.

How. One pass decides what each event is (accepted, refused, duplicate, correction); everything
about columns is then done for a whole block. The first prediction of an id and its first outcome
count. A prediction matures on the first line after which the watermark has reached `served_at` plus
its horizon; an outcome on that very line still meets it. Without its outcome by then, or with one
observed beyond the horizon, it stays unlabelled. An outcome that comes first waits for its
prediction as long as the recording lasts.

Memory: ids are never forgotten, about 350 bytes per prediction, so that a repeat is found however
late it comes.

Refused here: verdicts (`course.py`), and time beyond the last event.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from schemas.events import Event, Outcome, Prediction, Rollout
from schemas.policies import Policy
from schemas.times import (
    EARLIEST_MS,
    FUTURE_LIVE_MS,
    FUTURE_RECORDED_MS,
    LATEST_MS,
    fault_of_time,
    to_ms,
)
from schemas.wire import fault_of
from service.ingest.find import Ints
from service.ingest.join import mark_groups
from service.ingest.models import NO_ROOM, Models
from service.ingest.pending import (
    FAILED,
    LABELLED,
    ROW,
    TEXT_LABEL,
    TEXT_VALUE,
    Rows,
    costs_of,
    delays_ms,
    sampled_of,
)
from service.ingest.state import Partition
from service.replay.read import KIND_OF, OUTCOME, PREDICTION, Read

SOURCE = "recording"
"""The topic that positions name: partition 0, and the line as offset."""


class Parked(NamedTuple):
    """An outcome that came before its prediction."""

    time_ms: int
    label: float | str
    cost: float | None
    sampled: float | None


class Made(NamedTuple):
    """Rows of one kind in order of the line that made them, as columns."""

    lines: Ints
    rows: Ints
    """Which predictions, in order of acceptance."""


_NO_LINES: Ints = np.empty(0, np.int64)
_NOTHING = Made(_NO_LINES, _NO_LINES)


@dataclass
class Counts:
    """What became of the lines."""

    read: int = 0
    refused: int = 0
    duplicates: int = 0
    corrections: int = 0

    @property
    def accepted(self) -> int:
        """All that was neither refused nor a duplicate."""
        return self.read - self.refused - self.duplicates


@dataclass
class Block:
    """What some lines brought."""

    before_ms: int
    """Watermark before them."""
    lines: Ints = field(default_factory=lambda: _NO_LINES)
    """Lines of accepted predictions and outcomes."""
    marks: Ints = field(default_factory=lambda: _NO_LINES)
    """Watermark after each of them."""
    served: Made = _NOTHING
    events: list[Any] = field(default_factory=list)
    """The predictions themselves, in the order of `served`."""
    labelled: Made = _NOTHING
    final: Made = _NOTHING
    """Matured, with a label or without."""
    cuts: list[tuple[int, str, Rollout | None]] = field(default_factory=list)
    """(line, model, event) where a model's plan may change: a rollout, or a version's first
    prediction."""


@dataclass
class _Seen:
    """Lists that the pass over a block fills."""

    events: list[Any] = field(default_factory=list)
    lines: list[int] = field(default_factory=list)
    times: list[int] = field(default_factory=list)
    codes: list[int] = field(default_factory=list)
    outcomes: list[tuple[int, int, int, int, Any]] = field(default_factory=list)
    """(row, line, observed, watermark before, outcome)."""
    accepted: list[int] = field(default_factory=list)
    """Lines of accepted predictions and outcomes."""
    marks: list[int] = field(default_factory=list)
    """Watermark after each of them."""


class Join:
    """All predictions and outcomes of a recording."""

    def __init__(self, policies: list[Policy]) -> None:
        self.models = Models(policies)
        self.part = Partition(0, {SOURCE: ""}, self.models, {}, {})
        self.counts = Counts()
        self.reasons: Counter[str] = Counter()
        self.rows: Rows = np.zeros(1 << 14, ROW)
        self._due_ms: Ints = np.zeros(1 << 14, np.int64)
        self._line: Ints = np.zeros(1 << 14, np.int64)
        self._row_of: dict[str, int] = {}
        self._labels: list[float | str | None] = []
        self._parked: dict[str, Parked] = {}
        self._codes: dict[str, dict[str, int]] = {}
        self._waiting: list[tuple[int, Ints]] = []
        """(earliest due, rows), of predictions that have not matured."""
        self._arrived_ms: int | None = None
        """When the event at hand arrived, where a log noted it."""
        self._highest_ms = 0
        self._watermark_ms = 0

    def take(self, read: Read) -> Block:
        """Take in the events of some lines."""
        block, seen, first_row = Block(self._watermark_ms), _Seen(), len(self._labels)
        for _, reason in read.refused:
            self._refuse(reason)
        self.counts.read += len(read.refused) + len(read.events)
        arrivals = repeat(None) if read.arrived_ms is None else read.arrived_ms
        for line, event, self._arrived_ms in zip(read.lines, read.events, arrivals, strict=False):
            kind = KIND_OF[type(event)]
            if kind == PREDICTION:
                self._predict(line, event, seen, block)  # type: ignore[arg-type]
            elif kind == OUTCOME:
                self._observe(line, event, seen)  # type: ignore[arg-type]
            else:
                self._roll_out(line, event, block)  # type: ignore[arg-type]
        if seen.accepted:
            block.lines, block.marks = np.array(seen.accepted), np.array(seen.marks)
            self._place(block, seen, first_row)
            block.final = self._mature(block)
        return block

    # -- event by event --------------------------------------------------------------------------

    def _time_of(self, event: Event, time: Any) -> int | None:
        """The event's time if it is accepted; else the refusal is counted."""
        time_ms = time if type(time) is int else to_ms(time)
        if (
            event.arrived_at is None
            and self._arrived_ms is None
            and EARLIEST_MS <= time_ms < LATEST_MS
            and time_ms <= (self._highest_ms or LATEST_MS) + FUTURE_RECORDED_MS
            and getattr(event, "error", None) is not False
        ):
            return time_ms
        if (reason := self._fault(event)) is None:
            return time_ms
        self._refuse(reason)
        return None

    def _fault(self, event: Event) -> str | None:
        if self._arrived_ms is not None:  # as live
            return fault_of(event, self._arrived_ms)
        if event.arrived_at is None:
            latest_ms = (self._highest_ms or LATEST_MS) + FUTURE_RECORDED_MS
            return fault_of(event, latest_ms - FUTURE_LIVE_MS)
        arrived_ms = to_ms(event.arrived_at)
        fault = fault_of_time(arrived_ms, LATEST_MS, "arrived_at")
        return fault or fault_of(event, arrived_ms)

    def _refuse(self, reason: str) -> None:
        self.counts.refused += 1
        self.reasons[reason] += 1

    def _accept(self, line: int, time_ms: int, seen: _Seen) -> None:
        if time_ms > self._highest_ms:
            self._highest_ms = time_ms
        if time_ms > self._watermark_ms:
            self._watermark_ms = time_ms
        seen.accepted.append(line)
        seen.marks.append(self._watermark_ms)

    def _predict(self, line: int, event: Prediction, seen: _Seen, block: Block) -> None:
        time_ms = self._time_of(event, event.served_at)
        if time_ms is None:
            return
        key, row_of = event.prediction_id, self._row_of
        if key in row_of:
            self.counts.duplicates += 1
            return
        try:
            code = self._codes[event.model][event.version]
        except KeyError:
            known = self._learn(event)
            if known is None:
                self._refuse(NO_ROOM)
                return
            code = known
            block.cuts.append((line, event.model, None))
        row = row_of[key] = len(self._labels)
        self._labels.append(None)
        seen.events.append(event)
        seen.lines.append(line)
        seen.times.append(time_ms)
        seen.codes.append(code)
        self._accept(line, time_ms, seen)
        if self._parked and (parked := self._parked.pop(key, None)) is not None:
            self._labels[row] = parked.label
            # It was there before the prediction, so only its own time can make it late.
            seen.outcomes.append((row, line, parked.time_ms, 0, parked))

    def _learn(self, event: Prediction) -> int | None:
        named = self.models.named([event])
        if named.refused:
            return None
        code = int(named.model[0]) << 16 | int(named.version[0])
        self._codes.setdefault(event.model, {})[event.version] = code
        return code

    def _observe(self, line: int, event: Outcome, seen: _Seen) -> None:
        time_ms = self._time_of(event, event.observed_at)
        if time_ms is None:
            return
        key = event.prediction_id
        row = self._row_of.get(key)
        first = self._labels[row] if row is not None else None
        if row is None and (parked := self._parked.get(key)) is not None:
            first = parked.label
        if first is not None:
            if first == event.label:
                self.counts.duplicates += 1
                return
            self.counts.corrections += 1
        elif row is None:
            self._parked[key] = Parked(time_ms, event.label, event.cost, event.sampled)
        else:
            self._labels[row] = event.label
            seen.outcomes.append((row, line, time_ms, self._watermark_ms, event))
        self._accept(line, time_ms, seen)

    def _roll_out(self, line: int, event: Rollout, block: Block) -> None:
        if (reason := self._fault(event)) is not None:
            self._refuse(reason)
            return
        self._highest_ms = max(self._highest_ms, to_ms(event.at))
        block.cuts.append((line, event.model, event))

    # -- a block at once -------------------------------------------------------------------------

    def _place(self, block: Block, seen: _Seen, first: int) -> None:
        """Write new rows and labels as columns."""
        end = len(self._labels)
        while end > len(self.rows):
            size = 2 * len(self.rows)
            for array in (self.rows, self._due_ms, self._line):
                array.resize(size, refcheck=False)
        if end > first:
            new = np.arange(first, end)
            lines = np.array(seen.lines, np.int64)
            made = self._rows_of(seen, lines)
            self.rows[first:end], self._line[first:end] = made, lines
            due_ms = made["served_ms"] + self.models.horizon_ms[made["model"]]
            self._due_ms[first:end] = due_ms
            self._waiting.append((int(due_ms.min()), new))
            block.served, block.events = Made(lines, new), seen.events
        if seen.outcomes:
            block.labelled = self._label(seen)

    def _rows_of(self, seen: _Seen, lines: Ints) -> Rows:
        events, texts = seen.events, self.part.texts
        values = texts.encode([event.prediction for event in events])
        codes = np.array(seen.codes, np.int64)
        made = np.zeros(len(events), ROW)
        made["offset"], made["served_ms"] = lines, seen.times
        made["value"] = values.numbers
        made["label"] = made["cost"] = made["sampled"] = np.nan
        made["score"] = np.array([event.score for event in events], np.float64)
        made["weight"] = np.array([event.weight for event in events], np.float64)
        made["model"], made["version"] = codes >> 16, codes & 0xFFFF
        made["flags"] = values.is_text * np.uint8(TEXT_VALUE)
        failed = [event.error is not None for event in events]
        if any(failed):
            made["flags"] |= np.array(failed, np.uint8) * np.uint8(FAILED)
        mark_groups(self.part, made, events)
        return made

    def _label(self, seen: _Seen) -> Made:
        """Give rows their outcome; those in time make pairs."""
        row, line, observed, before, events = zip(*seen.outcomes, strict=True)
        rows, observed_ms = np.array(row, np.int64), np.array(observed, np.int64)
        labels = self.part.texts.encode([event.label for event in events])
        self.rows["label"][rows] = labels.numbers
        self.rows["delay_ms"][rows] = delays_ms(observed_ms, self.rows["served_ms"][rows])
        self.rows["cost"][rows] = costs_of(events)
        self.rows["sampled"][rows] = sampled_of(events)
        self.rows["flags"][rows[labels.is_text]] |= TEXT_LABEL
        due_ms = self._due_ms[rows]
        timely = (observed_ms <= due_ms) & (np.array(before, np.int64) < due_ms)
        self.rows["state"][rows[timely]] = LABELLED
        return Made(np.array(line, np.int64)[timely], rows[timely])

    def _mature(self, block: Block) -> Made:
        """The predictions whose horizon the watermark reached, by the line that moved it."""
        end_ms = int(block.marks[-1])
        ripe, waiting = [], []
        for earliest_ms, rows in self._waiting:
            if earliest_ms > end_ms:
                waiting.append((earliest_ms, rows))
                continue
            due_ms = self._due_ms[rows]
            is_ripe = due_ms <= end_ms
            ripe.append(rows[is_ripe])
            if not is_ripe.all():
                waiting.append((int(due_ms[~is_ripe].min()), rows[~is_ripe]))
        self._waiting = waiting
        if not ripe:
            return block.final
        rows = np.concatenate(ripe)
        moved = block.lines[np.searchsorted(block.marks, self._due_ms[rows])]
        lines = np.maximum(moved, self._line[rows])
        order = np.lexsort((rows, lines))
        return Made(lines[order], rows[order])
