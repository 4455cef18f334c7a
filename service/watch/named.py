"""Detectors that a policy names: their parameters, whether they can serve, and what to know.

Why. A name in a policy is a wish. Whether such a detector exists, takes those parameters, fits the
signal and may act is told by `rollbackd check`, before the first row arrives.

None of them bounds false alarms over a life. So one that acts is always noted; one whose alarms say
little about harm (the mark's `trigger`) is noted with what is wrong with it; and one that looks at
no loss at all (`hears`) is refused any action but an alert.

Refused here: limits (`detect.py`), which have detectors of their own.
"""

from __future__ import annotations

from typing import Any

from schemas.plugins import PluginFault, Registry
from schemas.policies import NEEDS_MEAN_GUARD, RATES, GuardSpec, Policy

ADWIN_DELTA = 0.002
"""What ADWIN's looks at all features of a policy share, unless the policy gives a delta."""

VERBS = {"rollback": "roll back", "hold": "hold"}


def params_of(spec: GuardSpec, policy: Policy, registry: Registry) -> dict[str, Any]:
    """Give the parameters of a named detector: the policy's, and ours where it says nothing."""
    kind = spec.detector or ""
    given: dict[str, Any] = {}
    if "side" in registry.parameters(kind):
        given["side"] = worse_side(spec)
    if kind == "adwin" and spec.signal.startswith("feature:"):
        given["delta"] = ADWIN_DELTA / max(1, len(_features(policy)))
    return given | spec.params


def worse_side(spec: GuardSpec) -> str:
    """Losses have a worse side; scores and features have none, so any move is worth a warning."""
    return "up" if spec.signal in RATES | NEEDS_MEAN_GUARD | {"latency_ms"} else "both"


def faults_of_detectors(policies: list[Policy], registry: Registry) -> list[str]:
    """Find detectors by name that cannot do what a policy wants of them, a line each.

    Without this an unknown one is found when the first row arrives.
    """
    lines = []
    for i, policy in enumerate(policies):
        for j, spec in enumerate(policy.guards):
            if spec.detector is not None and (fault := _unfit(spec, policy, registry)) is not None:
                lines.append(f"policies[{i}].guards[{j}].detector: {fault}")
    return lines


def _unfit(spec: GuardSpec, policy: Policy, registry: Registry) -> str | None:
    kind = spec.detector or ""
    try:
        registry.make(kind, **params_of(spec, policy, registry))
    except (PluginFault, ValueError, TypeError) as fault:
        return str(fault)
    facts = registry.facts(kind)
    if facts.get("labels") == "arrive":
        return f"found {kind!r}, which labels: optimistic brings by itself; expected a limit"
    if facts["arms"] != "single":
        return f"found {kind!r}, which compares two versions; expected max_increase, or promote"
    if facts.get("losses") == "binary" and spec.signal not in RATES:
        return f"found {kind!r} on {spec.signal!r}, expected a signal that is a rate"
    if facts.get("hears") == "nothing" and spec.acts != "alert":
        return f"found {kind!r} with action {spec.acts}, expected alert: it is for benchmarks only"
    return None


def notes_of_detectors(policies: list[Policy], registry: Registry) -> list[str]:
    """Tell what is allowed of detectors by name, but may surprise, a line each.

    The policies are without faults.
    """
    lines = []
    for i, policy in enumerate(policies):
        for j, spec in enumerate(policy.guards):
            if spec.detector is not None and (note := _note(spec, policy, registry)) is not None:
                lines.append(f"policies[{i}].guards[{j}]: {note}")
        features = _features(policy)
        if len(features) > 1:
            lines.append(
                f"policies[{i}]: adwin on {len(features)} features has delta "
                f"{ADWIN_DELTA / len(features):.4g} each, {ADWIN_DELTA:g} shared, unless given"
            )
    return lines


def _note(spec: GuardSpec, policy: Policy, registry: Registry) -> str | None:
    kind = spec.detector or ""
    detector = registry.make(kind, **params_of(spec, policy, registry))
    beware = detector.explain().get("beware")
    if spec.acts == "alert":
        return f"{spec.label}: {beware}" if beware else None
    can = f"{spec.label} can {VERBS[spec.acts]} without a false-alarm guarantee"
    if registry.facts(kind).get("trigger") != "advised_against":
        return can
    return f"{can}, which is advised against: {beware or 'its alarms say little about harm'}"


def _features(policy: Policy) -> set[str]:
    """The features that ADWIN watches for a policy."""
    return {
        guard.signal
        for guard in policy.guards
        if guard.detector == "adwin" and guard.signal.startswith("feature:")
    }
