"""Pair each prediction with its outcome.

Why. The two halves of an observation come from two systems, in either order, more than once,
and the second may come weeks later or never. Whatever comes after this module may assume
complete pairs; after a crash one may be said again, under the same name.

How. A prediction is kept until its horizon; an outcome that comes first is parked. The first
outcome makes the pair. A later one is a correction: it is counted and logged but changes nothing,
or the ground of a decision could move after the decision. When the first one was observed beyond
the horizon it is late: counted, and the prediction stays unlabelled for good, for what counts must
not depend on which of two topics was read faster. A window is joined as columns; only what is odd
is looked at one by one.

A pair is named by the event that completed it. When the state is built again from the log (`fold`),
which one that was follows from the committed offsets: an outcome below them met a prediction above
them when that prediction came.

Time is event time. Rows get the second at which they are due here, and it never falls behind an
expiry that was already decided, or a row could be closed before it was opened.

Refused here: losses (`watch`), expiry (`expire.py`), reading topics (`worker.py`), any guess at a
missing label.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from schemas.events import Outcome, Prediction
from service.ingest.find import Hashes, Ints, hashes_of
from service.ingest.models import (
    CORRECTION,
    DUPLICATE,
    LATE,
    NO_ROOM,
    ORPHAN,
    Named,
    unit_hash,
)
from service.ingest.pending import (
    FAILED,
    ROW,
    TEXT_LABEL,
    TEXT_VALUE,
    WAITING,
    Labels,
    Rows,
    costs_of,
    sampled_of,
)
from service.ingest.state import OUTCOMES, PREDICTIONS, Blob, Parked, Partition, Said, Taken, Window

LAST_S = (1 << 32) - 2
MOST_PARKED = 200_000
"""Outcomes that wait for a prediction, per partition; beyond it the oldest becomes an orphan."""
KEPT_BYTES = 2048
"""How much of a parked outcome's original is kept for `dead-letters`."""


def take_predictions(part: Partition, window: Window, batch: Taken, silent: bool) -> None:
    """Take in predictions; `silent`: they were said by whoever owned the partition before."""
    ids = [event.prediction_id.encode() for event in batch.events]
    hashes = hashes_of(ids)
    known = part.pending.index.find(hashes) >= 0
    if len(set(ids)) < len(ids):
        known |= ~_first_of_each(ids)
    repeated = [batch.events[at].model for at in np.flatnonzero(known).tolist()]
    if repeated:
        batch, ids, hashes = _without(batch, ids, hashes, known)
    named = part.models.named(batch.events)
    _count_repeats(part, window, repeated)
    if named.refused:
        gone = np.zeros(len(ids), np.bool_)
        gone[named.refused] = True
        window.refused += [(PREDICTIONS, at, NO_ROOM) for at in batch.offsets[gone].tolist()]
        batch, ids, hashes = _without(batch, ids, hashes, gone)
    if not ids:
        return
    _see(window, PREDICTIONS, batch.times_ms)
    new = _rows_of(part, batch, named)
    floor = part.taken[OUTCOMES]
    parked = [at for at, key in enumerate(ids) if key in part.parked] if part.parked else []
    for at in parked:
        floor = min(floor, part.parked[ids[at]].offset)
    horizons_ms = part.models.horizon_ms[named.model]
    rows, pieces = part.pending.add(new, hashes, horizons_ms, floor)
    for piece in pieces:
        own = [ids[at] for at in piece.take.tolist()] if len(pieces) > 1 else ids
        window.blobs.append(Blob(piece, new[piece.take], own, floor))
    if not silent:
        window.said.append(Said("served", PREDICTIONS, batch.offsets, new, batch.events))
    for at in parked:
        _meet_parked(part, window, ids[at], rows[at : at + 1])


def _see(window: Window, topic: str, times_ms: Ints) -> None:
    """Note the event times of what is no repetition: a duplicate moves nothing, not even time."""
    if len(times_ms):
        window.seen_ms[topic] = max(window.seen_ms.get(topic, 0), int(times_ms.max()))


def _first_of_each(ids: list[bytes]) -> np.ndarray:
    seen: set[bytes] = set()
    first = np.zeros(len(ids), np.bool_)
    for at, key in enumerate(ids):
        first[at] = key not in seen
        seen.add(key)
    return first


def _count_repeats(part: Partition, window: Window, models: list[str]) -> None:
    window.duplicates += len(models)
    for name in models:
        if (model := part.models.index.get(name)) is not None:
            part.models.count(model, DUPLICATE)


def _without(batch: Taken, ids: list[bytes], hashes: Hashes, gone: np.ndarray
             ) -> tuple[Taken, list[bytes], Hashes]:  # fmt: skip
    keep = np.flatnonzero(~gone)
    places = keep.tolist()
    kept = Taken([batch.events[at] for at in places], batch.offsets[keep], batch.times_ms[keep], [])
    return kept, [ids[at] for at in places], hashes.take(keep)


def _rows_of(part: Partition, batch: Taken, named: Named) -> Rows:
    events = batch.events
    values = part.texts.encode([event.prediction for event in events])
    new = np.zeros(len(events), ROW)
    new["offset"] = batch.offsets
    new["served_ms"] = batch.times_ms
    new["value"] = values.numbers
    new["score"] = np.array([event.score for event in events], np.float64)
    new["weight"] = np.array([event.weight for event in events], np.float64)
    new["label"] = new["cost"] = new["sampled"] = np.nan
    new["model"] = named.model
    new["version"] = named.version
    new["due_s"] = _due_s(part, batch, named.model)
    new["flags"] = values.is_text * np.uint8(TEXT_VALUE)
    errors = [event.error for event in events]
    if errors.count(None) < len(errors):
        new["flags"] |= np.array([e is not None for e in errors], np.uint8) * np.uint8(FAILED)
    mark_groups(part, new, events)
    return new


def mark_groups(part: Partition, new: Rows, events: Sequence[Prediction]) -> None:
    """Note the units and the segments of new rows, where a policy asks for them."""
    by_unit, segments = part.models.by_unit, part.models.segments
    codes = new["model"].tolist() if any(by_unit) or any(segments) else []
    if any(by_unit):
        new["unit"] = [
            unit_hash(event.unit) if by_unit[model] else 0
            for event, model in zip(events, codes, strict=True)
        ]
    if any(segments):
        new["slice"] = [
            part.slices.code(segments[model], event.segments) if segments[model] else 0
            for event, model in zip(events, codes, strict=True)
        ]


def _due_s(part: Partition, batch: Taken, model: Ints) -> Ints:
    """Second at which each row is due: later rows of a model never before earlier ones."""
    models, intent, ended = part.models, part.intent, part.ended
    due: Ints = -(-(batch.times_ms + models.horizon_ms[model]) // 1000)
    opened = np.where(batch.offsets >= ended.predictions, ended.due_s + 1, 0)
    opened = np.where(batch.offsets >= intent.predictions, intent.due_s + 1, opened)
    due = np.minimum(np.maximum(np.maximum(due, opened), models.due_s[model]), LAST_S)
    if bool((model == model[0]).all()):
        due = np.maximum.accumulate(due)
        models.due_s[model[0]] = due[-1]
        models.changed.add(int(model[0]))
        return due
    order = np.argsort(model, kind="stable")
    # A model's number in the upper bits starts the running maximum afresh at each model.
    ordered = np.maximum.accumulate(model[order] << 32 | due[order]) & 0xFFFFFFFF
    due[order] = ordered
    models.due_s[model[order]] = ordered
    models.changed.update(np.unique(model).tolist())
    return due


def _meet_parked(part: Partition, window: Window, key: bytes, row: Ints) -> None:
    parked = part.parked[key]
    if parked.due_s <= part.intent.due_s:
        return  # its end is decided
    del part.parked[key]
    window.parked.add(key)
    served_ms, model = (int(part.pending.rows[name][row[0]]) for name in ("served_ms", "model"))
    late = parked.observed_ms - served_ms > part.models.horizon_ms[model]
    label = part.texts.encode([parked.label])
    given = Labels(
        label.numbers, label.is_text, np.array([parked.observed_ms]),
        costs_of([parked]), sampled_of([parked]), np.array([late]),
    )  # fmt: skip
    _give(part, window, PREDICTIONS, (part.pending.rows["offset"][row], row), given)


def _give(part: Partition, window: Window, topic: str, pairs: tuple[Ints, Ints], given: Labels
          ) -> None:  # fmt: skip
    """Label waiting rows; those in time make pairs, named by events of `topic`."""
    names, rows = pairs
    part.pending.label(rows, given)
    window.labels.append(rows)
    if given.late.any():
        for model in part.pending.rows["model"][rows[given.late]].tolist():
            part.models.count(model, LATE)
        names, rows = names[~given.late], rows[~given.late]
    if len(rows):
        complete(part, window, topic, names, rows)


def complete(part: Partition, window: Window, topic: str, names: Ints, rows: Ints) -> None:
    """Note pairs that an event of `topic` completed."""
    if part.fold is None:
        window.labelled[topic].append((names, rows))
        return
    settled = part.fold.settled
    above = part.pending.rows["offset"][rows] >= settled[PREDICTIONS]
    if topic == OUTCOMES:
        fresh = names >= settled[OUTCOMES]
        if fresh.any():
            window.labelled[OUTCOMES].append((names[fresh], rows[fresh]))
        above &= ~fresh
    part.fold.owed.extend(rows[above].tolist())


def take_outcomes(part: Partition, window: Window, batch: Taken) -> None:
    """Take in outcomes."""
    ids = [event.prediction_id.encode() for event in batch.events]
    rows = part.pending.index.find(hashes_of(ids))
    labels = part.texts.encode([event.label for event in batch.events])
    held = part.pending.rows[rows]  # any row where there is none
    late = batch.times_ms - held["served_ms"] > part.models.horizon_ms[held["model"]]
    clean = (rows >= 0) & (held["state"] == WAITING)
    if len(set(ids)) < len(ids):
        clean &= _first_of_each(ids)
    good = np.flatnonzero(clean)
    if len(good):
        given = Labels(labels.numbers, labels.is_text, batch.times_ms, costs_of(batch.events),
                       sampled_of(batch.events), late)  # fmt: skip
        _give(part, window, OUTCOMES, (batch.offsets[good], rows[good]), given.take(good))
    repeated = np.zeros(len(ids), np.bool_)
    for at in np.flatnonzero(~clean).tolist() if len(good) < len(ids) else ():
        if rows[at] < 0:
            repeated[at] = _park(part, window, ids[at], batch, at)
        else:
            repeated[at] = _take_second(part, window, batch.events[at], int(rows[at]))
    _see(window, OUTCOMES, batch.times_ms[~repeated])


def _take_second(part: Partition, window: Window, event: Outcome, row: int) -> bool:
    """Take in an outcome of a prediction that has one; True when it only repeats that one."""
    held = part.pending.rows[row]
    label = part.texts.encode([event.label])
    was_text = bool(held["flags"] & TEXT_LABEL)
    same = bool(held["label"] == label.numbers[0]) and was_text == bool(label.is_text[0])
    _count_second(part, window, int(held["model"]), same)
    return same


def _count_second(part: Partition, window: Window, model: int | None, same: bool) -> None:
    if same:
        window.duplicates += 1
    else:
        window.corrections += 1
    if model is not None:
        part.models.count(model, DUPLICATE if same else CORRECTION)


def _park(part: Partition, window: Window, key: bytes, batch: Taken, at: int) -> bool:
    """Keep an outcome whose prediction has not come; True when it repeats one that is kept."""
    event: Outcome = batch.events[at]
    earlier = part.parked.get(key)
    hint = part.models.index.get(event.model) if event.model is not None else None
    if earlier is not None and earlier.due_s > part.intent.due_s:
        _count_second(part, window, hint, earlier.label == event.label)
        return earlier.label == event.label
    observed_ms, offset = int(batch.times_ms[at]), int(batch.offsets[at])
    due_s = -(-(observed_ms + part.models.horizon_of(event.model)) // 1000)
    opened_s = part.intent.due_s + 1 if offset >= part.intent.outcomes else 0
    due_s = min(max(due_s, opened_s), LAST_S)
    value = batch.values[at]
    part.parked.pop(key, None)
    part.parked[key] = Parked(
        offset, observed_ms, event.label, event.cost, event.model, due_s, value[:KEPT_BYTES],
        len(value), event.sampled,
    )  # fmt: skip
    heapq.heappush(part.parked_due, (due_s, key))
    window.parked.add(key)
    if len(part.parked) > MOST_PARKED:
        oldest = next(iter(part.parked))
        let_go(part, window, oldest)
    return False


def let_go(part: Partition, window: Window, key: bytes) -> None:
    """Make a parked outcome an orphan: no prediction came."""
    parked = part.parked.pop(key)
    window.parked.add(key)
    window.orphans.append((key, parked))
    model = part.models.index.get(parked.model) if parked.model is not None else None
    if model is not None:
        part.models.count(model, ORPHAN)
