"""Stable watch: has the share of bad rows of a long-lived version risen above its limit?

Why. A budget for a whole life is right for a canary. A stable version lives for years, and a budget
that is spent once leaves the years after it unwatched. Here the promise is a rate instead: while
the limit holds, at least `run_length` rows pass on average between two false alarms, for ever.

How. Shiryaev-Roberts: the same eight alternatives as `rate_guard.py`, but every row may be the one
at which the version became bad, with the same mass 1. That mass enters at the start of a bucket for
the rows of the bucket before, so that never more has entered than rows were seen; the mean of the
statistic at any row is then at most the number of rows, which is the promise.

Re-arming. An alarm stands for `hold` rows, then it is over. Evidence starts anew at the row after
the alarm, with the whole promise: while the version stays bad a new alarm takes the place of the
old one, and `fired_at` moves on.

Refused: acting. A rollback needs a bound on ever acting falsely, which a run length is not: this
raises a warning about a version that has nobody to return to.

References
----------
Shin, Ramdas, Rinaldo (2024), E-detectors: a nonparametric framework for sequential change
detection.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    Fired,
    Interval,
    Reading,
    Rows,
    first_crossing,
    header,
    levels_from,
    log_mean,
    plain,
    require_at_least,
    require_open_unit,
    require_rows,
    restoring,
)
from detectors.intervals import rate_interval
from detectors.latch import fired_at, fired_from, reading_of, saved_fired, strength
from detectors.rate_guard import ODDS
from detectors.spending import Buckets, restarted
from schemas.plugins import plugin

MOST_AT_ONCE = 512

DISPLAY_ALPHA = 0.01
"""Of the interval that is shown; the alarm does not depend on it."""


@plugin("stable_watch", arms="single", losses="binary", guarantee="run_length", rearms="itself")
@dataclass
class StableWatch:
    """Shiryaev-Roberts test of P(bad | past) <= limit; loss 1 is bad, 0 is good.

    Parameters
    ----------
    limit : float
        Share of bad rows that is accepted, in (0, 1).
    run_length : float
        Rows that pass on average, at least, before a false alarm; >= 100. At ten rows a second,
        two years are 6.3e8.
    hold : int
        Rows for which an alarm stands after its row, >= 1.
    bucket, bucket_ms : int, int or None
        Rows, and span of event time in ms, after which evidence may start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Shin, Ramdas, Rinaldo (2024), E-detectors.

    Examples
    --------
    >>> import numpy as np
    >>> watch = StableWatch(limit=0.02, hold=500)
    >>> when = np.arange(1000)
    >>> watch.update(Rows(np.zeros(1000), when, when)).level
    'quiet'
    >>> watch.update(Rows(np.ones(100), when[:100] + 1000, when[:100])).level
    'alarm'
    >>> watch.update(Rows(np.zeros(1000), when + 1100, when)).level
    'quiet'
    """

    limit: float
    run_length: float = 1e7
    hold: int = 1024
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(limit=self.limit)
        require_at_least(100, run_length=self.run_length)
        require_at_least(1, hold=self.hold)
        self._on_good = -np.log1p(self.limit * (ODDS - 1))
        self._on_bad = np.log(ODDS) + self._on_good
        self._threshold = log(self.run_length)
        # After n rows at most mass n has entered, and each row multiplies it at most so much.
        self._warm = next(
            n
            for n in range(1, ceil(self._threshold / float(self._on_bad.max())) + 1)
            if log(n) + n * float(self._on_bad.max()) >= self._threshold
        )
        self._n = self._n_bad = self._alarms = 0
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """End the alarm and start evidence anew, with the whole promise."""
        self._fired: Fired | None = None
        self._since = 0
        self._afresh()

    def _afresh(self) -> None:
        self._buckets = Buckets(self.bucket, self.bucket_ms)
        self._start: F64 = np.full(len(ODDS), -np.inf)
        self._bad = self._good = 0

    def update(self, rows: Rows) -> Reading:
        """Take rows with losses 0 or 1."""
        require_rows(rows, self._last, paired=False, binary=True)
        if len(rows.loss):
            self._last = int(rows.position[-1])
            self._n += len(rows.loss)
            self._n_bad += int(np.count_nonzero(rows.loss))
            first = 0
            while first < len(rows.loss):
                first = self._weigh(rows, first)
        return self.reading()

    def _weigh(self, rows: Rows, first: int) -> int:
        """Add the evidence of some rows from `first` on, up to an alarm; the first not taken."""
        # Few at once: where a version is all bad, each alarm cuts what is left anew.
        end = min(len(rows.loss), first + MOST_AT_ONCE)
        starts = self._buckets.cut(rows.time_ms[first:end])
        edges = [0, *starts.tolist(), end - first]
        for i in range(len(edges) - 1):
            if i > 0:
                self._open()
            at = self._play(rows, first + edges[i], first + edges[i + 1])
            if at is not None:
                return at + 1
        return end

    def _open(self) -> None:
        """Start a bucket: the mass of the rows of the one before enters."""
        rows = self._bad + self._good
        level = self._start + self._bad * self._on_bad + self._good * self._on_good
        self._start = restarted(level, log(max(1, rows)))
        self._bad = self._good = 0

    def _play(self, rows: Rows, first: int, end: int) -> int | None:
        """Add rows of the open bucket; the row of an alarm, after which evidence is afresh."""
        bad = rows.loss[first:end] > 0
        looks = np.flatnonzero(bad)
        n_bad = self._bad + np.arange(1, len(looks) + 1)
        n_good = self._good + looks - np.arange(len(looks))
        gain = np.multiply.outer(self._on_bad, n_bad) + np.multiply.outer(self._on_good, n_good)
        statistics = log_mean(self._start[:, None] + gain) if len(looks) else np.empty(0)
        found = first_crossing(statistics, self._threshold)
        if found is None:
            self._bad += len(looks)
            self._good += len(bad) - len(looks)
            self._since += len(bad)
            return None
        at = first + int(looks[found])
        self._fired = fired_at(rows, at, float(statistics[found]))
        self._alarms += 1
        self._since = 0
        self._afresh()
        return at

    def _standing(self) -> Fired | None:
        return self._fired if self._since < self.hold else None

    def _statistic(self) -> float | None:
        level = self._start + self._bad * self._on_bad + self._good * self._on_good
        return strength(level, self._standing())

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the alarm that stands."""
        warming = self._n < self._warm
        return reading_of(
            self._statistic(), self._threshold, self._standing(), self._n, warming=warming
        )

    def interval(self) -> Interval:
        """Bound the share of bad rows over the version's life, at .99."""
        return rate_interval(self._n_bad, self._n, DISPLAY_ALPHA)

    def state(self) -> dict[str, Any]:
        """All it remembers: under 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "start": plain(self._start),
            "open": [self._bad, self._good, self._buckets.opened_ms, self._buckets.count],
            "counts": [self._n, self._n_bad, self._alarms, self._since],
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._start = levels_from(state["start"], len(ODDS))
            self._bad, self._good, self._buckets.opened_ms, self._buckets.count = state["open"]
            self._buckets.filled = self._bad + self._good
            self._n, self._n_bad, self._alarms, self._since = state["counts"]
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm means, and how many there were."""
        return {
            "h0": f"at every row the chance of a bad one given the past is at most {self.limit:g}",
            "run_length": self.run_length,
            "guarantee": True,
            "alarms": self._alarms,
        }
