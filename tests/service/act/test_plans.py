"""Shares: what counts as asked for, as moved by others, as reverted."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.commands import Expected
from service.act.plans import (
    Current,
    Plan,
    compare,
    differs,
    fault_of_expected,
    fault_of_ready,
    wanted_shares,
)
from tests.builders import a_command


def now(**shares: float) -> Current:
    return Current(shares=shares)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, {"v41": 100.0}),
        ({"action": "promote", "from_version": "v41", "to_version": "v42"}, {"v42": 100.0}),
        ({"action": "shift", "weight": 0.25}, {"v42": 25.0, "v41": 75.0}),
        ({"action": "shift", "weight": 0.0}, {"v41": 100.0}),
        ({"action": "shift", "weight": 1.0}, {"v42": 100.0}),
        ({"action": "hold"}, {}),
    ],
)
def test_each_verb_wants_an_absolute_state(
    changes: dict[str, Any], expected: dict[str, float]
) -> None:
    """If this breaks, a repeated command shrinks a version twice."""
    assert expected == wanted_shares(a_command(**changes))


@pytest.mark.parametrize(
    ("current", "expected"),
    [
        (now(v41=100), ""),
        (now(v41=100, v42=0), ""),
        (now(v41=99.5, v42=0.5), "v41 has 99.5 %, not 100 %|v42 has 0.5 %, not 0 %"),
        (now(v42=100), "v41 has 0 %, not 100 %"),
        (now(), "v41 has 0 %, not 100 %"),
        (Current(shares={"v41": 100.0}, lingering=["v42"]), "v42 still gets old sessions"),
    ],
)
def test_nothing_must_be_nothing(current: Current, expected: str) -> None:
    """If this breaks, a bad version that keeps half a percent counts as rolled back."""
    assert differs(current, {"v41": 100.0}) in expected.split("|")


def test_a_read_back_is_one_of_four() -> None:
    """If this breaks, a reverted rollback is waited for in vain, or half of one counts."""
    plan = Plan(wanted={"v41": 100.0}, before={"v41": 90.0, "v42": 10.0})
    moving = Current(shares={"v41": 100.0}, transition=True)

    actual = [
        compare(seen, plan)
        for seen in (now(v41=100), now(v41=90, v42=10), now(v41=95, v42=5), moving)
    ]

    assert ["settled", "reverted", "mixed", "pending"] == actual


@pytest.mark.parametrize(
    ("current", "expected", "fits"),
    [
        (now(v41=90, v42=10), Expected("v41", "v42", 0.1), True),
        (now(v41=50, v42=50), Expected("v41", "v42", 0.1), True),
        (now(v41=100), Expected("v41", "v42", 0.1), False),
        (now(v41=80, v42=10, v43=10), Expected("v41", "v42", 0.1), False),
        (now(v42=100), Expected("v41", "v42", 0.1), False),
        (now(v42=100), Expected("v42", None, None), True),
        (now(v41=100), Expected("v41", "v42", 0.0), True),
        (now(v41=90, v42=10), Expected("v41", "v42", 0.0), True),
        (now(v42=100), Expected("v41", "v42", 1.0), True),
        (now(), Expected("v41", "v42", 0.1), False),
        (Current(shares=None), Expected("v41", "v42", 0.1), True),
    ],
)
def test_who_serves_must_be_who_was_expected(
    current: Current, expected: Expected, fits: bool
) -> None:
    """If this breaks, rollbackd overwrites what a person or a pipeline has just done (H2)."""
    refusal = fault_of_expected(current, a_command(expected=expected))

    assert fits == (refusal is None)
    assert refusal is None or ("superseded", "H2") == (refusal.status, refusal.rule)


@given(st.floats(0, 100), st.floats(0, 1))
def test_a_shift_also_expects_the_share(share: float, weight: float) -> None:
    """If this breaks, a shift from a stale picture raises a version that was just shrunk."""
    command = a_command(action="shift", weight=0.5, expected=Expected("v41", "v42", weight))
    current = now(v41=100 - share, v42=share)

    if abs(share - 100 * weight) > 1.001:
        assert None is not fault_of_expected(current, command)
    elif 1 < share < 99 and 0 < weight < 1 and abs(share - 100 * weight) < 0.999:
        assert None is fault_of_expected(current, command)


def test_only_a_ready_version_gets_traffic() -> None:
    """If this breaks, a rollback goes to a version that was deleted or is down."""
    ready = Current(shares={}, ready={"v41": True, "v42": False})
    wants = ({"v41": 100.0}, {"v42": 100.0}, {"v40": 100.0}, {"v41": 100.0, "v42": 0.0})

    actual = [fault_of_ready(ready, wanted) for wanted in wants]

    assert [None, "not_ready", "no_target", None] == [r and r.reason for r in actual]
