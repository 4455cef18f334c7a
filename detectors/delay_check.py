"""Delay check: do the bad labels of canary and stable come equally late?

Why. In the label mode `conditional` a paired guard counts bad labels as they arrive. Whose label
arrived says whose prediction was bad only if both arms' labels are equally late: where the canary's
bad labels come four times as fast, it looks worse than it is as long as its traffic is young.

How. Only bad rows that had their whole horizon, of both arms: by then every delay is known, so slow
labels are not missing. At four ages (a quarter of the horizon down to 1/256) the share of labels
that had come by then is compared, canary against stable: a two-sided test by blocks of rows
(Turner, Ly, Grünwald 2024), mixed over ages and odds ratios and started anew block by block
(`spending.py`). The guess of the stable's share comes from blocks before; a bad one costs power,
never the bound.

Proof of inequality is not enough. Before it can be there, nothing is known, and that is when young
traffic misleads. So "equal" is said only once a canary whose odds of an early label are double (or
half) would have been found with a chance of about five in six, and was not. Until then, and after
"unequal", matured labels have to do.

What it cannot promise: a difference below a doubling, or one that begins after "equal" was said,
may mislead a guard until it is found here. A false "unequal" only costs the wait for the horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from math import log, sqrt
from typing import Any, Literal

import numpy as np

from detectors.base import (
    F64,
    Bool,
    InvalidRows,
    Rows,
    header,
    levels_from,
    log_mean,
    plain,
    require_at_least,
    require_open_unit,
    require_rows,
    restoring,
)
from detectors.spending import log_mass, restarted

Standing = Literal["unknown", "equal", "unequal"]

AGES = (4, 16, 64, 256)
"""Labels are early at an age of this part of the horizon, or before."""

ODDS = np.array([0.25, 0.5, 2.0, 4.0])
"""How many times the stable's odds of an early label the alternatives are."""

BLOCK_ROWS = 64
"""Rows of both arms that are compared at once."""

MEMORY_ROWS = 4096
"""Stable rows after which a row counts half in the guess."""


@dataclass
class DelayCheck:
    """Are the arms' bad labels equally late? Not a guard: it says whether a mode may be trusted.

    The caller feeds a paired guard with labels on arrival only while `standing` is "equal", beside
    one on matured labels; the two share alpha.

    Parameters
    ----------
    horizon_ms : int
        Age at which a prediction is mature, ms, >= 1.
    alpha : float
        Bound on P(ever "unequal" while the arms' labels are equally late), in (0, 1).

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Turner, Ly, Grünwald (2024), Generic e-variables for exact sequential k-sample tests.

    Examples
    --------
    >>> check = DelayCheck(horizon_ms=1000)
    >>> when, canary = np.arange(4000), np.arange(4000) % 2 == 0
    >>> check.update(Rows(np.where(when % 3 == 0, 40.0, 400.0), when, when, canary))
    'equal'
    >>> check.update(Rows(np.where(canary, 40.0, 400.0), when + 4000, when, canary))
    'unequal'
    """

    horizon_ms: int
    alpha: float = 0.05

    VERSION = 1

    def __post_init__(self) -> None:
        require_open_unit(alpha=self.alpha)
        require_at_least(1, horizon_ms=self.horizon_ms)
        self._threshold = log(1 / self.alpha)
        # What a doubling must gain on average: the threshold, its part of the mixture and of the
        # first start, and one standard deviation, which is about the root of twice the gain.
        most = self._threshold + log(len(AGES) * len(ODDS)) + 1.4
        self._enough = (sqrt(2) + sqrt(2 + 4 * most)) ** 2 / 4
        self._level: F64 = np.full(len(AGES) * len(ODDS), -np.inf)
        self._counts = np.zeros((2, 1 + len(AGES)), np.int64)
        self._stable = np.zeros(1 + len(AGES))
        self._power = np.zeros(len(AGES))
        self._blocks = 0
        self._early = np.zeros((2, 1 + len(AGES)), np.int64)
        self._last: int | None = None
        self._unequal = False

    @property
    def standing(self) -> Standing:
        """Say "equal": enough rows to see a doubling, none seen; "unequal": seen, for good."""
        if self._unequal:
            return "unequal"
        return "equal" if self._power.max() >= self._enough else "unknown"

    @property
    def reason(self) -> str:
        """One sentence for people: why it stands so."""
        canary, stable = self._early
        if self.standing == "unknown":
            part = min(1.0, float(self._power.max()) / self._enough)
            return (
                f"{canary[0]} bad labels of the canary and {stable[0]} of the stable are "
                f"{part:.0%} of what it takes to see that one arm's come at twice the odds."
            )
        age = int(np.argmax(self._level.reshape(len(AGES), -1).max(axis=1)))
        if self.standing == "equal":
            age = int(np.argmax(self._power))
        own, other = (row[1 + age] / max(1, row[0]) for row in (canary, stable))
        told = "Bad labels come equally late" if self.standing == "equal" else "Delays differ"
        after_s = self.horizon_ms / AGES[age] / 1000
        return (
            f"{told}: {own:.0%} of the canary's and {other:.0%} of the stable's in {after_s:g} s."
        )

    def update(self, rows: Rows) -> Standing:
        """Take matured bad rows of both arms: `loss` is the label's age, ms (observed - served).

        Raises
        ------
        InvalidRows
            If columns do not fit, or an age is negative.
        """
        require_rows(rows, self._last, paired=True, binary=False)
        if not len(rows.loss) or rows.canary is None:
            return self.standing
        if (rows.loss < 0).any():
            raise InvalidRows("loss: the age of a label, in ms, cannot be negative")
        self._last = int(rows.position[-1])
        limits = self.horizon_ms / np.array(AGES)
        early = np.concatenate(
            (np.ones((len(rows.loss), 1), np.bool_), rows.loss[:, None] <= limits), axis=1
        )
        filled = int(self._counts[:, 0].sum())
        edges = [0, *range(BLOCK_ROWS - filled, len(early), BLOCK_ROWS), len(early)]
        for first, end in pairwise(edges):
            self._count(early[first:end], rows.canary[first:end])
            if self._counts[:, 0].sum() == BLOCK_ROWS:
                self._end_block()
        return self.standing

    def _count(self, early: Bool, canary: Bool) -> None:
        added = np.array([early[canary].sum(axis=0), early[~canary].sum(axis=0)])
        self._counts += added
        self._early += added

    def _end_block(self) -> None:
        """Weigh a block: its evidence, and what a doubling would have gained on average."""
        canary, stable = self._counts
        if self._stable[0] >= BLOCK_ROWS and not self._unequal:
            guess = (self._stable[1:] + 0.5) / (self._stable[0] + 1)
            self._blocks += 1
            mass = float(log_mass(self._blocks, 1)[0])
            gain = block_gain(canary, stable, guess[:, None], ODDS[None, :])
            self._level = restarted(self._level, mass) + gain.ravel()
            self._power += np.minimum(
                *(expected_gain(int(canary[0]), int(stable[0]), guess, x) for x in (0.5, 2.0))
            )
            self._unequal = bool(log_mean(self._level[:, None])[0] >= self._threshold)
        self._stable = self._stable * 2.0 ** (-stable[0] / MEMORY_ROWS) + stable
        self._counts = np.zeros_like(self._counts)

    def state(self) -> dict[str, Any]:
        """All it remembers: under 1 KB as JSON."""
        return {
            **header(self, self.VERSION),
            "level": plain(self._level),
            "open": self._counts.tolist(),
            "stable": self._stable.tolist(),
            "power": self._power.tolist(),
            "early": self._early.tolist(),
            "counts": [self._blocks, self._last, self._unequal],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; raises `StateMismatch` and is fresh if it cannot."""
        with restoring(self, self.VERSION, state):
            self._level = levels_from(state["level"], len(AGES) * len(ODDS))
            self._counts = np.array(state["open"], np.int64).reshape(2, 1 + len(AGES))
            self._stable = np.array(state["stable"], np.float64).reshape(1 + len(AGES))
            self._power = np.array(state["power"], np.float64).reshape(len(AGES))
            self._early = np.array(state["early"], np.int64).reshape(2, 1 + len(AGES))
            self._blocks, self._last, self._unequal = state["counts"]


def _of_odds(guess: F64, odds: F64 | float) -> F64:
    return odds * guess / (1 - guess + odds * guess)


def block_gain(canary: Any, stable: Any, guess: F64, odds: F64) -> F64:
    """Log e-value of one block against equal shares, shape (ages, alternatives).

    Parameters
    ----------
    canary, stable : array, shape (1 + ages,)
        Rows of the arm in the block; those that were early, by age.
    guess : array, shape (ages, 1)
        The stable's share of early rows as guessed before the block, in (0, 1).
    odds : array, shape (1, alternatives)
        How many times the stable's odds the canary's are.
    """
    own = _of_odds(guess, odds)
    null = (canary[0] * own + stable[0] * guess) / (canary[0] + stable[0])
    gain: F64 = np.zeros_like(own)
    for row, share in ((canary, own), (stable, guess)):
        early = row[1:, None]
        gain = gain + early * np.log(share / null)
        gain += (row[0] - early) * (np.log1p(-share) - np.log1p(-null))
    return gain


def expected_gain(canary: int, stable: int, guess: F64, odds: float) -> F64:
    """Mean log e-value of a block if the canary's odds are so many times the stable's; (ages,)."""
    own = _of_odds(guess, odds)
    null = (canary * own + stable * guess) / (canary + stable)
    gain: F64 = np.zeros_like(guess)
    for n, share in ((canary, own), (stable, guess)):
        gain = gain + n * share * np.log(share / null)
        gain += n * (1 - share) * (np.log1p(-share) - np.log1p(-null))
    return gain
