"""The first crossing: found, latched, said and saved in one way by every detector.

Why. An alarm that one detector latched otherwise than another would be read wrongly by everything
behind it. What follows from a crossing (whether evidence is cleared, which buckets count) differs
and stays with each detector.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.base import F64, Fired, Reading, Rows, first_crossing, level_of, log_mean


def crossing(levels: F64, threshold: float) -> tuple[int, float] | None:
    """Index and statistic of the first row whose mixed evidence reaches the threshold.

    Parameters
    ----------
    levels : array, shape (m, k)
        Log evidence of k components after each of m rows, nats; m >= 1.
    threshold : float
        Nats.
    """
    # The mean of exp is at most its maximum: the common case needs no more than this.
    if levels.max() < threshold:
        return None
    statistics = log_mean(np.ascontiguousarray(levels.T))
    found = first_crossing(statistics, threshold)
    return None if found is None else (found, float(statistics[found]))


def fired_at(rows: Rows, index: int, statistic: float | None) -> Fired:
    """The crossing at a row of a batch."""
    return Fired(int(rows.position[index]), int(rows.time_ms[index]), statistic)


def saved_fired(fired: Fired | None) -> list[Any] | None:
    """A crossing as plain data."""
    return list(fired) if fired else None


def fired_from(saved: list[Any] | None) -> Fired | None:
    """The reverse of `saved_fired`.

    >>> fired_from(saved_fired(Fired(7, 1000, 4.7))), fired_from(saved_fired(None))
    (Fired(position=7, time_ms=1000, statistic=4.7), None)
    """
    return Fired(*saved) if saved else None


def strength(level: F64, fired: Fired | None) -> float | None:
    """Log mean of the components, shape (k,), or what it was at the crossing; None: no mass yet."""
    if fired is not None:
        return fired.statistic
    return None if np.isneginf(level[0]) else float(log_mean(level[:, None])[0])


def reading_of(
    statistic: float | None, threshold: float, fired: Fired | None, n: int, *, warming: bool
) -> Reading:
    """What a detector with an e-value says."""
    return Reading(
        level=level_of(statistic, threshold, fired, warming),
        statistic=statistic,
        threshold=threshold,
        n=n,
        fired_at=fired.position if fired else None,
        fired_ms=fired.time_ms if fired else None,
    )
