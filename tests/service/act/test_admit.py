"""The rules that a command must pass: each fails here when it is removed."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from schemas.commands import Command, Expected
from service.act.admit import Allow, Live, Refuse, admit, fault_of_command, standing
from tests.builders import NOW, a_command

ALL = frozenset({"rollback", "shift", "hold", "promote"})


def live(**changes: Any) -> Live:
    return Live(NOW + 1000, 3, None, ALL)._replace(**changes)  # type: ignore[arg-type]


def rule(command: Command, now: Live) -> str:
    answer = admit(command, now)
    return "" if isinstance(answer, Allow) else f"{answer.rule} {answer.reason} {answer.status}"


def test_a_good_command_is_admitted() -> None:
    """If this breaks, nothing is ever rolled back."""
    assert Allow() == admit(a_command(), live())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"from_version": ""}, "H13 no_target refused"),
        ({"to_version": ""}, "H13 no_target refused"),
        ({"to_version": "*"}, "H13 no_target refused"),
        ({"to_version": "v4*"}, "H13 no_target refused"),
        ({"to_version": "v41\nset weight x 0"}, "H13 no_target refused"),
        ({"to_version": "v" * 129}, "H13 no_target refused"),
        ({"to_version": "v42"}, "H13 no_target refused"),
        ({"action": "shift"}, "H13 no_weight refused"),
        ({"action": "shift", "weight": 1.5}, "H13 no_weight refused"),
        ({"action": "shift", "weight": float("nan")}, "H13 no_weight refused"),
        ({"expected": Expected(None, None, None)}, "H2 no_expectation refused"),
        ({"mode": "observe"}, "H11 observe refused"),
        ({"mode": "propose"}, "H11 propose refused"),
        ({"action": "promote", "mode": "propose"}, "H11 propose refused"),
        ({"fence": 2}, "H4 fenced refused"),
        ({"expires_at": NOW + 1000}, "H5 expired expired"),
    ],
)
def test_each_rule_refuses_what_it_is_for(changes: dict[str, Any], expected: str) -> None:
    """If this breaks, a wildcard, a late or an unapproved command reaches a platform."""
    assert expected == rule(a_command(**changes), live())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"stop": "ann holds credit-risk: migration"}, "H10 hold refused"),
        ({"can": None}, "H13 unknown_adapter refused"),
        ({"can": frozenset({"shift"})}, "H13 unknown_verb refused"),
        ({"fence": 4}, "H4 fenced refused"),
    ],
)
def test_what_is_true_now_counts(changes: dict[str, Any], expected: str) -> None:
    """If this breaks, the kill switch or a new owner does not stop an old command."""
    assert expected == rule(a_command(), live(**changes))


@given(
    actor=st.sampled_from(["rollbackd", "ann"]),
    mode=st.sampled_from(["observe", "propose", "enforce"]),
    stop=st.sampled_from([None, "hold"]),
    fence=st.integers(2, 4),
    late_ms=st.integers(-2, 2),
)
def test_people_pass_holds_and_modes_but_never_fences_and_expiry(
    actor: str, mode: Any, stop: str | None, fence: int, late_ms: int
) -> None:
    """If this breaks, a person cannot act during a hold, or an old order of theirs is done."""
    command = a_command(actor=actor, mode=mode, fence=fence, expires_at=NOW + 1000 - late_ms)
    allowed = fence >= 3 and late_ms < 0
    if actor == "rollbackd":
        allowed = allowed and stop is None and mode == "enforce"

    assert allowed == isinstance(admit(command, live(stop=stop)), Allow)


@given(st.builds(lambda **c: replace(a_command(), **c), fence=st.integers(0, 5),
                 expires_at=st.integers(NOW, NOW + 2000)))  # fmt: skip
def test_the_last_questions_are_among_the_first(command: Command) -> None:
    """If this breaks, what is refused right before a write was let in without being asked."""
    last = standing(command, live())

    assert last is None or last == admit(command, live())


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"command_id": ""}, "command_id"),
        ({"command_id": "a.b"}, "command_id"),
        ({"command_id": "../x"}, "command_id"),
        ({"incident_id": "a\x00"}, "incident_id"),
        ({"model": ""}, "model"),
        ({"model": "*"}, "model"),
        ({"model": "credit-*"}, "model"),
        ({"model": "a\nb"}, "model"),
        ({"model": "churn"}, "key"),
    ],
)
def test_what_is_no_order_about_one_model_is_no_command(
    changes: dict[str, Any], fault: str
) -> None:
    """If this breaks, one message can mean several models, or a path."""
    assert fault in (fault_of_command(a_command(**changes), b"credit-risk") or "")


def test_a_refusal_says_why_in_one_sentence() -> None:
    """If this breaks, a person sees `refused` and does not know what to do."""
    answer = admit(a_command(adapter="prdo"), live(can=None))

    assert isinstance(answer, Refuse)
    assert "there is no adapter 'prdo' here; see `adapters` in rollbackd.yaml" == answer.text
