"""From columns of observations to losses: which rows a signal speaks of, and how bad each is.

Why. Guards know only losses, where larger is worse, so that none needs a direction and none ever
alarms because a version got better. Here is the one place that knows what a signal means.

How. A rate becomes 0 or 1 per row; a rate that should be high becomes its shortfall (accuracy the
error, recall the share of positives missed, coverage the share without a label), and its `min`
becomes a limit of 1 - min on that loss. Values stay as they are.

A row that lacks what a signal needs is left out, not guessed. Which rows are handed in is the
caller's affair: for rates of labelled rows, matured ones; for coverage, all that had their time.

Refused: signals that no row carries (`traffic_share`, `prometheus`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from detectors.base import F64, I8, I64, Bool

FEATURE = "feature:"


class Columns(NamedTuple):
    """Observations as columns, shape (n,) each, oldest first."""

    positive_predicted: I8
    """1: the positive class was predicted, 0: another, -1: unknown."""
    positive_label: I8
    """1: the label is the positive class, 0: another, -1: unknown or not there yet."""
    wrong: I8
    """1: prediction and label differ, 0: they agree, -1: unknown."""
    error: Bool
    """The request failed."""
    latency_ms: F64
    """NaN: not told."""
    score: F64
    """Score of the positive class; NaN: not told."""
    value: F64
    """Predicted number, for `prediction` and `absolute_error`; the feature, for `feature:NAME`.
    NaN: none."""
    labelled: Bool
    """A label has come."""
    label_value: F64 | None = None
    """True number, for `absolute_error`; NaN: none."""
    cost: F64 | None = None
    """Cost told with the outcome; NaN: none."""


Picked = tuple[Bool, F64]


def _picked(chosen: Bool, loss: F64 | Bool | I8) -> Picked:
    return chosen, np.asarray(loss, dtype=np.float64)


def _error_rate(c: Columns) -> Picked:
    return _picked(np.ones(len(c.error), dtype=np.bool_), c.error)


def _wrong(c: Columns) -> Picked:
    return _picked(c.wrong >= 0, c.wrong == 1)


def _false_positive_rate(c: Columns) -> Picked:
    return _picked((c.positive_label == 0) & (c.positive_predicted >= 0), c.positive_predicted == 1)


def _false_negative_rate(c: Columns) -> Picked:
    return _picked((c.positive_label == 1) & (c.positive_predicted >= 0), c.positive_predicted == 0)


def _false_discovery_rate(c: Columns) -> Picked:
    return _picked((c.positive_predicted == 1) & (c.positive_label >= 0), c.positive_label == 0)


def _fp_per_prediction(c: Columns) -> Picked:
    # What was not flagged is no false positive, whether its label came or not.
    known = (c.positive_predicted == 0) | ((c.positive_predicted == 1) & (c.positive_label >= 0))
    return _picked(known, (c.positive_predicted == 1) & (c.positive_label == 0))


def _brier(c: Columns) -> Picked:
    known = (c.positive_label >= 0) & np.isfinite(c.score)
    return _picked(known, (c.score - c.positive_label) ** 2)


def _absolute_error(c: Columns) -> Picked:
    missing = np.full(len(c.value), np.nan)
    return _finite(np.abs(c.value - (missing if c.label_value is None else c.label_value)))


def _cost(c: Columns) -> Picked:
    return _finite(np.full(len(c.error), np.nan) if c.cost is None else c.cost)


def _coverage_shortfall(c: Columns) -> Picked:
    return _picked(np.ones(len(c.labelled), dtype=np.bool_), ~c.labelled)


def _finite(values: F64) -> Picked:
    return _picked(np.isfinite(values), values)


class Signal(NamedTuple):
    """What a signal's loss is like."""

    pick: Callable[[Columns], Picked]
    rate: bool
    """Losses are 0 or 1."""
    labels: bool
    """Only rows with a label are told of."""
    shortfall: bool = False
    """The loss is one minus the signal, so `min` becomes a limit of 1 - min."""


SIGNALS: dict[str, Signal] = {
    "error_rate": Signal(_error_rate, rate=True, labels=False),
    "latency_ms": Signal(lambda c: _finite(c.latency_ms), rate=False, labels=False),
    "accuracy": Signal(_wrong, rate=True, labels=True, shortfall=True),
    "error": Signal(_wrong, rate=True, labels=True),
    "false_positive_rate": Signal(_false_positive_rate, rate=True, labels=True),
    "false_negative_rate": Signal(_false_negative_rate, rate=True, labels=True),
    "recall": Signal(_false_negative_rate, rate=True, labels=True, shortfall=True),
    "precision": Signal(_false_discovery_rate, rate=True, labels=True, shortfall=True),
    "fp_per_prediction": Signal(_fp_per_prediction, rate=True, labels=True),
    "brier": Signal(_brier, rate=False, labels=True),
    "absolute_error": Signal(_absolute_error, rate=False, labels=True),
    "cost": Signal(_cost, rate=False, labels=True),
    "score": Signal(lambda c: _finite(c.score), rate=False, labels=False),
    "prediction": Signal(lambda c: _finite(c.value), rate=False, labels=False),
    "label_coverage": Signal(_coverage_shortfall, rate=True, labels=False, shortfall=True),
}
_A_FEATURE = Signal(lambda c: _finite(c.value), rate=False, labels=False)


def signal_of(name: str) -> Signal:
    """The signal of a name, or of `feature:NAME`.

    Raises
    ------
    ValueError
        On a name that no row carries; the message says what is known.
    """
    if name.startswith(FEATURE) and len(name) > len(FEATURE):
        return _A_FEATURE
    if name not in SIGNALS:
        raise ValueError(
            f"no signal {name!r} in observations; known: {', '.join(SIGNALS)}, {FEATURE}NAME"
        )
    return SIGNALS[name]


def select(signal: str, columns: Columns) -> tuple[I64, F64]:
    """Indices of the rows a signal speaks of, and their losses; both of one shape.

    >>> columns = Columns(
    ...     positive_predicted=np.array([1, 0, 1, 1], dtype=np.int8),
    ...     positive_label=np.array([0, 0, 1, -1], dtype=np.int8),
    ...     wrong=np.array([1, 0, 0, -1], dtype=np.int8),
    ...     error=np.array([False, False, True, False]),
    ...     latency_ms=np.array([12.0, np.nan, 30.0, 8.0]),
    ...     score=np.array([0.9, 0.2, 0.7, 0.6]),
    ...     value=np.full(4, np.nan),
    ...     labelled=np.array([True, True, True, False]),
    ... )
    >>> index, loss = select("false_positive_rate", columns)
    >>> index.tolist(), loss.tolist()
    ([0, 1], [1.0, 0.0])
    """
    chosen, loss = signal_of(signal).pick(columns)
    index = np.flatnonzero(chosen)
    return index, loss[index]


def limit_of(signal: str, limit: float) -> float:
    """The limit on a signal's loss that its `max` or `min` means.

    >>> round(limit_of("accuracy", 0.9), 3), limit_of("error_rate", 0.05)
    (0.1, 0.05)
    """
    return 1 - limit if signal_of(signal).shortfall else limit
