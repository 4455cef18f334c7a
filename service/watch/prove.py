"""How far the proof is that a canary may be promoted. Pure.

With a `promote` block each signal that has a limit and is a share of bad rows gets a gate besides:
the canary's share is proven to be below 1 + margin times the concurrent stable's (`detect.py` makes
them). `pass` waits for all gates. A gate takes no part of alpha and leads to no action, whichever
way it goes; what it says is an entry of the verdict with the action `promote`.

Labels count when they have had their time, and only where almost all have come, in both arms: one
that is missing only where the canary was wrong would look like proof.
"""

from __future__ import annotations

from schemas.policies import NEEDS_LABELS
from schemas.verdicts import GuardVerdict
from service.watch.detect import Guard
from service.watch.state import Model, Version

SAYS_SOMETHING = 0.2
"""Part of the evidence that must be there before a time is told."""

PROVE_COVERAGE = 0.9
"""Share of predictions that need a label at their horizon, of canary and of stable."""


def gate_entry(guard: Guard, model: Model, version: Version) -> GuardVerdict:
    """Turn one gate's reading into its part of the verdict: `pass` once it is won."""
    reading, interval, signal = (
        guard.detector.reading(),
        guard.detector.interval(),
        guard.spec.signal,
    )
    coverage = _coverage(model, version) if signal in NEEDS_LABELS else None
    covered = coverage is None or coverage >= PROVE_COVERAGE
    won = reading.fired_at is not None and covered
    return GuardVerdict(
        name=guard.name, signal=signal, verdict="pass" if won else "inconclusive",
        estimate=interval.estimate, lower=interval.lower, upper=interval.upper,
        stable_estimate=interval.stable_estimate, evidence=reading.statistic,
        threshold=reading.threshold, n=reading.n, coverage=coverage, action="promote",
        limit=guard.spec.max_increase, reason="within_objectives" if won else "promotion_pending",
    )  # fmt: skip


def pending_text(name: str, gates: list[GuardVerdict], model: Model) -> str | None:
    """Say which gates are open; None when all are won."""
    unproven = [_how_far(gate, model) for gate in gates if gate.verdict != "pass"]
    if not unproven:
        return None
    return f"{name} keeps every limit; not proven fit for promotion yet: {'; '.join(unproven)}."


def _how_far(gate: GuardVerdict, model: Model) -> str:
    margin = f"{gate.signal} at most {gate.limit or 0:.0%} above stable's"
    if gate.coverage is not None and gate.coverage < PROVE_COVERAGE:
        return (f"{margin} (labels of {gate.coverage:.0%} of predictions, "
                f"{PROVE_COVERAGE:.0%} needed)")  # fmt: skip
    if not gate.evidence and (model.plan is None or model.plan.inferred):
        return f"{margin} (no rollout event tells the canary's share of traffic)"
    if not gate.estimate and not gate.stable_estimate:
        return f"{margin} (no bad prediction to compare yet)"
    proof = f"{gate.evidence or 0:.1f} of {gate.threshold or 0:.1f} nats"
    left_ms = _left_ms(gate, model)
    return f"{margin} ({proof})" if left_ms is None else f"{margin} ({proof}, {about(left_ms)})"


def _left_ms(gate: GuardVerdict, model: Model) -> int | None:
    """Event time until the proof is given at the pace so far; None: too early to say.

    The evidence for a canary that is as good as its stable grows in proportion to bad rows.
    """
    plan, evidence, threshold = model.plan, gate.evidence or 0.0, gate.threshold or 0.0
    if plan is None or not plan.steps or evidence < SAYS_SOMETHING * threshold:
        return None
    elapsed_ms = model.now_ms - plan.steps[0][0]
    return max(0, round(elapsed_ms * (threshold - evidence) / evidence))


def about(left_ms: int) -> str:
    """How much longer, in words.

    >>> about(20_000), about(5_400_000), about(20 * 3_600_000)
    ('about a minute more', 'about 90 min more', 'about 20 h more')
    """
    minutes = left_ms / 60_000
    if minutes < 1.5:
        return "about a minute more"
    return f"about {minutes:.0f} min more" if minutes < 180 else f"about {minutes / 60:.0f} h more"


def _coverage(model: Model, version: Version) -> float:
    """Share of matured predictions that have a label, in the arm that has fewer."""
    stable = model.versions.get(model.plan.stable) if model.plan is not None else None
    shares = [0.0 if arm is None else _labelled(arm) for arm in (version, stable)]
    return min(shares)


def _labelled(arm: Version) -> float:
    total = arm.matured + arm.unlabelled
    return arm.matured / total if total else 0.0
