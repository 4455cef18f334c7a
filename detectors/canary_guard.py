"""Canary guard: is the canary's bad share above the concurrent stable's by more than a margin?

Why. When the world turns worse, both versions do, and a rollback cures nothing. And while traffic
is ramped up, the canary's rows are younger than the stable's, so pooled rates differ without any
fault. This guard asks only about bad rows: given that one was bad, whose was it? Neither the base
rate nor its movement enters that chance, only the share of traffic at which the row was served.

How. For eight rate ratios against the margin, each bad row of known share adds its log likelihood
ratio, one by one in order; good rows add nothing. Evidence starts anew at the first telling row of
a bucket (`spending.py`). Rows whose share is unknown (NaN) are compared by whole blocks
(`block_evidence.py`). A share of exactly 0 or 1 tells nothing, since no one else could be served.

Refused: losses that are not 0 or 1 (latency comes as exceedances, `quantile_canary.py`), and a
share guessed from counts. Assumed: routing is random, and not sticky by behaviour.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

from detectors.arms import Arms, Taken
from detectors.base import (
    F64,
    I64,
    Fired,
    Interval,
    Reading,
    Rows,
    header,
    levels_from,
    log_mean,
    plain,
    require_at_least,
    require_open_unit,
    require_rows,
    restoring,
    running,
)
from detectors.block_evidence import Block
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from detectors.spending import Buckets, log_mass, restarted
from schemas.plugins import plugin

K = 8


def alternatives(margin: float) -> F64:
    """The rate ratios that are weighed against a margin, shape (8,)."""
    return np.geomspace(1.1 * margin, max(8.0, 4 * margin), K)


@plugin("canary", arms="paired", losses="binary", guarantee="yes")
@dataclass
class CanaryGuard:
    """Spending test of canary rate <= margin * stable rate, given the bad rows; loss 1 is bad.

    Parameters
    ----------
    margin : float
        Highest canary/stable ratio of bad shares that is accepted, >= 1; 1.15 is 15 % more.
    alpha : float
        Bound on P(ever an alarm while the margin holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Rows of both arms, and span of event time in ms, after which evidence may start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Lindon, Malek (2022), Anytime-valid inference for multinomial count data. Shin, Ramdas, Rinaldo
    (2024), E-detectors.

    Examples
    --------
    >>> import numpy as np
    >>> guard = CanaryGuard()
    >>> when, share = np.arange(60), np.full(60, 0.1)
    >>> both = np.arange(60) % 10 == 0
    >>> guard.update(Rows(np.ones(60), when, when, both, share)).level
    'quiet'
    >>> guard.update(Rows(np.ones(60), when + 60, when, np.full(60, True), share)).level
    'alarm'
    """

    margin: float = 1.15
    alpha: float = 0.01
    bucket: int = 256
    bucket_ms: int | None = 60_000

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(alpha=self.alpha)
        require_at_least(1, margin=self.margin)
        self._buckets = Buckets(self.bucket, self.bucket_ms)
        self._ratios = alternatives(self.margin)
        self._threshold = log(1 / self.alpha)
        self._warm = ceil(self._threshold / log(float(self._ratios[-1]) / self.margin))
        self._block = Block()
        self._arms = Arms()
        self._restarts = 0
        self.last: int | None = None
        """Position of the last row taken."""
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence. Restarts keep counting, so an alarm costs no new alpha."""
        self._fired: Fired | None = None
        self._level: F64 = np.full(K, -np.inf)
        self._entered = False
        self._buckets.close()
        self._block.drop()

    def update(self, rows: Rows) -> Reading:
        """Take rows of both arms with losses 0 or 1."""
        require_rows(rows, self.last, paired=True, binary=True)
        if not len(rows.loss) or rows.canary is None:
            return self.reading()
        self.last = int(rows.position[-1])
        taken = self._arms.take(rows, rows.canary)
        if self._fired is None:
            self._weigh(rows, taken)
        return self.reading()

    def _weigh(self, rows: Rows, taken: Taken) -> None:
        """Add the evidence of the rows bucket by bucket, and latch at the first crossing."""
        opened, events = self._buckets.count, taken.events
        starts = self._buckets.cut(rows.time_ms)
        edges = [0, *starts.tolist(), len(taken.bad)]
        cuts = np.searchsorted(events, edges).tolist()
        gains = taken.gains(self._ratios, self.margin)
        any_unknown = bool(taken.unknown.any())
        for i in range(len(edges) - 1):
            if i > 0:
                self._entered = False
            if (i > 0 and self._end_block()) or self._play(rows, events, gains, cuts[i : i + 2]):
                # Buckets after the crossing were never opened: packing must not change the count.
                self._buckets.count = opened + i
                return
            if any_unknown:
                self._add_to_block(rows, taken, slice(edges[i], edges[i + 1]))
        if self._buckets.full:
            self._end_block()

    def _play(self, rows: Rows, events: I64, gains: F64, cut: list[int]) -> bool:
        """Add the bad rows of one bucket; True at the first crossing."""
        first, end = cut
        if first == end:
            return False
        self._enter()
        levels = running(self._level, gains[first:end])
        self._level = levels[-1]
        if (crossed := crossing(levels, self._threshold)) is None:
            return False
        fired = fired_at(rows, int(events[first + crossed[0]]), crossed[1])
        self.rearm()
        self._fired = fired
        return True

    def _enter(self) -> None:
        """Let this bucket's mass in, before its first telling row.

        Not while a block is open: the block's e-value is right only for mass that was there when
        it opened.
        """
        if not self._entered and not self._block.is_open:
            self._restarts += 1
            self._level = restarted(self._level, float(log_mass(self._restarts, 1)[0]))
            self._entered = True

    def _add_to_block(self, rows: Rows, taken: Taken, part: slice) -> None:
        here = np.flatnonzero(taken.unknown[part]) + part.start
        if not len(here) or rows.canary is None:
            return
        self._enter()
        canary, is_bad = rows.canary[here], taken.bad[here]
        n, n_bad = int(np.count_nonzero(canary)), int(np.count_nonzero(canary & is_bad))
        counts = (n, n_bad, len(here) - n, int(np.count_nonzero(is_bad)) - n_bad)
        self._block.add(counts, (int(rows.position[here[-1]]), int(rows.time_ms[here[-1]])))

    def _end_block(self) -> bool:
        """At a bucket's end, add what its rows of unknown share say; True at the first crossing."""
        if not self._block.is_ripe:
            return False
        position, time_ms = self._block.last
        self._level = self._level + self._block.close(self._ratios, self.margin)
        statistic = float(log_mean(self._level[:, None])[0])
        if statistic < self._threshold:
            return False
        self.rearm()
        self._fired = Fired(position, time_ms, statistic)
        return True

    def _statistic(self) -> float | None:
        return strength(self._level, self._fired)

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        warming = self._arms.canary < self._warm
        return reading_of(
            self._statistic(), self._threshold, self._fired, self._arms.canary, warming=warming
        )

    def interval(self) -> Interval:
        """Bound the canary's bad share over its life, at 1 - alpha, beside the stable's."""
        return self._arms.interval(self.alpha)

    def ratio(self) -> Interval:
        """Bound canary rate / stable rate, at 1 - alpha; what `margin` speaks of."""
        return self._arms.ratio(self.alpha)

    def state(self) -> dict[str, Any]:
        """All it remembers: about 1 KB as JSON."""
        block = self._block
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            "open": [self._buckets.filled, self._buckets.opened_ms, self._entered],
            "counts": [self._buckets.count, self._restarts],
            **self._arms.saved(),
            "block": [list(block.counts), list(block.last), block.stable_rows, block.stable_bad],
            "last": self.last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            block = self._block
            self._level = levels_from(state["level"], K)
            self._buckets.filled, self._buckets.opened_ms, self._entered = state["open"]
            self._buckets.count, self._restarts = state["counts"]
            self._arms.restore(state)
            counts, last, block.stable_rows, block.stable_bad = state["block"]
            block.counts = (counts[0], counts[1], counts[2], counts[3])
            block.last = (last[0], last[1])
            self.last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves, and on which rows it stands."""
        return {
            "h0": f"the canary's share of bad rows is at most {self.margin:g} times the stable's "
            "at the same time",
            "alpha": self.alpha,
            "guarantee": True,
            "weight": self._arms.weight,
            "restarts": self._restarts,
        }
