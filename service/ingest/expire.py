"""Let predictions reach their horizon: first the intent, durable; then the rows.

Why. A prediction whose labels never come must be said, or a canary whose labels stop would look
well. But once it is said to be unlabelled no outcome may label it any more, also not in a window
that is done again after a crash. So a step only decides up to which second rows expire, and stores
that with its own changes; the next steps say them.

How. While a topic still reads what was there at assignment, or brought events a moment ago, nothing
expires beyond the event time it has come to: a recording is read faster than it was lived, and the
outcomes of its predictions may lie unread. For the same reason a watermark counts only once it has
stood for a moment. A feed of labels that stops is no longer waited for.

A row is due at the first whole second at or after its horizon; rows of one model in their order.
"""

from __future__ import annotations

import heapq

import numpy as np

from service.ingest.join import let_go
from service.ingest.pending import LABELLED, NEVER
from service.ingest.state import OUTCOMES, PREDICTIONS, Mark, Partition, Said, Window

MOST_ROWS = 20_000
"""Rows that one step says at most as matured or unlabelled."""


def say_due(part: Partition, window: Window) -> None:
    """Say what an earlier step decided; the first thing a step does."""
    now, part.due = part.due[:MOST_ROWS], part.due[MOST_ROWS:]
    if len(now):
        rows = part.pending.rows[now]
        labelled = rows["state"] == LABELLED
        for kind, chosen in (("matured", rows[labelled]), ("unlabelled", rows[~labelled])):
            if len(chosen):
                window.said.append(Said(kind, PREDICTIONS, chosen["offset"].copy(), chosen))
        part.pending.said(now)
    for key in part.due_parked:
        if key in part.parked and part.parked[key].due_s <= part.intent.due_s:
            let_go(part, window, key)
    part.due_parked = []
    if not len(part.due) and part.ended != part.intent:
        part.ended = part.intent
        forget(part, window)


def forget(part: Partition, window: Window) -> None:
    """Drop what only ended rows needed."""
    window.dropped += part.pending.drop()
    window.dropped_runs += [run for run in part.runs if run.max_due_s <= part.ended.due_s]
    part.runs = [run for run in part.runs if run.max_due_s > part.ended.due_s]
    if part.texts.crowded:
        # Freed rows keep old codes; a few texts too many are kept then, never one too few.
        rows = part.pending.rows
        part.texts.sweep(np.concatenate([rows["value"][(rows["flags"] & 1) > 0],
                                         rows["label"][(rows["flags"] & 2) > 0]]))  # fmt: skip

    if part.slices.crowded:
        part.slices.sweep(part.pending.rows["slice"])


def decide_due(part: Partition) -> None:
    """Decide what expires next, once all that was decided before is said; the last thing."""
    if part.fold is not None or len(part.due) or part.ended != part.intent:
        return
    until_s = frontier_ms(part) // 1000
    if until_s <= part.intent.due_s:
        return
    while part.parked_due and part.parked_due[0][1] not in part.parked:
        heapq.heappop(part.parked_due)
    first_parked_s = part.parked_due[0][0] if part.parked_due else NEVER
    if min(part.pending.next_due_s(), first_parked_s) > until_s:
        return
    part.intent = Mark(until_s, part.taken[PREDICTIONS], part.taken[OUTCOMES])
    part.due = part.pending.close(until_s)
    part.due_parked = due_parked(part, until_s)


def due_parked(part: Partition, until_s: int) -> list[bytes]:
    """Parked outcomes that are due."""
    due = []
    while part.parked_due and part.parked_due[0][0] <= until_s:
        due_s, key = heapq.heappop(part.parked_due)
        if key in part.parked and part.parked[key].due_s == due_s:
            due.append(key)
    return due


def frontier_ms(part: Partition) -> int:
    """Event time up to which all topics were read."""
    behind = [
        part.seen_ms[topic]
        for topic in part.taken
        if part.taken[topic] < part.until[topic] or topic in part.busy
    ]
    return min([part.watermark_ms, part.settled_ms, *behind])


def end_fold(part: Partition, window: Window) -> None:
    """Go on where whoever owned the partition before left off."""
    fold = part.fold
    if fold is None:
        return
    part.fold = None
    due = part.pending.close(part.intent.due_s)
    over = part.pending.due(part.ended.due_s)
    if len(over):
        part.pending.said(over)
    part.due = due[~np.isin(due, over)]
    for key in due_parked(part, part.ended.due_s):
        part.parked.pop(key)
        window.parked.add(key)
    part.due_parked = due_parked(part, part.intent.due_s)
    if fold.owed:
        rows = np.array(fold.owed, np.int64)
        window.labelled[PREDICTIONS].append((part.pending.rows["offset"][rows], rows))
    forget(part, window)
