"""Rate guard: is the share of bad rows of one version above its limit?

Why. A test that is right at one look is wrong at a thousand, and a guard looks after every row for
as long as a version lives. This one may: the chance that it *ever* alarms on a version within its
limit is at most alpha, whatever depends on whatever, and a late change is found nearly as soon as
an early one (`spending.py`).

How. Eight alternatives at fixed odds ratios against the limit, mixed evenly. Per bad row a
component gains l1, per good row it loses l0; both are constants, so the evidence is derived from
its value at the bucket's start and two whole numbers, and does not depend on how rows were packed.
It is looked at on bad rows only, since a good row cannot raise it while a bucket is open.

Refused: guessing the limit from the past of the same version, which would learn the fault; and the
rate of another version, which is `canary_guard.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    I64,
    Bool,
    Fired,
    Interval,
    Reading,
    Rows,
    first_crossing,
    header,
    levels_from,
    log_mean,
    plain,
    require_open_unit,
    require_rows,
    restoring,
)
from detectors.intervals import rate_interval
from detectors.latch import fired_at, fired_from, reading_of, saved_fired, strength
from detectors.spending import Buckets, log_mass, restarted
from schemas.plugins import plugin

ODDS = np.geomspace(1.15, 8, 8)
"""How many times the limit's odds the alternatives are."""


@plugin("rate", arms="single", losses="binary", guarantee="yes")
@dataclass
class RateGuard:
    """Spending Shiryaev-Roberts test of P(bad | past) <= limit; loss 1 is bad, 0 is good.

    Parameters
    ----------
    limit : float
        Share of bad rows that is accepted, in (0, 1).
    alpha : float
        Bound on P(ever an alarm while the limit holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Rows, and span of event time in ms, after which evidence may start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Howard, Ramdas, McAuliffe, Sekhon (2021), Time-uniform, nonparametric, nonasymptotic confidence
    sequences. Shin, Ramdas, Rinaldo (2024), E-detectors.

    Examples
    --------
    >>> import numpy as np
    >>> guard = RateGuard(limit=0.02)
    >>> when = np.arange(100)
    >>> guard.update(Rows(np.zeros(100), when, when)).level
    'quiet'
    >>> reading = guard.update(Rows(np.ones(100), when + 100, when))
    >>> reading.level, reading.fired_at
    ('alarm', 107)
    """

    limit: float
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(limit=self.limit, alpha=self.alpha)
        self._buckets = Buckets(self.bucket, self.bucket_ms)
        self._on_good = -np.log1p(self.limit * (ODDS - 1))
        self._on_bad = np.log(ODDS) + self._on_good
        self._threshold = log(1 / self.alpha)
        # The mass that has entered never exceeds 1, so fewer rows cannot reach the threshold.
        self._warm = ceil(self._threshold / float(self._on_bad.max()))
        self._n = self._n_bad = 0
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence. Restarts keep counting, so an alarm costs no new alpha."""
        self._said: Reading | None = None
        self._fired: Fired | None = None
        self._start: F64 = np.full(len(ODDS), -np.inf)
        self._bad = self._good = 0
        self._buckets.close()

    def update(self, rows: Rows) -> Reading:
        """Take rows with losses 0 or 1."""
        require_rows(rows, self._last, paired=False, binary=True)
        if len(rows.loss):
            self._said = None
            bad = rows.loss > 0
            self._last = int(rows.position[-1])
            self._n += len(bad)
            self._n_bad += int(np.count_nonzero(bad))
            if self._fired is None:
                self._weigh(bad, rows)
        return self.reading()

    def _weigh(self, bad: Bool, rows: Rows) -> None:
        """Add the evidence of the rows, and latch at the first crossing."""
        restarts = self._buckets.count
        starts = self._buckets.cut(rows.time_ms)
        # Rows and bad rows before index i, counted from the start of the bucket open before.
        before = np.concatenate(([0], np.cumsum(bad))) + self._bad
        opened = np.concatenate(([-(self._bad + self._good)], starts))
        bad_before = np.concatenate(([0], before[starts]))
        levels = self._levels(log_mass(restarts + 1, len(starts)), opened, bad_before)

        looks = np.flatnonzero(bad)
        bucket = np.searchsorted(starts, looks, side="right")
        n_bad = before[looks + 1] - bad_before[bucket]
        n_good = looks + 1 - opened[bucket] - n_bad
        statistics = log_mean(levels.T[:, bucket] + self._gain(n_bad, n_good))
        if (first := first_crossing(statistics, self._threshold)) is not None:
            at = int(looks[first])
            self.rearm()
            # Buckets after the crossing were never opened: packing must not change the count.
            self._buckets.count = restarts + int(bucket[first])
            self._fired = fired_at(rows, at, float(statistics[first]))
            return
        self._start = levels[-1]
        self._bad = int(before[-1] - bad_before[-1])
        self._good = len(bad) - int(opened[-1]) - self._bad

    def _levels(self, masses: F64, opened: I64, bad_before: I64) -> F64:
        """Evidence at the start of the open bucket and of each that the batch opens."""
        n_bad = np.diff(bad_before)
        gains = self._gain(n_bad, np.diff(opened) - n_bad).T
        levels = np.empty((len(opened), len(ODDS)))
        level = levels[0] = self._start
        for i, mass in enumerate(masses):
            level = levels[i + 1] = restarted(level + gains[i], mass)
        return levels

    def _gain(self, n_bad: I64, n_good: I64) -> F64:
        """What so many bad and good rows add to each component: (m,), (m,) -> (8, m)."""
        gain: F64 = np.multiply.outer(self._on_bad, n_bad) + np.multiply.outer(
            self._on_good, n_good
        )
        return gain

    def _statistic(self) -> float | None:
        gain = self._gain(np.array([self._bad]), np.array([self._good]))
        return strength(self._start + gain[:, 0], self._fired)

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        if self._said is None:  # asked several times between two batches
            warming = self._n < self._warm
            self._said = reading_of(
                self._statistic(), self._threshold, self._fired, self._n, warming=warming
            )
        return self._said

    def interval(self) -> Interval:
        """Bound the share of bad rows over the version's life, at 1 - alpha."""
        return rate_interval(self._n_bad, self._n, self.alpha)

    def state(self) -> dict[str, Any]:
        """All it remembers: at most 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "start": plain(self._start),
            "open": [self._bad, self._good, self._buckets.opened_ms],
            "counts": [self._buckets.count, self._n, self._n_bad],
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        self._said = None
        with restoring(self, self.VERSION, state):
            self._start = levels_from(state["start"], len(ODDS))
            self._bad, self._good, self._buckets.opened_ms = state["open"]
            self._buckets.filled = self._bad + self._good
            self._buckets.count, self._n, self._n_bad = state["counts"]
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves."""
        return {
            "h0": f"at every row the chance of a bad one given the past is at most {self.limit:g}",
            "alpha": self.alpha,
            "guarantee": True,
            "restarts": self._buckets.count,
        }
