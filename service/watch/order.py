"""From a verdict to what is said and ordered: breaches, cases, commands, proposals, escalation.

Pure: facts that only a shell can know (wall time, holds) come in as `Facts`. Everything said has a
derived id, so saying it again after a crash changes nothing downstream. A breach is always said
before the command that it explains.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from schemas import ids
from schemas.commands import Action, Command, Expected, Mode, Order
from schemas.facts import Breach, Progress, ProgressKind, Receipt
from schemas.policies import Policy
from schemas.verdicts import GuardVerdict, Verdict
from service.harm import Refuse
from service.watch import budgets, ledger, respond, verify
from service.watch.decide import Judged, sentence_of
from service.watch.promote import span
from service.watch.rules import Facts, refusal
from service.watch.state import Case, Model, Plan
from service.watch.weights import canaries_of, weight_of

Said = Verdict | Breach | Command | Progress

STRENGTH = {"": 0, "alert": 1, "hold": 2, "rollback": 3}
ACTING = ("rollback", "hold", "shrink", "shift", "promote")
"""What a case may want that needs a command."""

APPROVE_WITHIN_MS = 3600 * 1000
"""How long a proposed command can be approved."""

MOST_CLOSED = 50
"""Closed cases that are remembered per model."""


class Wall(NamedTuple):
    """Where and when a shell stands."""

    now_ms: int
    fence: int
    """Epoch of this owner of the model."""
    digest: str
    """Of the configuration in force."""


def open_case(
    model: Model, judged: Judged, policy: Policy | None, digest: str
) -> tuple[Case | None, list[Said]]:
    """Say each guard's breach once, and gather them in the version's case."""
    verdict = judged.verdict
    if not judged.alarmed:
        return None, []
    incident = ids.incident_id(model.name, verdict.version, _episode(model, judged))
    case = model.cases.get(incident)
    if case is None:
        _forget(model)
        target = ledger.target_of(model, verdict.version, policy)
        case = Case(incident, verdict.version, target, verdict.rollout_id, verdict.decided_at)
        model.cases[incident] = case
    said: list[Said] = []
    for entry in judged.alarmed:
        if entry.name in case.breached:
            continue
        case.breached = [*case.breached, entry.name]
        said.append(_breach(model, case, judged, entry, digest))
        if STRENGTH[entry.action] > STRENGTH[case.wanted]:
            case.wanted, case.text = entry.action, sentence_of(entry, model.version(case.version))
            if case.closed == "done":  # a hold was carried out; now more is wanted
                case.closed, case.base = "", case.hop
    respond.begin(case, model, policy)
    return case, said


def _episode(model: Model, judged: Judged) -> str:
    """The rollout as incidents count it: one that begins again under its old id is another one.

    A pipeline that rolls a bad version out a second time under the same `rollout_id` must not find
    its incident closed and be left alone. The same holds for a new alarm of a test that re-arms.
    """
    verdict = judged.verdict
    began_ms = model.plan.steps[0][0] if model.plan is not None and model.plan.steps else 0
    began_ms = max(began_ms, judged.rearmed_ms)
    name, number = verdict.rollout_id, 1
    while True:
        case = model.cases.get(ids.incident_id(model.name, verdict.version, name))
        if case is None or not case.closed or began_ms <= case.closed_ms:
            return name
        number += 1
        name = f"{verdict.rollout_id}#{number}"


def _forget(model: Model) -> None:
    """Drop the oldest closed cases, so that a model's state stays small."""
    closed = [incident for incident, case in model.cases.items() if case.closed]
    for incident in closed[: max(0, len(closed) - MOST_CLOSED)]:
        del model.cases[incident]


def close(case: Case, model: Model, word: str) -> None:
    """Nothing more happens in this case."""
    case.closed, case.closed_ms = word, model.now_ms


def _breach(model: Model, case: Case, judged: Judged, entry: GuardVerdict, digest: str) -> Breach:
    verdict = judged.verdict
    shared = judged.both_moved and entry.action != "alert"
    return Breach(
        breach_id=ids.breach_id(case.incident_id, entry.name), incident_id=case.incident_id,
        model=model.name, version=case.version, rollout_id=case.rollout_id, guard=entry.name,
        signal=entry.signal, action=entry.action,  # type: ignore[arg-type]
        reason="both_moved" if shared else "guard_alarmed",
        text=verdict.text if shared else sentence_of(entry, model.version(case.version)),
        evidence=entry, stable=case.stable, roles=verdict.roles, decided_at=verdict.decided_at,
        position=judged.fired.get(entry.name) or verdict.position,
        config_digest=digest, guards=verdict.guards,
        weight=weight_of(model.plan, case.version) if model.plan else None,
    )  # fmt: skip


def wants_command(case: Case) -> bool:
    """Whether a case asks for a command that was neither sent nor proposed."""
    fresh = (case.rung or case.wanted) in ACTING and not case.proposed and not case.closed
    return fresh and (case.hop == case.base or case.again)


def act(case: Case, model: Model, policy: Policy, facts: Facts, wall: Wall) -> list[Said]:
    """Send, propose or withhold the command of a case; withholding is said once per reason."""
    refused = refusal(case, model, policy, facts)
    if refused is not None:
        budgets.trip(model, refused)
        word = refused.reason
        if word in case.refusals:
            return []
        case.refusals = [*case.refusals, word]
        if word == "superseded":
            close(case, model, word)
        return [withheld(case, model, refused, word)]
    command = command_for(case, model, policy, wall)
    if policy.mode == "propose" and facts.automatic and case.hop == case.base:
        command = msgspec.structs.replace(
            command, mode="propose", expires_at=wall.now_ms + APPROVE_WITHIN_MS
        )
        case.proposed, case.proposal = command.command_id, msgspec.to_builtins(command)
        text = f"Proposed: {command.reason} Approve or reject {command.command_id}."
        return [progress(case, model, "proposed", "propose", text, command.command_id,
                         command=case.proposal)]  # fmt: skip
    return [send(case, model, command)]


def command_for(case: Case, model: Model, policy: Policy, wall: Wall) -> Command:
    """The command that a case asks for, as the next hop."""
    plan = model.plan
    word = case.rung or case.wanted
    action: Action = "shift" if word == "shrink" else word  # type: ignore[assignment]
    weight = policy.shrink_to if word == "shrink" else case.weight
    target, leaving = case.stable or "", case.version
    if action == "promote":
        target, leaving = leaving, target
    mode: Mode = "enforce"
    return Command(
        command_id=ids.command_id(case.incident_id, action, target, case.hop + 1), action=action,
        model=model.name, rollout_id=case.rollout_id, from_version=leaving,
        to_version=target, weight=weight if action == "shift" else None,
        keeps=_keeps(case, plan) if plan else {},
        expected=_expected(case, plan) if plan else
        Expected(None, None, None),
        incident_id=case.incident_id, issued_at=wall.now_ms,
        expires_at=wall.now_ms + policy.expires_after.ms, fence=wall.fence, mode=mode,
        reason=case.text, adapter=policy.adapter or "dry_run", hop=case.hop + 1,
    )  # fmt: skip


def _expected(case: Case, plan: Plan) -> Expected:
    """What serves as far as the command is concerned; other canaries are in `keeps`."""
    if case.version in plan.others:
        return Expected(plan.stable, case.version, weight_of(plan, case.version))
    return Expected(plan.stable, plan.canary, plan.weight)


def _keeps(case: Case, plan: Plan) -> dict[str, float]:
    """The shares of canaries that a command leaves as they are."""
    if not plan.others:
        return {}
    shares = {name: weight_of(plan, name) or 0.0 for name in canaries_of(plan)}
    return {name: share for name, share in shares.items() if share and name != case.version}


def withheld(case: Case, model: Model, refused: Refuse, cause: str) -> Progress:
    """Say which rule said no."""
    text = f"Not sent: {refused.text}."
    return progress(case, model, "withheld", refused.reason, text, cause,
                    {"rule": refused.rule, **refused.evidence})  # fmt: skip


def send(case: Case, model: Model, command: Command) -> Command:
    """Note that a command goes out."""
    budgets.spend(model, command, case.hop - case.base)
    case.hop, case.action = command.hop, command.action
    case.commands, case.again = [*case.commands, command.command_id], False
    case.receipt, case.proposed, case.proposal = None, None, None
    return command


def received(model: Model, receipt: Receipt, policy: Policy) -> list[Said]:
    """Take in what came of a command."""
    case = model.cases.get(receipt.incident_id)
    if case is None or case.closed or receipt.command_id != (case.commands or [""])[-1]:
        return []
    if receipt.status in ("applied", "already_there"):
        if case.action != "rollback" and case.kind != "promotion":
            if not respond.further(case, policy):
                close(case, model, "done")
            return []
        if case.action == "rollback":
            ledger.condemn(model, case.version, case.incident_id)
        case.receipt = receipt
        case.seen = case.seen_bad = case.late_seen = case.late_seen_bad = 0
        return []
    if receipt.status == "superseded":
        close(case, model, "superseded")
        return []
    # An effect that nobody could read is no reason to try again, but to call a person.
    if receipt.status == "expired" and receipt.detail.get("effect") != "unknown":
        case.again = True
        return []
    why = str(receipt.detail.get("reason", receipt.status))
    if case.kind == "promotion" and receipt.detail.get("effect") == "none":
        close(case, model, receipt.status)
        text = (
            f"The {case.wanted} of {case.version} was {receipt.status}: {why}. It stays as it is."
        )
        return [progress(case, model, "withheld", receipt.status, text, receipt.command_id)]
    if receipt.detail.get("effect") == "none" and respond.further(case, policy):
        text = f"The {case.action} of {case.version} was {receipt.status}: {why}."
        return [progress(case, model, "withheld", receipt.status, text, receipt.command_id)]
    close(case, model, "paged")
    text = (f"The {case.action} of {case.version} was {receipt.status} by {receipt.adapter}: {why}."
            " A person is needed.")  # fmt: skip
    return [progress(case, model, "paged", receipt.status, text, receipt.command_id)]


def escalate(model: Model, policy: Policy) -> list[Said]:
    """Go on to the next word of the policy's response where nobody has acted."""
    said: list[Said] = []
    for case in model.cases.values():
        before = case.rung
        if respond.climb(case, model, policy):
            text = (f"Nobody acted within {span(policy.patience.ms)} of the {before}, and the "
                    f"breach of {case.version} stands: next is {case.rung}.")  # fmt: skip
            said.append(progress(case, model, "escalated", "response", text, case.rung))
    return said


def verify_cases(model: Model, policy: Policy) -> list[Said]:
    """Follow the open rollbacks at the model's event time."""
    said: list[Said] = []
    for case in model.cases.values():
        if case.closed or case.receipt is None:
            continue
        proof = verify.prove(case, policy, model.now_ms)
        if proof.result == "waiting":
            continue
        evidence = {"seen": case.seen, "seen_bad": case.seen_bad,
                    "late_seen": case.late_seen, "late_seen_bad": case.late_seen_bad}  # fmt: skip
        cause = case.receipt.command_id
        if case.kind == "promotion" and proof.result == "unverified":
            if not case.doubted:
                case.doubted = True
                text = f"Not seen in traffic yet: {proof.text}. No further step until it is."
                said.append(progress(case, model, "unverified", proof.reason, text, cause,
                                     evidence))  # fmt: skip
            continue
        if proof.result == "verified":
            close(case, model, "verified")
            text = f"Verified from traffic: {proof.text}."
            said.append(progress(case, model, "verified", proof.reason, text, cause, evidence))
            continue
        text = f"Not verified: {proof.text}."
        said.append(progress(case, model, "unverified", proof.reason, text, cause, evidence))
        case.receipt = None
        if case.hop <= policy.retries:
            case.again = True
            text = f"Trying again, hop {case.hop + 1}."
            said.append(progress(case, model, "escalated", "retry", text, cause))
        else:
            close(case, model, "paged")
            text = (f"{case.version} is not proven out of traffic after {case.hop} tries. "
                    "A person is needed.")  # fmt: skip
            said.append(progress(case, model, "paged", proof.reason, text, cause))
    return said


def returned(model: Model, policy: Policy) -> list[Said]:
    """Say once that a version serves again which was rolled back a short while ago.

    It is said on the incident by which it was: that is where the evidence is. It is not taken out
    on sight, because somebody put it there and only evidence acts.
    """
    plan = model.plan
    said: list[Said] = []
    for name in (*canaries_of(plan), plan.stable) if plan is not None else ():
        if plan is None or name in plan.warned or not ledger.quarantined(model, name, policy):
            continue
        since_ms, incident = model.quarantine[name]
        if plan.at_ms <= since_ms:
            continue  # it is still on its way out
        plan.warned = [*plan.warned, name]
        role = "stable" if name == plan.stable else "canary"
        text = (f"{name} is {role} again, although it was rolled back "
                f"{span(plan.at_ms - since_ms)} before. It is judged like any other, and it is "
                f"neither promoted nor returned to for {span(policy.quarantine.ms)}.")  # fmt: skip
        told = ids.derive("progress", incident, "escalated", "quarantined", plan.rollout_id)
        said.append(Progress(
            progress_id=told,
            incident_id=incident, model=model.name, kind="escalated", reason="quarantined",
            text=text, at=model.now_ms, evidence={"version": name},
        ))  # fmt: skip
    return said


def obey(model: Model, order: Order, policy: Policy, wall: Wall) -> list[Said]:
    """Carry out what a person wants; same path, same records as an automatic decision."""
    if order.kind in ("approve", "reject"):
        return _answer(model, order, policy, wall)
    incident = ids.derive("incident", model.name, "order", order.order_id)
    if incident in model.cases:
        return []
    case = _ordered(model, order, policy, incident)
    model.cases[incident] = case
    said: list[Said] = [_breach_of_order(model, case, order, wall)]
    refused = refusal(case, model, policy, Facts(wall.now_ms, None, automatic=False))
    if refused is not None:
        close(case, model, "refused")
        return [*said, withheld(case, model, refused, order.order_id)]
    command = msgspec.structs.replace(command_for(case, model, policy, wall), actor=order.actor)
    return [*said, send(case, model, command)]


def _ordered(model: Model, order: Order, policy: Policy, incident: str) -> Case:
    """The case of a person's order; a rollback without a canary goes to the last known good."""
    plan = model.plan
    stable, canary = (plan.stable, plan.canary) if plan is not None else ("", None)
    leaving = canary or stable
    target = ledger.target_of(model, leaving, policy)
    case = Case(incident, leaving, target, plan.rollout_id if plan is not None else "",
                model.now_ms, wanted="rollback")  # fmt: skip
    if order.kind == "promote":
        case.kind, case.wanted, case.proven = "promotion", "promote", True
        case.stable = stable if canary is not None else None
        case.opened_ms = plan.steps[-1][0] if plan is not None and plan.steps else model.now_ms
    case.text = f"{order.actor} ordered {order.kind} of {model.name}: {order.reason}"
    return case


def _breach_of_order(model: Model, case: Case, order: Order, wall: Wall) -> Breach:
    """The ground of a person's command, on the record before it (H14)."""
    evidence = GuardVerdict(name="order", signal="order", verdict="breach", guarantee=False)
    declared = model.plan is not None and not model.plan.inferred
    return Breach(
        breach_id=ids.breach_id(case.incident_id, "order"), incident_id=case.incident_id,
        model=model.name, version=case.version, rollout_id=case.rollout_id, guard="order",
        signal="order", action="rollback", reason="ordered", text=case.text, evidence=evidence,
        stable=case.stable, roles="declared" if declared else "inferred",
        decided_at=model.now_ms, position={}, config_digest=wall.digest,
    )  # fmt: skip


def _answer(model: Model, order: Order, policy: Policy, wall: Wall) -> list[Said]:
    case = next((c for c in model.cases.values() if c.proposed and c.proposed == order.command_id),
                None)  # fmt: skip
    if case is None or case.proposal is None:
        return []
    proposed = msgspec.convert(case.proposal, Command)
    cause = order.order_id
    if order.kind == "reject":
        close(case, model, "rejected")
        case.proposed, case.proposal = None, None
        text = f"{order.actor} rejected the {case.wanted}: {order.reason}"
        return [progress(case, model, "rejected", "person", text, cause)]
    if wall.now_ms > proposed.expires_at:
        case.proposed, case.proposal = None, None
        text = "The approval came after the proposal had expired; it is decided again."
        return [progress(case, model, "withheld", "expired", text, cause)]
    # A person passes holds and budgets, not what became of target and proof since.
    refused = refusal(case, model, policy, Facts(wall.now_ms, None, automatic=False))
    if refused is not None:
        case.proposed, case.proposal = None, None
        return [withheld(case, model, refused, cause)]
    command = msgspec.structs.replace(
        proposed, mode="enforce", actor=order.actor, issued_at=wall.now_ms, fence=wall.fence,
        expires_at=wall.now_ms + policy.expires_after.ms,
    )  # fmt: skip
    text = f"{order.actor} approved: {order.reason}"
    return [progress(case, model, "approved", "person", text, cause), send(case, model, command)]


def progress(
    case: Case, model: Model, kind: ProgressKind, reason: str, text: str, cause: str,
    evidence: dict[str, Any] | None = None, command: dict[str, Any] | None = None,
) -> Progress:  # fmt: skip
    """Say what became of an incident."""
    return Progress(
        progress_id=ids.derive("progress", case.incident_id, kind, reason, cause),
        incident_id=case.incident_id, model=model.name, kind=kind, reason=reason, text=text,
        at=model.now_ms, command_id=case.commands[-1] if case.commands else case.proposed,
        command=command, evidence=evidence or {},
    )  # fmt: skip
