"""Promote gate: is it proven that the canary is no worse than the stable by more than a margin?

Why. "No alarm" is not "as good": a canary with little traffic never alarms. Promotion needs proof
of its own, and the chance that it is *ever* given to a canary that is worse by the margin must be
bounded however long one looks. So here the level `alarm` means *proven*: a gate is won, and nobody
is alarmed. It is never a reason to act against a version.

How. `canary_guard.py` mirrored: given that a row was bad, whose was it? The null is that the canary
is worse by the margin or more; the alternatives are that it is as good, or better by a tenth, two
or three. Each bad row of the stable speaks for the canary, each of its own against it. Evidence
never starts anew: a canary that was bad at first has to make up for it.

Refused: rows whose share of traffic is unknown. They are counted and prove nothing, since a lag in
the guess of a share would look like proof. Rules about time and label coverage are the caller's.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log
from typing import Any

import numpy as np

from detectors.arms import Arms, Taken
from detectors.base import (
    F64,
    Fired,
    Interval,
    Reading,
    Rows,
    header,
    levels_from,
    plain,
    require_open_unit,
    require_rows,
    restoring,
    running,
)
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from schemas.plugins import plugin

RATIOS = np.array([1.0, 0.9, 0.8, 0.7])
"""Alternatives: canary rate / stable rate."""


@plugin("promote", arms="paired", losses="binary", guarantee="yes", proves="no_worse")
@dataclass
class PromoteGate:
    """Test of canary rate >= margin * stable rate, given the bad rows; loss 1 is bad.

    Parameters
    ----------
    margin : float
        Ratio of bad shares that must be ruled out, above 1; 1.25 is 25 % more.
    beta : float
        Bound on P(ever won while the canary is worse by the margin or more), in (0, 1).

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Lindon, Malek (2022), Anytime-valid inference for multinomial count data.

    Examples
    --------
    >>> import numpy as np
    >>> gate = PromoteGate(margin=1.5)
    >>> when, share = np.arange(140), np.full(140, 0.5)
    >>> half = when % 2 == 0
    >>> gate.update(Rows(np.ones(140), when, when, half, share)).level
    'warning'
    >>> gate.update(Rows(np.ones(140), when + 140, when, half, share)).level
    'alarm'
    """

    margin: float = 1.25
    beta: float = 0.05

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(beta=self.beta)
        if not 1 < self.margin < inf:
            raise ValueError(f"margin must lie above 1 and be finite, got {self.margin}")
        self._threshold = log(1 / self.beta)
        # A bad row of the stable, at a canary share near 1, says most.
        self._warm = ceil(self._threshold / log(self.margin / float(RATIOS[-1])))
        self._arms = Arms()
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence: the proof must be given again, from new rows."""
        self._fired: Fired | None = None
        self._level: F64 = np.zeros(len(RATIOS))

    def update(self, rows: Rows) -> Reading:
        """Take rows of both arms with losses 0 or 1."""
        require_rows(rows, self._last, paired=True, binary=True)
        if not len(rows.loss) or rows.canary is None:
            return self.reading()
        self._last = int(rows.position[-1])
        taken = self._arms.take(rows, rows.canary)
        if self._fired is None and len(taken.events):
            self._weigh(rows, taken)
        return self.reading()

    def _weigh(self, rows: Rows, taken: Taken) -> None:
        """Add the evidence of the bad rows, and latch at the first crossing."""
        levels = running(self._level, taken.gains(RATIOS, self.margin))
        self._level = levels[-1]
        if (crossed := crossing(levels, self._threshold)) is not None:
            self.rearm()
            self._fired = fired_at(rows, int(taken.events[crossed[0]]), crossed[1])

    def _statistic(self) -> float | None:
        return strength(self._level, self._fired)

    def reading(self) -> Reading:
        """Say how strong the proof is now, or was when it was given."""
        warming = self._arms.rows < self._warm
        return reading_of(
            self._statistic(), self._threshold, self._fired, self._arms.canary, warming=warming
        )

    def interval(self) -> Interval:
        """Bound the canary's bad share over its life, at 1 - beta, beside the stable's."""
        return self._arms.interval(self.beta)

    def ratio(self) -> Interval:
        """Bound canary rate / stable rate, at 1 - beta; what `margin` speaks of."""
        return self._arms.ratio(self.beta)

    def state(self) -> dict[str, Any]:
        """All it remembers: under 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            **self._arms.saved(),
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._level = levels_from(state["level"], len(RATIOS))
            self._arms.restore(state)
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what a won gate proves, and on which rows it stands."""
        return {
            "h0": f"the canary's share of bad rows is at least {self.margin:g} times the stable's "
            "at the same time",
            "beta": self.beta,
            "guarantee": True,
            "weight": self._arms.weight,
        }
