"""Policies: defaults as promised, every fault with its path, and who shares the error budget."""

from __future__ import annotations

import math
from typing import Any

import pytest

from schemas.durations import Duration
from schemas.policies import GuardSpec, Policy, Promote, faults_of_policies, policy_for

ERRORS: dict[str, Any] = {"signal": "error_rate", "max": 0.05}


def a_guard(**changes: Any) -> GuardSpec:
    """At most one failed request in twenty."""
    return GuardSpec(**(ERRORS | changes))


def a_policy(*guards: GuardSpec, **changes: Any) -> Policy:
    """A policy of one model."""
    given: dict[str, Any] = {"model": "credit-risk", "guards": list(guards or [a_guard()])}
    return Policy(**(given | changes))


def faults(policy: Policy) -> list[str]:
    return list(faults_of_policies([policy], {"prod"}))


def test_the_defaults_are_those_of_the_contract() -> None:
    """If this breaks, a short policy means something else than the manual says."""
    policy, guard = Policy(model="m"), GuardSpec(signal="error_rate")

    assert ("observe", None, "matured", 0.01) == (
        policy.mode, policy.adapter, policy.labels, policy.alpha,
    )  # fmt: skip
    assert [7 * 86_400, 6 * 3600, 300, 1800, 86_400] == [
        float(policy.horizon), policy.cooldown, policy.max_decision_age, policy.unit_window,
        Promote().bake,
    ]  # fmt: skip
    assert ("prediction", "declared") == (policy.votes, policy.roles)
    assert ([0.05, 0.25, 0.5, 1.0], 0.25) == (Promote().steps, Promote().margin)
    assert "rollback" == guard.acts
    assert "alert" == GuardSpec(signal="score", detector="adwin").acts
    assert "alert" == GuardSpec(signal="prometheus", query="up", max=1).acts
    assert "hold" == GuardSpec(signal="score", detector="adwin", action="hold").acts


def test_a_sound_policy_has_no_fault() -> None:
    """If this breaks, the example of the manual does not start."""
    policy = a_policy(
        a_guard(), a_guard(signal="latency_ms", quantile=0.95, max=300),
        GuardSpec(signal="accuracy", min=0.9), GuardSpec(signal="recall", min=0.5),
        GuardSpec(signal="false_positive_rate", max_increase=0.15),
        GuardSpec(signal="latency_ms", quantile=0.5, max_increase=0.1),
        GuardSpec(signal="score", detector="adwin"), GuardSpec(signal="feature:age", detector="x"),
        GuardSpec(signal="brier", max=0.2), GuardSpec(signal="cost", max=5, cap=100),
        GuardSpec(signal="absolute_error", max=5, cap=100),
        GuardSpec(signal="traffic_share", max=0.3), GuardSpec(signal="label_coverage", min=0.8),
        GuardSpec(signal="prometheus", query="sum(up)", max=0.3),
        positive=1, adapter="prod", promote=Promote(),
    )  # fmt: skip

    assert [] == faults(policy)


POLICY_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"model": ""}, "model: found an empty name"),
    ({"adapter": "pord"}, "adapter: found 'pord', expected one of adapters (prod)"),
    ({"alpha": 0}, "alpha: found 0"), ({"alpha": 0.5}, "alpha: found 0.5"),
    ({"alpha": math.nan}, "alpha: found nan"),
    ({"min_coverage": 1.01}, "min_coverage: found 1.01"),
    *(({name: Duration(0)}, f"{name}: found 0 s")
      for name in ("horizon", "unit_window", "max_decision_age", "max_silence", "verify_within",
                   "expires_after")),
    ({"retries": -1}, "retries: found -1"), ({"min_rows": 0}, "min_rows: found 0"),
    ({"votes": "unit", "labels": "optimistic",
      "guards": [GuardSpec(signal="error", max=0.1)]}, "labels: found 'optimistic'"),
    ({"votes": "unit", "guards": [GuardSpec(signal="latency_ms", quantile=0.9, max_increase=0.1)]},
     "guards[0].max_increase: found it with a quantile"),
    ({"promote": Promote(steps=[])}, "promote.steps: found []"),
    ({"promote": Promote(steps=[0.5, 0.25])}, "promote.steps: found [0.5, 0.25]"),
    ({"promote": Promote(steps=[0.5, 0.5])}, "promote.steps: found"),
    ({"promote": Promote(steps=[0.5, 1.5])}, "promote.steps: found"),
    ({"promote": Promote(margin=0)}, "promote.margin: found 0"),
    ({"promote": Promote(margin=math.nan)}, "promote.margin: found nan"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "line"), POLICY_FAULTS)
def test_each_fault_of_a_policy_is_found_once(changes: dict[str, Any], line: str) -> None:
    """If this breaks, a policy that cannot work starts, or says its fault twice."""
    (found,) = faults(a_policy(**changes))

    assert found.startswith(f"policies[0].{line}")
    assert "expected" in found


GUARD_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"signal": "errors", "max": 1}, ".signal: found 'errors'"),
    ({"signal": "feature:", "max": 1}, ".signal: found 'feature:'"),
    ({"signal": "error_rate"}, ": found no limit, expected exactly one of"),
    (ERRORS | {"max_increase": 0.1}, ": found max and max_increase"),
    (ERRORS | {"detector": "adwin"}, ".detector: found a detector and max"),
    (ERRORS | {"sampled_at_least": 0.1}, ".sampled_at_least: found it on 'error_rate max=0.05'"),
    ({"signal": "error", "max": 0.1, "sampled_at_least": 0}, ".sampled_at_least: found 0"),
    (ERRORS | {"segment": ""}, ".segment: found an empty name"),
    (ERRORS | {"segment": "region", "slices": 0}, ".slices: found 0"),
    (ERRORS | {"segment": "region", "slices": 257}, ".slices: found 257"),
    ({"signal": "traffic_share", "max": 0.5, "segment": "region"},
     ".segment: found it on 'traffic_share'"),
    (ERRORS | {"query": "up"}, ".query: found one on 'error_rate'"),
    (ERRORS | {"quantile": 0.9}, ".quantile: found it on 'error_rate', which is a rate"),
    (ERRORS | {"cap": 1}, ".cap: found it on 'error_rate'"),
    ({"signal": "error_rate", "max": 0}, ".max: found 0, expected a share in (0, 1)"),
    ({"signal": "error_rate", "max": 5}, ".max: found 5, expected a share in (0, 1)"),
    ({"signal": "error_rate", "min": 0.5}, ".min: found it on 'error_rate', where less is better"),
    ({"signal": "error_rate", "max": math.inf}, ".max: found inf"),
    ({"signal": "error_rate", "max_increase": 0}, ".max_increase: found 0"),
    ({"signal": "error_rate", "max_increase": math.nan}, ".max_increase: found nan"),
    ({"signal": "accuracy", "max": 0.9}, ".max: found it on 'accuracy', where more is better"),
    ({"signal": "accuracy", "max_increase": 0.1}, ".max_increase: found it on 'accuracy'"),
    ({"signal": "recall", "min": 0.9}, ".signal: found 'recall', expected positive"),
    ({"signal": "traffic_share", "max_increase": 0.1}, ".max_increase: found it on 'traffic"),
    ({"signal": "latency_ms", "max": 300}, ".quantile: found none on 'latency_ms'"),
    ({"signal": "latency_ms", "quantile": 1, "max": 300}, ".quantile: found 1"),
    ({"signal": "latency_ms", "quantile": 0.5, "min": 3}, ".min: found it on 'latency_ms'"),
    ({"signal": "latency_ms", "quantile": 0.5, "max": math.nan}, ".max: found nan"),
    ({"signal": "cost", "max": 3}, ".cap: found none on 'cost'"),
    ({"signal": "absolute_error", "max": 3}, ".cap: found none on 'absolute_error'"),
    ({"signal": "cost", "max": 3, "cap": 3}, ".max: found 3, expected above 0 and below the cap 3"),
    ({"signal": "cost", "max": 3, "cap": -1}, ".cap: found -1"),
    ({"signal": "cost", "max_increase": 0.1, "cap": 9}, ".max_increase: found it on 'cost'"),
    ({"signal": "cost", "quantile": 0.5, "max": 3, "cap": 9}, ".quantile: found it on 'cost'"),
    ({"signal": "cost", "detector": "adwin", "cap": 9}, ".cap: found it on 'cost'"),
    ({"signal": "prometheus", "max": 1}, ".query: found none"),
    ({"signal": "prometheus", "query": "up"}, ": found no limit"),
    ({"signal": "prometheus", "query": "a or vector(0)", "max": 1}, ".query: found vector(…)"),
    ({"signal": "prometheus", "query": "up", "detector": "adwin"}, ".detector: found 'adwin'"),
    ({"signal": "prometheus", "query": "up", "max": 1, "quantile": 0.5}, ".quantile: found it"),
    ({"signal": "prometheus", "query": "up", "max_increase": 1}, ".max_increase: found it"),
    ({"signal": "prometheus", "query": "up", "max": 1, "every": Duration(0.9)}, ".every: found"),
]  # fmt: skip


@pytest.mark.parametrize(("fields", "line"), GUARD_FAULTS)
def test_each_fault_of_a_guard_is_found_once(fields: dict[str, Any], line: str) -> None:
    """If this breaks, a guard that watches nothing looks like one that watches."""
    (found,) = faults(a_policy(a_guard(), GuardSpec(**fields)))

    assert found.startswith(f"policies[0].guards[1]{line}")
    assert "expected" in found or "cannot watch apart yet" in found


@pytest.mark.parametrize("name", ["credit-*", "credit-?", "credit-[ab]"])
def test_a_query_under_a_glob_is_a_fault(name: str) -> None:
    """If this breaks, one model's number is taken for every model's."""
    (found,) = faults(a_policy(GuardSpec(signal="prometheus", query="up", max=1), model=name))

    assert f"guards[0].signal: found 'prometheus' under the glob {name!r}" in found


def test_two_guards_of_one_name_are_a_fault_and_names_help() -> None:
    """If this breaks, one of two guards is forgotten in silence."""
    (found,) = faults(a_policy(a_guard(), a_guard()))

    assert found.startswith("policies[0].guards[1].name: found a second 'error_rate max=0.05'")
    assert [] == faults(a_policy(a_guard(), a_guard(name="again")))


def test_faults_of_all_policies_are_found_at_once() -> None:
    """If this breaks, a person mends one fault per start."""
    policies = [a_policy(alpha=0, min_coverage=2), a_policy(a_guard(max=7), model="")]

    paths = [line.split(":")[0] for line in faults_of_policies(policies, set())]

    assert [
        "policies[0].alpha", "policies[0].min_coverage", "policies[1].model",
        "policies[1].guards[0].max",
    ] == paths  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "label"),
    [
        (ERRORS, "error_rate max=0.05"), (ERRORS | {"name": "errors"}, "errors"),
        ({"signal": "latency_ms", "quantile": 0.999, "max": 300}, "latency_ms p99.9 max=300"),
        ({"signal": "score", "detector": "adwin"}, "score adwin"),
        ({"signal": "accuracy", "min": 0.9}, "accuracy min=0.9"),
        ({"signal": "error", "max_increase": 0.15}, "error max_increase=0.15"),
        (ERRORS | {"segment": "region"}, "error_rate max=0.05 [region]"),
    ],
)  # fmt: skip
def test_a_guard_is_called_by_signal_and_limit(fields: dict[str, Any], label: str) -> None:
    """If this breaks, a guard loses its evidence at an upgrade: it is kept under this name."""
    assert label == GuardSpec(**fields).label


def test_only_guards_that_can_act_share_the_error_budget() -> None:
    """If this breaks, a drift warning makes every real guard slower."""
    acting = a_policy(a_guard(), a_guard(action="hold"), a_guard(action="alert"),
                      GuardSpec(signal="score", detector="adwin", action="rollback"))  # fmt: skip

    assert 0.005 == acting.guard_alpha()
    assert 0.01 == a_policy(a_guard(action="alert")).guard_alpha()


def test_the_first_policy_that_matches_holds() -> None:
    """If this breaks, a model is judged by the catch-all instead of by its own policy."""
    policies = [a_policy(model=name) for name in ("a", "a*", "[x]", "?")]

    found = [policy_for(policies, name) for name in ("a", "ab", "[x]", "x", "b", "zz", "A")]

    assert ["a", "a*", "[x]", "[x]", "?", None, "?"] == [getattr(p, "model", None) for p in found]


def test_brier_is_capped_at_one_by_itself() -> None:
    """If this breaks, a limit on the Brier score needs a number that nobody knows."""
    assert 1.0 == GuardSpec(signal="brier", max=0.2).highest
    assert 0.5 == GuardSpec(signal="brier", max=0.2, cap=0.5).highest
    assert GuardSpec(signal="cost", max=0.2).highest is None
