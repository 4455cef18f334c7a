"""Unit promote: is a unit proven to fare no worse with the canary, by more than a margin?

Why. `promote_gate.py` takes each bad row for an independent witness; rows of one user or session
are not, and a proof made of them is worth less than it says.

How. The same test on the votes of units (`unit_arms.py`): the null is that the canary's mean vote
is the margin times the stable's or more. The level `alarm` means *proven*, and evidence never
starts anew.

Refused: votes whose share of traffic is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, inf, log
from typing import Any

import numpy as np

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
    restoring,
    running,
)
from detectors.latch import crossing, fired_at, fired_from, reading_of, saved_fired, strength
from detectors.promote_gate import RATIOS
from detectors.unit_arms import UnitCounts, UnitVotes, gains, votes_of
from schemas.plugins import plugin


@plugin("unit_promote", arms="paired", losses="value", guarantee="yes", proves="no_worse")
@dataclass
class UnitPromote:
    """Test of canary mean vote >= margin * stable mean vote; votes lie in [0, 1].

    Parameters
    ----------
    margin : float
        Ratio of mean votes that must be ruled out, above 1; 1.25 is 25 % more.
    beta : float
        Bound on P(ever won while the canary is worse by the margin or more), in (0, 1).

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Vovk, Wang (2021), E-values: calibration, combination and applications. Lindon, Malek (2022),
    Anytime-valid inference for multinomial count data.

    Examples
    --------
    >>> import numpy as np
    >>> gate = UnitPromote(margin=1.5)
    >>> when, share = np.arange(100), np.full(100, 0.5)
    >>> half = when % 2 == 0
    >>> gate.update(Rows(np.full(100, 0.5), when, when, half, share)).level
    'warning'
    >>> gate.update(Rows(np.full(100, 0.5), when + 100, when, half, share)).level
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
        # A bad vote of the stable, at a canary share near 1, says most.
        self._warm = ceil(self._threshold / log(self.margin / float(RATIOS[-1])))
        self._counts = UnitCounts()
        self._last: int | None = None
        self.rearm()

    def rearm(self) -> None:
        """Clear latch and evidence: the proof must be given again, from new votes."""
        self._fired: Fired | None = None
        self._level: F64 = np.zeros(len(RATIOS))

    def update(self, rows: Rows) -> Reading:
        """Take votes, each in [0, 1], of both arms."""
        votes = votes_of(rows, self._last)
        if len(rows.loss):
            self._last = int(rows.position[-1])
            self._counts.count(votes)
            if self._fired is None and votes.telling.any():
                self._weigh(rows, votes)
        return self.reading()

    def _weigh(self, rows: Rows, votes: UnitVotes) -> None:
        """Add the evidence of the telling votes, and latch at the first crossing."""
        events = np.flatnonzero(votes.telling)
        told = gains(UnitVotes(*(column[events] for column in votes)), RATIOS, self.margin)
        levels = running(self._level, told)
        self._level = levels[-1]
        if (crossed := crossing(levels, self._threshold)) is not None:
            self.rearm()
            self._fired = fired_at(rows, int(events[crossed[0]]), crossed[1])

    def reading(self) -> Reading:
        """Say how strong the proof is now, or was when it was given."""
        return reading_of(
            strength(self._level, self._fired), self._threshold, self._fired, self._counts.votes,
            warming=self._counts.votes < self._warm,
        )  # fmt: skip

    def interval(self) -> Interval:
        """Bound the canary's mean vote over its life, at 1 - beta, beside the stable's."""
        return self._counts.interval(self.beta)

    def ratio(self) -> Interval:
        """Bound canary mean / stable mean, at 1 - beta; what `margin` speaks of."""
        return self._counts.ratio(self.beta)

    def state(self) -> dict[str, Any]:
        """All it remembers: under 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            **self._counts.saved(),
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`."""
        with restoring(self, self.VERSION, state):
            self._level = levels_from(state["level"], len(RATIOS))
            self._counts.restore(state)
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say what a won gate proves, and on which votes it stands."""
        return {
            "h0": f"a unit's mean loss with the canary is at least {self.margin:g} times that with "
            "the stable at the same time",
            "beta": self.beta,
            "guarantee": True,
        }
