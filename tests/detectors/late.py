"""Predictions whose labels come later: events in the order of time, and ways to feed them."""

from __future__ import annotations

from itertools import groupby, pairwise
from typing import Any

import numpy as np

from detectors.base import Reading, Rows
from detectors.optimistic import Labels, OptimisticDetector

START_MS = 1_700_000_000_000


class Late:
    """Events of one version: predictions, one every `step_ms`, and their labels.

    Parameters
    ----------
    loss : array, shape (n,)
        Final losses.
    delay_ms : array, shape (n,)
        When each label comes after its prediction; NaN: never.
    served_ms : array, shape (n,), optional
        When each prediction was served, in the order in which they are handed in.
    """

    def __init__(self, loss: Any, delay_ms: Any, step_ms: int = 1000, served_ms: Any = None):
        self.loss = np.asarray(loss, dtype=np.float64)
        n = len(self.loss)
        handed_in = START_MS + np.arange(n, dtype=np.int64) * step_ms
        self.served_ms = handed_in if served_ms is None else np.asarray(served_ms, np.int64)
        self.delay_ms = np.broadcast_to(np.asarray(delay_ms, dtype=np.float64), (n,))
        comes = np.flatnonzero(~np.isnan(self.delay_ms))
        observed = self.served_ms[comes] + self.delay_ms[comes].astype(np.int64)
        known = np.maximum(observed, handed_in[comes])  # never before its prediction is handed in
        order = np.lexsort(
            (np.r_[np.arange(n), comes], np.r_[np.zeros(n), np.ones(len(comes))],
             np.r_[handed_in, known])
        )  # fmt: skip
        self.index = np.r_[np.arange(n), comes][order]
        self.is_label = np.r_[np.zeros(n, bool), np.ones(len(comes), bool)][order]
        self.time_ms = np.r_[self.served_ms, observed][order]

    def __len__(self) -> int:
        return len(self.index)

    def only_bad(self) -> Late:
        """Without the labels that say nothing: fewer events, the same evidence."""
        keep = ~self.is_label | (self.loss[self.index] > 0)
        self.index, self.is_label, self.time_ms = (
            self.index[keep], self.is_label[keep], self.time_ms[keep],
        )  # fmt: skip
        return self

    def feed(self, guard: OptimisticDetector, first: int = 0, end: int | None = None) -> Reading:
        """Hand in some events as they came: neighbours of one sort together."""
        end = len(self) if end is None else end
        for _, run in groupby(range(first, end), key=lambda i: bool(self.is_label[i])):
            here = np.fromiter(run, np.int64)
            self._hand_in(guard, here)
        return guard.reading()

    def feed_by(self, guard: OptimisticDetector, events: int) -> Reading:
        """Hand in so many events at a time: predictions first, then labels, as `watch` does."""
        for first in range(0, len(self), events):
            here = np.arange(first, min(first + events, len(self)))
            label = self.is_label[here]
            again = np.r_[here[~label], here[label]]
            cut = int(np.count_nonzero(~label))
            self._hand_in(guard, again[:cut], here[:cut])
            self._hand_in(guard, again[cut:], here[cut:])
            if guard.reading().fired_at is not None:
                break
        return guard.reading()

    def packed(self, guard: OptimisticDetector, cuts: Any) -> Reading:
        """Hand in events with further cuts."""
        for first, end in pairwise([0, *sorted(cuts), len(self)]):
            self.feed(guard, first, end)
        return guard.reading()

    def _hand_in(self, guard: Any, here: Any, position: Any = None) -> None:
        if not len(here):
            return
        index, position = self.index[here], here if position is None else position
        if self.is_label[here[0]]:
            served = self.served_ms[index]
            guard.arrive(Labels(self.loss[index], position, self.time_ms[here], served))
        else:
            guard.update(Rows(np.zeros(len(here)), position, self.time_ms[here]))
