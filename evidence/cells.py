"""One figure of the evidence: a judge in a world, so many runs, and what is promised of it.

A cell of kind `alarms` counts runs in which the judge ever alarmed, with a Clopper-Pearson
interval. A cell of kind `delay` measures from the row of the change: runs that alarmed before it
are counted apart (`early`), and of the others the median and the ninetieth percentile are told,
where a run that never alarmed counts as infinitely late.

Runs are seeded by scenario, table and world, not by judge: all judges of a world see the same rows.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, Literal
from zlib import crc32

import numpy as np
from scipy.stats import beta, binom  # type: ignore[import-untyped]

from detectors.base import Rows
from evidence.worlds import START_MS, STEP_MS

World = Callable[[Any], Rows]
Judge = Callable[[Rows], int | None]
"""Index of the row at which it first alarmed; None: never."""
Unit = Literal["rows", "canary rows", "predictions", "bad rows"]

RUN = tuple[int, float]
"""Row of the alarm (-1: never), and the delay in the cell's unit."""


@dataclass(frozen=True)
class Promise:
    """A range that a figure must stay in.

    In the full run the figure itself must lie in it: for shares the whole interval up to `most` (or
    from `least`). With `--quick` there are few runs, so a cell fails only where they contradict it.
    """

    of: Literal["alarms", "median", "found"]
    most: float = inf
    least: float = 0.0

    def __str__(self) -> str:
        what = {"alarms": "share of alarms", "median": "median delay", "found": "share found"}
        ends = [f"at least {self.least:g}"] if self.least > 0 else []
        ends += [f"at most {self.most:g}"] if self.most < inf else []
        return f"{what[self.of]} {' and '.join(ends)}"


@dataclass(frozen=True)
class Cell:
    """One figure to be measured."""

    scenario: str
    table: str
    world_name: str
    rival: str
    world: World
    judge: Judge
    runs: int
    quick_runs: int = 40
    since: int | None = None
    """Row of the change; None counts alarms."""
    unit: Unit = "rows"
    promises: tuple[Promise, ...] = ()

    @property
    def name(self) -> str:
        """For sentences."""
        return f"{self.scenario}, {self.rival}, {self.world_name}"

    def seed(self, run: int) -> list[int]:
        """The seed of a run: of the world alone."""
        return [crc32(f"{self.scenario} {self.table} {self.world_name}".encode()), run]

    def play(self, run: int) -> RUN:
        """One run."""
        rows = self.world(self.seed(run))
        at = self.judge(rows)
        if at is None:
            return -1, inf
        since = self.since or 0
        if at < since:
            return at, 0.0
        if self.unit == "canary rows" and rows.canary is not None:
            return at, float(np.count_nonzero(rows.canary[since : at + 1]))
        if self.unit == "predictions":
            return at, float((rows.time_ms[at] - START_MS) // STEP_MS + 1 - since)
        return at, float(at + 1 - since)


@dataclass(frozen=True)
class Tally:
    """What the runs of a cell came to."""

    cell: Cell
    runs: tuple[RUN, ...]

    @property
    def n(self) -> int:
        """How many runs."""
        return len(self.runs)

    @property
    def alarms(self) -> int:
        """Runs that ever alarmed; for a change, before it."""
        since = self.cell.since
        return sum(at >= 0 and (since is None or at < since) for at, _ in self.runs)

    @property
    def interval(self) -> tuple[float, float]:
        """Of the share of alarms, at 95 %."""
        return clopper_pearson(self.alarms, self.n)

    def _delays(self) -> list[float]:
        since = self.cell.since or 0
        return sorted(delay for at, delay in self.runs if at < 0 or at >= since)

    @property
    def found(self) -> int:
        """Runs that alarmed after the change."""
        return sum(delay < inf for delay in self._delays())

    def quantile(self, q: float) -> float:
        """Of the delay among runs without an early alarm; infinite if too many found nothing."""
        return quantile(self._delays(), q)

    def median_interval(self) -> tuple[float, float]:
        """Of the median, at 95 %, by order statistics."""
        delays = self._delays()
        if not delays:
            return 0.0, inf
        below = max(int(binom.ppf(0.025, len(delays), 0.5)) - 1, 0)
        return delays[below], delays[min(len(delays) - 1 - below, len(delays) - 1)]


def clopper_pearson(hits: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """The exact interval of a share.

    >>> [round(end, 4) for end in clopper_pearson(0, 1000)]
    [0.0, 0.0037]
    """
    tail = (1 - level) / 2
    low = float(beta.ppf(tail, hits, n - hits + 1)) if hits else 0.0
    high = float(beta.ppf(1 - tail, hits + 1, n - hits)) if hits < n else 1.0
    return low, high


def quantile(ordered: Sequence[float], q: float) -> float:
    """The smallest value that at least a share q does not exceed; infinite of nothing."""
    if not ordered:
        return inf
    return ordered[max(int(np.ceil(q * len(ordered))) - 1, 0)]
