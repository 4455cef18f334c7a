"""Seeded streams with a known truth: which rows are bad, when, and for whose fault.

Each takes a seed (whatever numpy's `default_rng` takes) and gives the rows of one run, so that all
judges of a world see the very same rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.base import F64, Rows

STEP_MS = 250
"""Event time between rows: a bucket of 256 rows lasts about the minute that also ends it."""
START_MS = 1_700_000_000_000


def rows_of(
    loss: Any, first: int = 0, step_ms: int = STEP_MS, canary: Any = None, weight: Any = None
) -> Rows:
    """Rows with these losses, one every `step_ms`; `weight` may be one number for all."""
    losses = np.asarray(loss, dtype=np.float64)
    position = np.arange(first, first + len(losses), dtype=np.int64)
    arms = None if canary is None else np.asarray(canary, dtype=np.bool_)
    share = None if weight is None else np.broadcast_to(np.float64(weight), losses.shape).copy()
    return Rows(losses, position, START_MS + position * step_ms, arms, share)


def coin_rows(seed: Any, n: int, rate: Any, step_ms: int = STEP_MS) -> Rows:
    """Losses of 0 and 1 at a rate that is one number, or one for each row."""
    rng = np.random.default_rng(seed)
    return rows_of(rng.random(n) < np.broadcast_to(rate, (n,)), step_ms=step_ms)


def paired_rows(seed: Any, n: int, rate: Any, ratio: Any, share: Any, *, told: bool = True) -> Rows:
    """Two arms: the stable fails at `rate`, the canary at `ratio` times that."""
    rng = np.random.default_rng(seed)
    shares = np.broadcast_to(np.asarray(share, dtype=np.float64), (n,))
    canary = rng.random(n) < shares
    rates = np.broadcast_to(rate, (n,)) * np.where(canary, np.broadcast_to(ratio, (n,)), 1.0)
    bad = rng.random(n) < rates
    return rows_of(bad, canary=canary, weight=shares if told else np.nan)


def latencies(seed: Any, n: int, factor: Any) -> Rows:
    """Log-normal milliseconds, sigma .6, median 54.6 times the factor."""
    return rows_of(factor * np.exp(np.random.default_rng(seed).normal(4, 0.6, n)))


def paired_latencies(seed: Any, n: int, factor: float, share: float) -> Rows:
    """The same for two arms; the canary's times a factor."""
    rng = np.random.default_rng(seed)
    arms = rng.random(n) < share
    values = np.exp(rng.normal(4, 0.6, n)) * np.where(arms, factor, 1.0)
    return rows_of(values, canary=arms, weight=share)


def betas(seed: Any, n: int, mean: Any) -> Rows:
    """Losses in [0, 1]: Beta with the mean, concentration 12."""
    means = np.broadcast_to(mean, (n,))
    return rows_of(np.random.default_rng(seed).beta(12 * means, 12 * (1 - means)))


def only_bad(seed: Any, n: int, ratio: float, share: float) -> Rows:
    """Bad rows alone, by the arm that they are of; good rows tell a promotion gate nothing."""
    chance = share * ratio / (share * ratio + 1 - share)
    canary = np.random.default_rng(seed).random(n) < chance
    return rows_of(np.ones(n), canary=canary, weight=share)


def step(before: float, after: float, at: int, n: int) -> F64:
    """A level that changes once, at a row."""
    return np.where(np.arange(n) < at, before, after)


def ramp(before: float, after: float, at: int, over: int, n: int) -> F64:
    """A level that changes evenly over some rows."""
    level: F64 = before + (after - before) * np.clip((np.arange(n) - at) / over, 0.0, 1.0)
    return level


def wave(middle: float, swing: float, period: int, n: int) -> F64:
    """A level that swings, as over a day."""
    level: F64 = middle + swing * np.sin(2 * np.pi * np.arange(n) / period)
    return level


def bursts(base: float, high: float, every: int, length: int, n: int) -> F64:
    """A level with short bursts, the first after one whole period."""
    at = np.arange(n)
    return np.where((at % every < length) & (at >= every), high, base)
