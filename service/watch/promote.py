"""A canary's way up: which step is next, whether it is earned, and how its record begins. Pure.

Why. A version that is provably no worse should get more traffic without anybody watching a page,
and one that is only "not alarmed yet" should not.

How. A step is due when the canary's verdict is `pass` (every limit kept and every promotion test
won, which includes labels for .9 of both arms), it has had its present weight for `bake` of event
time (one cycle of traffic, so that no hour of the day is left unseen), and was really served there.
The last step is the promotion: the canary becomes stable. With `proof: final` the steps before it
need no breach and no doubt, but not the proof; `docs/decisions/0025`.

A promotion is recorded under an id like an incident's, because people look for what moved traffic
in one place; its record begins with `proven`, which carries the evidence, before any command. It
is no trouble: nobody is paged by it unless traffic ends up neither here nor there.

Refused here: sending. That is `order.act`, after the rules have been asked.
"""

from __future__ import annotations

from schemas import ids
from schemas.facts import Progress
from schemas.policies import Policy, Promote
from schemas.verdicts import GuardVerdict, Verdict
from service.watch.state import Case, Model, Plan

UNPROVEN_BUT_WELL = ("too_few", "promotion_pending")
"""Reasons for `inconclusive` with which an early step may be taken under `proof: final`."""


def next_weight(weight: float, steps: list[float]) -> float:
    """The share after this one; 1: the canary becomes stable.

    >>> next_weight(0.05, [0.05, 0.25, 1.0]), next_weight(0.1, [0.05, 0.25]), next_weight(0.5, [])
    (0.25, 0.25, 1.0)
    """
    return next((step for step in steps if step > weight + 1e-9), 1.0)


def waits_ms(model: Model, promote: Promote) -> int:
    """Event time until the present step has been held long enough."""
    plan = model.plan
    since_ms = plan.steps[-1][0] if plan is not None and plan.steps else model.now_ms
    return max(0, since_ms + promote.bake.ms - model.now_ms)


def earned(model: Model, verdict: Verdict, policy: Policy) -> bool:
    """Whether the canary may have the next step now."""
    plan, promote = model.plan, policy.promote
    if promote is None or plan is None or plan.weight is None or not plan.steps or plan.others:
        return False  # of several canaries, which one is to climb is a person's choice
    canary = model.versions.get(verdict.version)
    if canary is None or canary.in_plan < policy.min_rows or waits_ms(model, promote):
        return False
    if verdict.verdict == "pass":
        return True
    early = promote.proof == "final" and next_weight(plan.weight, promote.steps) < 1
    return early and verdict.verdict == "inconclusive" and verdict.reason in UNPROVEN_BUT_WELL


def consider(model: Model, verdict: Verdict, policy: Policy) -> tuple[Case | None, list[Progress]]:
    """Open the record of the next step, or see whether the open one is still earned.

    Returns
    -------
    case : Case or None
        Of the step that is under way; None when there is none.
    said : list of Progress
        The record's beginning, when it is new.
    """
    plan, promote = model.plan, policy.promote
    if promote is None or plan is None or verdict.version != plan.canary or not plan.steps:
        return None, []
    incident = ids.derive("promotion", model.name, verdict.version, plan.rollout_id)
    case, began_ms = model.cases.get(incident), plan.steps[-1][0]
    well = earned(model, verdict, policy)
    if case is not None and case.opened_ms == began_ms:
        case.proven = well
        return (None if case.closed else case), []
    if case is not None and not case.closed and case.hop > case.base:
        return case, []  # traffic has not shown yet that it followed
    if not well:
        return None, []
    made = _case(model, plan, promote, incident, case)
    model.cases.pop(incident, None)
    model.cases[incident] = made
    return made, [_record(model, made, verdict)]


def _case(
    model: Model, plan: Plan, promote: Promote, incident: str, before: Case | None
) -> Case:  # fmt: skip
    weight = next_weight(plan.weight or 0.0, promote.steps)
    base = before.hop if before is not None else 0
    canary = plan.canary or ""
    held = span(model.now_ms - plan.steps[-1][0])
    goal = f"{weight:.0%} of traffic" if weight < 1 else "promotion to stable"
    return Case(
        incident, canary, plan.stable, plan.rollout_id, plan.steps[-1][0], kind="promotion",
        wanted="shift" if weight < 1 else "promote", weight=weight, weight_was=plan.weight or 0.0,
        proven=True, hop=base, base=base,
        text=f"{canary} has earned {goal}, after {held} at {plan.weight or 0:.0%}.",
    )  # fmt: skip


def _record(model: Model, case: Case, verdict: Verdict) -> Progress:
    shown = {"version": case.version, "stable": case.stable, "weight": case.weight,
             "guards": [_told(guard) for guard in verdict.guards]}  # fmt: skip
    return Progress(
        progress_id=ids.derive("progress", case.incident_id, "proven", case.base + 1),
        incident_id=case.incident_id, model=model.name, kind="proven", reason=case.wanted,
        text=f"{case.text} {verdict.text}", at=model.now_ms, evidence=shown,
    )  # fmt: skip


def _told(guard: GuardVerdict) -> dict[str, object]:
    return {"name": guard.name, "signal": guard.signal, "verdict": guard.verdict,
            "estimate": guard.estimate, "stable_estimate": guard.stable_estimate,
            "evidence": guard.evidence, "threshold": guard.threshold, "n": guard.n,
            "coverage": guard.coverage, "limit": guard.limit}  # fmt: skip


def settle(model: Model) -> None:
    """Close the records that a change of the traffic plan has overtaken."""
    plan = model.plan
    for case in model.cases.values():
        if case.kind != "promotion" or case.closed or plan is None:
            continue
        gone = case.version not in (plan.stable, plan.canary)
        moved = not plan.steps or plan.steps[-1][0] != case.opened_ms
        by_others = plan.source != "rollbackd" and case.receipt is None
        if gone or (moved and (by_others or case.hop == case.base)):
            case.closed, case.closed_ms = "superseded", model.now_ms


def outlook(model: Model, policy: Policy) -> str:
    """What comes next for a canary that passes, as a sentence; empty without a plan for it."""
    plan, promote = model.plan, policy.promote
    if promote is None or plan is None or plan.weight is None or not plan.steps:
        return ""
    if plan.others:
        return "Nothing is promoted while there are several canaries."
    weight = next_weight(plan.weight, promote.steps)
    goal = f"Next is {weight:.0%} of traffic" if weight < 1 else "Next is promotion to stable"
    left_ms = waits_ms(model, promote)
    return f"{goal}, in {span(left_ms)}." if left_ms else f"{goal}; it is due."


def span(span_ms: int) -> str:
    """A length of time for people.

    >>> span(45_000), span(5_400_000), span(200_000_000)
    ('45 s', '90 min', '56 h')
    """
    seconds = span_ms / 1000
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 3 * 3600 else f"{seconds / 3600:.0f} h"
