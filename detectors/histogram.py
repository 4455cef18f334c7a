"""Counts of values in fixed logarithmic bins, of either sign.

Why. A quantile that is estimated by following the stream is biased for thousands of rows, and has
no bounds. Counts in fixed bins are exact at the bins' edges, can be added, and bound a quantile
with the same mixture as a rate: the true quantile is exceeded by a known share of rows.

How. Eight bins to a doubling, so a bin is 9 % wide; only bins that were hit are kept, at most 481
of them. Magnitudes below 2^-10 count as 0, and those above 2^20 (17 minutes, in ms) as 2^20.
"""

from __future__ import annotations

from collections import Counter
from math import ceil, log

import numpy as np

from detectors.base import F64, I64, Interval
from detectors.intervals import log_e_of_rate

BINS_PER_OCTAVE = 8
LOWEST_OCTAVE = -10
HIGHEST_OCTAVE = 20
LAST_BIN = (HIGHEST_OCTAVE - LOWEST_OCTAVE) * BINS_PER_OCTAVE


def bins_of(values: F64) -> I64:
    """Bin of each value: 0 around zero, growing with the value, negative below."""
    size = np.maximum(np.abs(values), 2.0**LOWEST_OCTAVE / 2)
    number = np.floor((np.log2(size) - LOWEST_OCTAVE) * BINS_PER_OCTAVE).astype(np.int64) + 1
    signed: I64 = np.sign(values).astype(np.int64) * np.clip(number, 0, LAST_BIN)
    return signed


def edges_of(bin_number: int) -> tuple[float, float]:
    """Lower and upper edge of a bin."""
    if bin_number == 0:
        return -(2.0**LOWEST_OCTAVE), 2.0**LOWEST_OCTAVE
    size = abs(bin_number)
    near = 2.0 ** (LOWEST_OCTAVE + (size - 1) / BINS_PER_OCTAVE)
    far = 2.0 ** (LOWEST_OCTAVE + size / BINS_PER_OCTAVE)
    return (near, far) if bin_number > 0 else (-far, -near)


class Histogram:
    """Sparse counts by bin.

    >>> import numpy as np
    >>> histogram = Histogram()
    >>> histogram.add(np.arange(1, 1001, dtype=np.float64))
    >>> round(histogram.quantile(0.5)), round(histogram.quantile(0.99))
    (501, 1010)
    """

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.n = 0

    def add(self, values: F64) -> None:
        """Count values, shape (n,)."""
        self.add_bins(bins_of(values))

    def add_bins(self, numbers: I64) -> None:
        """Count values whose bins are known, shape (n,)."""
        for number, count in Counter(numbers.tolist()).items():
            self.counts[number] = self.counts.get(number, 0) + count
        self.n += len(numbers)

    def fade(self) -> None:
        """Halve every count, so that what is recent weighs more."""
        self.counts = {number: half for number, c in self.counts.items() if (half := c // 2)}
        self.n = sum(self.counts.values())

    def quantile(self, q: float) -> float | None:
        """The value with share q of the rows below it, even within a bin; None before any row."""
        target = q * self.n
        for number, count in sorted(self.counts.items()):
            if target <= count:
                low, high = edges_of(number)
                return low + (high - low) * target / count
            target -= count
        return None

    def quantile_interval(self, q: float, alpha: float) -> Interval:
        """The quantile with bounds that hold at all times, at 1 - alpha, out to the next edge."""
        estimate = self.quantile(q)
        if estimate is None:
            return Interval()
        threshold, lower, upper = log(1 / alpha), None, None
        above = self.n
        for number, count in sorted(self.counts.items()):
            low, high = edges_of(number)
            # `above` rows are not below this bin: if they are too many, the quantile is not either.
            if above > (1 - q) * self.n and log_e_of_rate(above, self.n, 1 - q) >= threshold:
                lower = low
            above -= count
            few = above < (1 - q) * self.n
            if few and log_e_of_rate(above, self.n, 1 - q) >= threshold:
                upper = high
                break
        return Interval(estimate, lower, upper)

    def saved(self) -> list[int]:
        """As plain data: the lowest bin hit, then the counts from there up, bin by bin."""
        if not self.counts:
            return []
        first, last = min(self.counts), max(self.counts)
        return [first, *(self.counts.get(number, 0) for number in range(first, last + 1))]

    def restore(self, saved: list[int]) -> None:
        """Continue from `saved()`."""
        first, *counts = saved or [0]
        self.counts = {first + i: count for i, count in enumerate(counts) if count}
        self.n = sum(self.counts.values())


def rows_for_quantile(q: float) -> int:
    """Rows below which a quantile is too rough to compare with: ten in the smaller tail."""
    # Rounded first, since 1 - 0.9 is a little less than 0.1.
    return ceil(round(10 / min(q, 1 - q), 6))
