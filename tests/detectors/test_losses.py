"""From columns to losses."""

from __future__ import annotations

import doctest
from typing import Any

import numpy as np
import pytest

from detectors import losses
from detectors.losses import SIGNALS, Columns, limit_of, select, signal_of
from schemas.policies import HIGHER_IS_BETTER, NEEDS_LABELS, RATES
from schemas.policies import SIGNALS as POLICY_SIGNALS

NAN = np.nan


def some_columns(**changes: Any) -> Columns:
    """Five rows: false positive, true negative, true positive, false negative, not labelled."""
    columns = Columns(
        positive_predicted=np.array([1, 0, 1, 0, 1], dtype=np.int8),
        positive_label=np.array([0, 0, 1, 1, -1], dtype=np.int8),
        wrong=np.array([1, 0, 0, 1, -1], dtype=np.int8),
        error=np.array([False, True, False, False, False]),
        latency_ms=np.array([10.0, NAN, 30.0, 40.0, 50.0]),
        score=np.array([0.9, 0.2, 0.6, NAN, 0.7]),
        value=np.array([3.0, NAN, 5.0, 6.0, 7.0]),
        labelled=np.array([True, True, True, True, False]),
        label_value=np.array([2.5, 1.0, 8.0, 6.0, NAN]),
        cost=np.array([NAN, 4.0, NAN, 0.0, NAN]),
    )
    return columns._replace(**changes)


@pytest.mark.parametrize(
    ("signal", "rows", "expected"),
    [
        ("error_rate", [0, 1, 2, 3, 4], [0, 1, 0, 0, 0]),
        ("latency_ms", [0, 2, 3, 4], [10, 30, 40, 50]),
        ("accuracy", [0, 1, 2, 3], [1, 0, 0, 1]),
        ("error", [0, 1, 2, 3], [1, 0, 0, 1]),
        ("false_positive_rate", [0, 1], [1, 0]),
        ("false_negative_rate", [2, 3], [0, 1]),
        ("recall", [2, 3], [0, 1]),
        ("precision", [0, 2], [1, 0]),
        ("fp_per_prediction", [0, 1, 2, 3], [1, 0, 0, 0]),
        ("brier", [0, 1, 2], [0.81, 0.04, 0.16]),
        ("absolute_error", [0, 2, 3], [0.5, 3, 0]),
        ("cost", [1, 3], [4, 0]),
        ("score", [0, 1, 2, 4], [0.9, 0.2, 0.6, 0.7]),
        ("prediction", [0, 2, 3, 4], [3, 5, 6, 7]),
        ("label_coverage", [0, 1, 2, 3, 4], [0, 0, 0, 0, 1]),
        ("feature:age", [0, 2, 3, 4], [3, 5, 6, 7]),
    ],
)
def test_each_signal_takes_its_rows_and_its_loss(
    signal: str, rows: list[int], expected: list[float]
) -> None:
    """If this breaks, a guard watches something else than its policy says."""
    index, loss = select(signal, some_columns())

    assert rows == index.tolist()
    assert loss == pytest.approx(expected)
    assert np.float64 == loss.dtype


def test_every_signal_of_the_policies_that_rows_carry_is_here() -> None:
    """If this breaks, a valid policy stops the daemon at its first row."""
    assert set(POLICY_SIGNALS) - {"traffic_share", "prometheus"} == set(SIGNALS)
    for name, signal in SIGNALS.items():
        assert (name in RATES) == signal.rate
        assert (name in HIGHER_IS_BETTER) == signal.shortfall
        assert (name in NEEDS_LABELS - {"label_coverage"}) == signal.labels


def test_what_is_unknown_is_left_out() -> None:
    """If this breaks, a missing label counts as a good one, or as a bad one."""
    unknown = np.full(5, -1, dtype=np.int8)
    blind = some_columns(
        positive_predicted=unknown,
        wrong=unknown,
        label_value=None,
        cost=None,
        score=np.full(5, NAN),
    )

    for signal in SIGNALS:
        if signal not in ("error_rate", "latency_ms", "prediction", "label_coverage"):
            assert (0, 0) == tuple(len(column) for column in select(signal, blind))


def test_limits_follow_their_losses() -> None:
    """If this breaks, accuracy above 90 % is read as an error rate up to 90 %."""
    assert [0.1, 0.05, 300.0] == pytest.approx(
        [limit_of("accuracy", 0.9), limit_of("error_rate", 0.05), limit_of("latency_ms", 300.0)]
    )


@pytest.mark.parametrize("name", ["traffic_share", "prometheus", "feature:", "acuracy"])
def test_a_signal_that_no_row_carries_is_refused(name: str) -> None:
    """If this breaks, a typing error watches nothing and says so nowhere."""
    with pytest.raises(ValueError, match=r"no signal .*known: error_rate"):
        signal_of(name)


def test_the_examples_run() -> None:
    """If this breaks, the documents show what is not so."""
    assert 0 == doctest.testmod(losses).failed
