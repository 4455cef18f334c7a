"""Unit canary: does a unit fare worse with the canary than with the concurrent stable?

Why. `canary_guard.py` takes each bad row for an independent witness. Rows of one user or session
are not: they fail together, and a handful of broken sessions would look like hundreds of witnesses.

How. A unit has one vote, the mean loss of its rows by arm; what it says of the ratio, and why that
is valid for any dependence inside the unit, stands in `unit_arms.py`. Votes are weighed against
the margin for eight ratios, and evidence starts anew bucket by bucket (`spending.py`).

Refused: votes whose share of traffic is unknown; they are counted and prove nothing. Assumed: units
are independent of each other given the past, and routing is random.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, log
from typing import Any

import numpy as np

from detectors.base import (
    F64,
    I64,
    Fired,
    Interval,
    Reading,
    Rows,
    header,
    levels_from,
    plain,
    require_at_least,
    require_open_unit,
    restoring,
    running,
)
from detectors.canary_guard import K, alternatives
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from detectors.spending import Buckets, log_mass, restarted
from detectors.unit_arms import UnitCounts, UnitVotes, gains, votes_of
from schemas.plugins import plugin


@plugin("unit_canary", arms="paired", losses="value", guarantee="yes")
@dataclass
class UnitCanary:
    """Spending test of canary mean vote <= margin * stable mean vote; votes lie in [0, 1].

    Parameters
    ----------
    margin : float
        Highest canary/stable ratio of mean votes that is accepted, >= 1; 1.15 is 15 % more.
    alpha : float
        Bound on P(ever an alarm while the margin holds), in (0, 1).
    bucket, bucket_ms : int, int or None
        Votes of both arms, and span of event time in ms, after which evidence may start anew.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Vovk, Wang (2021), E-values: calibration, combination and applications. Lindon, Malek (2022),
    Anytime-valid inference for multinomial count data. Shin, Ramdas, Rinaldo (2024), E-detectors.

    Examples
    --------
    >>> import numpy as np
    >>> guard = UnitCanary()
    >>> when, share = np.arange(400), np.full(400, 0.1)
    >>> both = np.arange(400) % 10 == 0
    >>> guard.update(Rows(np.full(400, 0.4), when, when, both, share)).level
    'quiet'
    >>> guard.update(Rows(np.full(400, 0.4), when + 400, when, np.full(400, True), share)).level
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
        self._counts = UnitCounts()
        self._restarts = 0
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence. Restarts keep counting, so an alarm costs no new alpha."""
        self._fired: Fired | None = None
        self._level: F64 = np.full(K, -np.inf)
        self._entered = False
        self._buckets.close()

    def update(self, rows: Rows) -> Reading:
        """Take votes, each in [0, 1], of both arms."""
        votes = votes_of(rows, self._last)
        if len(rows.loss):
            self._last = int(rows.position[-1])
            self._counts.count(votes)
            if self._fired is None:
                self._weigh(rows, votes)
        return self.reading()

    def _weigh(self, rows: Rows, votes: UnitVotes) -> None:
        """Add the evidence of the votes bucket by bucket, and latch at the first crossing."""
        opened = self._buckets.count
        starts = self._buckets.cut(rows.time_ms)
        events = np.flatnonzero(votes.telling)
        told = gains(UnitVotes(*(column[events] for column in votes)), self._ratios, self.margin)
        cuts = np.searchsorted(events, [0, *starts.tolist(), len(rows.loss)]).tolist()
        for i in range(len(cuts) - 1):
            if i > 0:
                self._entered = False
            if self._play(rows, events, told, (cuts[i], cuts[i + 1])):
                # Buckets after the crossing were never opened: packing must not change the count.
                self._buckets.count = opened + i
                return

    def _play(self, rows: Rows, events: I64, told: F64, cut: tuple[int, int]) -> bool:
        """Add the telling votes of one bucket; True at the first crossing."""
        first, end = cut
        if first == end:
            return False
        if not self._entered:
            self._restarts += 1
            self._level = restarted(self._level, float(log_mass(self._restarts, 1)[0]))
            self._entered = True
        levels = running(self._level, told[first:end])
        self._level = levels[-1]
        if (crossed := crossing(levels, self._threshold)) is None:
            return False
        self.rearm()
        self._fired = fired_at(rows, int(events[first + crossed[0]]), crossed[1])
        return True

    def reading(self) -> Reading:
        """Say how strong the evidence is now, or was at the first crossing."""
        return reading_of(
            strength(self._level, self._fired), self._threshold, self._fired, self._counts.votes,
            warming=self._counts.votes < self._warm,
        )  # fmt: skip

    def interval(self) -> Interval:
        """Bound the canary's mean vote over its life, at 1 - alpha, beside the stable's."""
        return self._counts.interval(self.alpha)

    def ratio(self) -> Interval:
        """Bound canary mean / stable mean, at 1 - alpha; what `margin` speaks of."""
        return self._counts.ratio(self.alpha)

    def state(self) -> dict[str, Any]:
        """All it remembers: about 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            "open": [self._buckets.filled, self._buckets.opened_ms, self._entered],
            "counts": [self._buckets.count, self._restarts],
            **self._counts.saved(),
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._level = levels_from(state["level"], K)
            self._buckets.filled, self._buckets.opened_ms, self._entered = state["open"]
            self._buckets.count, self._restarts = state["counts"]
            self._counts.restore(state)
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves, and on which votes it stands."""
        return {
            "h0": f"a unit's mean loss with the canary is at most {self.margin:g} times that with "
            "the stable at the same time",
            "alpha": self.alpha,
            "guarantee": True,
            "restarts": self._restarts,
        }
