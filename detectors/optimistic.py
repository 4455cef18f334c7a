"""Optimistic labels: a prediction is good until its label says otherwise.

Why. Counting labels as they arrive blames a version whose bad labels are quick; waiting until each
prediction had its whole horizon finds a bad version one horizon late. A prediction that counts as
good from the moment it is served, and as bad from the moment its bad label arrives, does neither.

Why it is right. Let E be the evidence that the final labels of the predictions would give, each
bad one counted. Every component of E grows with each loss. What is known now is the same
predictions with some losses still 0, so the evidence of now is at most E, path by path, whatever
delays labels and whichever never come. E crosses 1/alpha with a chance of at most alpha if the
limit holds, so this does too. It needs no assumption about delays. What it needs is that a bad
label, once counted, is not withdrawn, and tests whose evidence grows with each loss: one version
against a number. Against the concurrent stable a late bad label of the stable would lower E, so
there is no optimistic `canary`.

How. A row is a prediction as it is served, with the loss that is known by then: 0. A label is
handed in apart (`arrive`), and finds its bucket by served time (`cohorts.py`); when it was observed
beyond the horizon, or its bucket is gone, it counts for nothing. The evidence is that of now, or
as of the end of an earlier bucket if that is stronger: both are the same process. So young
predictions do not hide what older ones have shown, a test of matured labels in the same buckets
would be at most a bucket sooner, and none is needed beside it.

It is looked at whenever a loss above 0 comes. Between two rows more labels are only more evidence,
so a batch of labels is weighed once, and only if it crosses is the first crossing looked for.

Where the denominator is not known before the label, as for a false positive rate, every prediction
is counted as good: then the share of false positives among *all predictions* is held against the
limit, which is right but weaker.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from detectors.base import (
    F64,
    I64,
    Detector,
    Fired,
    InvalidRows,
    Reading,
    Rows,
    first_crossing,
    header,
    require_rows,
    restoring,
    running,
)
from detectors.cohorts import Cohorts
from detectors.latch import fired_at, fired_from, reading_of, saved_fired


class Labels(NamedTuple):
    """Labels that came, oldest first; every array has shape (n,).

    Only labels of predictions that were handed in before may be here. Rows with loss 0 are allowed
    and change nothing.
    """

    loss: F64
    """Larger is worse: 0 or 1 for rates, else the value itself."""
    position: I64
    """Ordinal of the label, above every position handed in before, of rows and of labels."""
    time_ms: I64
    """When it was observed, epoch milliseconds."""
    served_ms: I64
    """When its prediction was served: `Rows.time_ms` of that prediction, epoch milliseconds."""


class OptimisticDetector(Detector, Protocol):
    """A detector whose rows are predictions as served, and whose labels come later.

    `update(rows)` takes predictions: `loss` 0 (nothing bad is known of them yet), `time_ms` when
    they were served. Its mark says `labels="arrive"`.
    """

    def arrive(self, labels: Labels) -> Reading:
        """Take labels; `fired_at` is then the position of a label."""


class Optimist:
    """What the optimistic detectors share; a detector says what a loss adds (`_marks_of`)."""

    VERSION = 1
    horizon_ms: int
    _binary: bool
    _threshold: float
    _warm: int
    _cohorts: Cohorts

    def _begin(self) -> None:
        self._n = 0
        self._sum = 0.0
        self._last: int | None = None
        self.rearm()

    def _bounded(self, loss: F64) -> F64:
        """Losses as they count, >= 0."""
        raise NotImplementedError

    def _marks_of(self, loss: F64) -> F64:
        """What losses add to their buckets, beyond a prediction that is good: (n,) -> (n, d)."""
        raise NotImplementedError

    def rearm(self) -> None:
        """Clear latch and evidence. Restarts keep counting, so an alarm costs no new alpha.

        Labels of predictions served before count no more.
        """
        self._said: Reading | None = None
        self._fired: Fired | None = None
        self._cohorts.clear()

    def update(self, rows: Rows) -> Reading:
        """Take predictions as they are served, with losses that are known by then (0: none)."""
        require_rows(rows, self._last, paired=False, binary=self._binary)
        if len(rows.loss):
            loss = self._note(rows.loss, rows.position)
            self._n += len(loss)
            starts = self._cohorts.cut(rows.time_ms)
            if self._fired is None:
                self._serve(loss, rows, starts)
        return self.reading()

    def arrive(self, labels: Labels) -> Reading:
        """Take labels of predictions that were handed in before.

        Raises
        ------
        InvalidRows
            If columns do not fit, as for `update`.
        """
        if labels.served_ms.shape != labels.loss.shape:
            raise InvalidRows("columns must all have one shape (n,)")
        rows = Rows(labels.loss, labels.position, labels.time_ms)
        require_rows(rows, self._last, paired=False, binary=self._binary)
        if len(labels.loss):
            in_time = labels.time_ms - labels.served_ms <= self.horizon_ms
            loss = self._note(np.where(in_time, labels.loss, 0.0), labels.position)
            if self._fired is None:
                places = np.where(loss > 0, self._cohorts.place(labels.served_ms), -1)
                self._join(loss, rows, places)
        return self.reading()

    def _note(self, losses: F64, position: I64) -> F64:
        loss = self._bounded(losses)
        self._said = None
        self._last = int(position[-1])
        self._sum = float(running(np.array([self._sum]), loss[:, None])[-1, 0])
        return loss

    def _serve(self, loss: F64, rows: Rows, starts: list[int]) -> None:
        """Count predictions bucket by bucket, up to a crossing."""
        edges = [0, *starts, len(loss)]
        for i in range(len(edges) - 1):
            first, end = edges[i], edges[i + 1]
            if i > 0:
                self._cohorts.open(int(rows.time_ms[first]))
            if first == end or not len(self._cohorts.rows):
                continue
            places = self._cohorts.place(rows.time_ms[first:end])
            if not loss[first:end].any():
                self._cohorts.add(places)
                continue
            # Rows of the open bucket are weighed together, one in the wrong order by itself.
            late = places < len(self._cohorts.rows) - 1
            turns = np.flatnonzero(late[1:] | late[:-1]) + 1
            for part in np.split(np.arange(first, end), turns):
                here = places[part - first]
                weigh = self._weigh_late if late[part[0] - first] else self._weigh_open
                if weigh(loss[part], here, rows, int(part[0])):
                    return

    def _weigh_open(self, loss: F64, places: I64, rows: Rows, first: int) -> bool:
        """Add rows of the open bucket whose losses are known; True at the first crossing."""
        cohorts, looks = self._cohorts, np.flatnonzero(loss > 0)
        marks = running(cohorts.marks[-1], self._marks_of(loss[looks]))
        statistics = cohorts.after(cohorts.rows[-1] + looks + 1, marks)
        if (at := first_crossing(statistics, self._threshold)) is not None:
            return self._latch(rows, first + int(looks[at]), float(statistics[at]))
        cohorts.add(places)
        cohorts.mark(places[looks], self._marks_of(loss[looks]))
        return False

    def _weigh_late(self, loss: F64, places: I64, rows: Rows, first: int) -> bool:
        """Add one row that came out of order; True if it makes the evidence cross."""
        self._cohorts.add(places)
        if not loss.any() or places[0] < 0:
            return False
        self._cohorts.mark(places, self._marks_of(loss))
        statistic = self._cohorts.statistic() or 0.0
        return statistic >= self._threshold and self._latch(rows, first, statistic)

    def _join(self, loss: F64, rows: Rows, places: I64) -> None:
        """Let labels find their buckets, and latch at the first label that crosses."""
        cohorts = self._cohorts
        kept = cohorts.with_room(places)
        if not len(kept):
            return
        told, marks = cohorts.told.copy(), cohorts.marks.copy()
        added = self._marks_of(loss[kept])

        def after(labels: int) -> float:
            cohorts.unmark(told, marks)
            cohorts.mark(places[kept[:labels]], added[:labels])
            return cohorts.statistic() or 0.0

        cohorts.mark(places[kept], added)
        if (cohorts.statistic() or 0.0) < self._threshold:
            return
        low, high = 0, len(kept)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if after(middle) >= self._threshold else (middle, high)
        self._latch(rows, int(kept[high - 1]), after(high))

    def _latch(self, rows: Rows, index: int, statistic: float) -> bool:
        self.rearm()
        self._fired = fired_at(rows, index, statistic)
        return True

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        if self._said is None:
            fired = self._fired
            statistic = fired.statistic if fired is not None else self._cohorts.statistic()
            warming = self._n < self._warm
            self._said = reading_of(statistic, self._threshold, fired, self._n, warming=warming)
        return self._said

    def state(self) -> dict[str, Any]:
        """All it remembers: at most 64 KB as JSON, when the ring is full."""
        return {
            **header(self, self.VERSION),
            "cohorts": self._cohorts.saved(),
            "counts": [self._n, self._sum],
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self._said = None
        with restoring(self, self.VERSION, state):
            self._cohorts.restore(state["cohorts"])
            self._n, self._sum = state["counts"]
            self._last = state["last"]
            self._fired = fired_from(state["fired"])
