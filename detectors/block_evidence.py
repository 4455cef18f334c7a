"""Evidence that a canary is worse, from rows whose share of traffic is not known.

Why. `canary_guard.py` asks whose a bad row was, and needs to know with which chance it could have
been the canary's. Mirrored or hand-made splits do not say. Guessing that chance from counts of
rows lags behind a ramp, and the lag itself looks like evidence: a false rollback.

How. A block of rows is compared at once, given how many rows of each arm it holds. The alternatives
are multiples of a guess of the stable's rate from earlier blocks; the null is the pair of rates
within the margin that comes nearest to the alternative (the smaller root below). The mean of this
e-value is at most 1 whatever the stable's rate is, so a bad guess costs power, never the bound.

Assumed: within one block the arms' rates are steady and rows are independent.

References
----------
Turner, Ly, Grünwald (2024), Generic e-variables for exact sequential k-sample tests; the root with
a margin is our own and is checked by enumeration in the tests.
"""

from __future__ import annotations

from math import exp2

import numpy as np

from detectors.base import F64

MEMORY_ROWS = 4096
"""Stable rows after which a row counts half in the guess."""

BLOCK_ROWS = 64
"""Rows that a block holds at least. It ends with a bucket; one of few rows would prove nothing,
since its rows could not be told from a change of the world."""

WARM_ROWS = 100
"""Stable rows (discounted) below which there is no guess, hence no evidence."""


def block_gain(counts: tuple[int, int, int, int], guess: float, ratios: F64, margin: float) -> F64:
    """Log e-value of one block for each alternative, shape of `ratios`.

    Parameters
    ----------
    counts : (canary rows, canary bad, stable rows, stable bad)
    guess : float
        The stable's rate as guessed before the block, in (0, 1).
    ratios : array, shape (k,)
        Alternatives: canary rate = ratio * guess.
    margin : float
        Highest ratio that is accepted.
    """
    n_canary, bad_canary, n_stable, bad_stable = counts
    # Clamped where a multiple of a high rate would pass 1; a guess inside the null proves nothing.
    canary_rate = np.minimum(ratios * guess, 0.999)
    outside = canary_rate > margin * guess
    total = margin * (n_canary + n_stable)
    middle = n_canary * (canary_rate + margin) + n_stable * (1 + margin * guess)
    product = n_canary * canary_rate + n_stable * guess
    root = np.sqrt(np.maximum(middle * middle - 4 * total * product, 0.0))
    null = 2 * product / (middle + root)
    # Inside the null a rate may reach 1; what is computed there is thrown away below.
    with np.errstate(divide="ignore", invalid="ignore"):
        gain = (
            bad_canary * np.log(canary_rate / (margin * null))
            + (n_canary - bad_canary) * (np.log1p(-canary_rate) - np.log1p(-margin * null))
            + bad_stable * np.log(guess / null)
            + (n_stable - bad_stable) * (np.log1p(-guess) - np.log1p(-null))
        )
    return np.where(outside, gain, 0.0)


class Block:
    """Counts of the open block, and the guess of the stable's rate from those before it."""

    def __init__(self) -> None:
        self.stable_rows = 0.0
        self.stable_bad = 0.0
        self.drop()

    def drop(self) -> None:
        """Forget the open block, as if its rows had not been."""
        self.counts = (0, 0, 0, 0)
        self.last: tuple[int, int] = (0, 0)
        """Position and event time of its last row."""

    def add(self, counts: tuple[int, int, int, int], last: tuple[int, int]) -> None:
        """Take rows: canary rows, canary bad, stable rows, stable bad."""
        a, b, c, d = self.counts
        e, f, g, h = counts
        self.counts, self.last = (a + e, b + f, c + g, d + h), last

    @property
    def is_ripe(self) -> bool:
        """Whether it holds enough rows to be ended."""
        return self.counts[0] + self.counts[2] >= BLOCK_ROWS

    @property
    def is_open(self) -> bool:
        """Whether it holds rows."""
        return self.counts[0] + self.counts[2] > 0

    def close(self, ratios: F64, margin: float) -> F64:
        """End the block: its log e-value for each alternative, shape of `ratios`."""
        gain = np.zeros(len(ratios))
        if self.stable_rows >= WARM_ROWS:
            guess = (self.stable_bad + 0.5) / (self.stable_rows + 1)
            gain = block_gain(self.counts, guess, ratios, margin)
        fade = exp2(-self.counts[2] / MEMORY_ROWS)
        self.stable_rows = self.stable_rows * fade + self.counts[2]
        self.stable_bad = self.stable_bad * fade + self.counts[3]
        self.drop()
        return gain
