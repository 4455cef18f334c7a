"""One partition of models: messages in, what is said out. Pure but for the facts it is given.

The book holds each model's state and guards, and the event time that all source partitions have
reached. A decision is a function of the messages in their order: judging again is triggered by
rows, by a guard that fired, or by log time, never by a clock.

Refused here: reading a clock, a hold or a database. What needs such facts is left in `wanting`, and
the shell asks `order.act` with them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from schemas.commands import Order
from schemas.events import Rollout
from schemas.facts import Receipt
from schemas.observations import Observations
from schemas.plugins import Registry
from schemas.policies import Freeze, Policy, frozen, policy_for
from schemas.times import to_ms
from schemas.verdicts import Verdict
from service.harm import Fleet, Refuse
from service.watch import ledger, order, promote
from service.watch.absorb import absorb, due, equip, hush, replan
from service.watch.bounds import has_room
from service.watch.decide import is_turning, judge
from service.watch.detect import Guard
from service.watch.order import Said, Wall
from service.watch.plan import live
from service.watch.rules import Facts, refusal
from service.watch.state import Case, Model, Partition, Version, dump, load, load_partition
from service.watch.weights import canaries_of

JUDGE_EVERY_MS = 100
"""Log time between two judgements of a model whose guards stay quiet."""

PUBLISH_EVERY_MS = 10_000
"""Event time after which an unchanged verdict is published again with its newer numbers."""

SHOW_EVERY_MS = 500
"""The same for a verdict whose evidence moves."""

SWEEP_EVERY_MS = 900
"""Event time between two looks at models that are silent."""


class Wanting(NamedTuple):
    """A case that asks for a command, with what its judgement saw."""

    model: Model
    case: Case
    policy: Policy
    both_moved: bool
    stable_ill: bool


class Book:
    """All models of one keyed partition."""

    def __init__(
        self, policies: list[Policy], registry: Registry, digest: str,
        freezes: Sequence[Freeze] = (),
    ) -> None:  # fmt: skip
        self._policies, self._registry, self._digest = policies, registry, digest
        self._freezes = freezes
        self._named: dict[str, Policy | None] = {}
        self.partition = Partition()
        self.models: dict[str, Model] = {}
        self.guards: dict[str, dict[str, dict[str, Guard]]] = {}
        self._flags: dict[str, tuple[bool, bool]] = {}
        self.changed: set[str] = set()

    def policy(self, model: str) -> Policy | None:
        """The policy of a model; None when no policy names it."""
        if model not in self._named:
            self._named[model] = policy_for(self._policies, model)
        return self._named[model]

    def restore(self, states: Mapping[str, bytes]) -> None:
        """Take over what the last owner stored."""
        for key, data in states.items():
            if key == "":
                self.partition = load_partition(data)
                continue
            model = load(data)
            self.models[key] = model
            self.guards[key] = {}
            equip(model, self.guards[key], self.policy(key), self._registry)
            for name, version in model.versions.items():
                for label, saved in version.guards.items():
                    if (guard := self.guards[key].get(name, {}).get(label)) is not None:
                        guard.restore(saved)

    def save(self, key: str) -> bytes:
        """Give one state for the checkpoint."""
        if key == "":
            return dump(self.partition)
        model = self.models[key]
        for name, version in model.versions.items():
            own = self.guards[key].get(name, {})
            version.guards = {label: guard.state() for label, guard in own.items()}
        return dump(model)

    def observe(self, message: Observations, logged_ms: int) -> list[Said]:
        """Take in one observation message, or a tick (no model)."""
        if message.partition >= 0:
            marks = self.partition.watermarks
            marks[message.partition] = max(marks.get(message.partition, 0), message.watermark_ms)
            self.changed.add("")
        if not message.model:
            return list(self._sweep(logged_ms))
        if not self._has_room(message.model):
            return []
        model = self._model(message.model)
        model.now_ms = max(model.now_ms, self.partition.now_ms)
        policy = self.policy(model.name)
        fired = absorb(model, self.guards[model.name], message, policy, self._registry)
        self.changed.add(model.name)
        if fired or logged_ms - model.judged_ms >= JUDGE_EVERY_MS:
            return self._judge(model, logged_ms)
        return order.verify_cases(model, policy) if policy is not None else []

    def roll_out(self, event: Rollout, logged_ms: int) -> list[Said]:
        """Take in a traffic plan: now, or once the observations have come to its time."""
        if not self._has_room(event.model):
            return []
        model = self._model(event.model)
        self.changed.add(model.name)
        waits = model.plan is not None and not model.plan.inferred and model.now_ms > 0
        if model.pending or (waits and to_ms(event.at) > model.now_ms):
            model.pending = sorted([*model.pending, event], key=lambda e: to_ms(e.at))[-64:]
            return []
        policy = self.policy(model.name)
        if replan(model, self.guards[model.name], event, policy, self._registry):
            return self._judge(model, logged_ms)
        return []

    def receive(self, receipt: Receipt) -> list[Said]:
        """Take in what came of a command."""
        if receipt.model not in self.models:
            return []
        self.changed.add(receipt.model)
        policy = self.policy(receipt.model) or Policy(model=receipt.model)
        return order.received(self._model(receipt.model), receipt, policy)

    def obey(self, wish: Order, wall: Wall) -> list[Said]:
        """Take in a person's order."""
        policy = self.policy(wish.model)
        if policy is None or wish.model not in self.models:
            return []
        self.changed.add(wish.model)
        return order.obey(self.models[wish.model], wish, policy, wall)

    def wanting(self) -> Iterator[Wanting]:
        """The cases that ask for a command now."""
        for model in self.models.values():
            policy = self.policy(model.name)
            if policy is None or not model.cases:
                continue
            for case in model.cases.values():
                if order.wants_command(case):
                    moved, ill = self._flags.get(case.incident_id, (False, False))
                    yield Wanting(model, case, policy, moved, ill)

    def turning(self, within_ms: int) -> set[str]:
        """Models that are turning bad now: a guard that acts fired of late, or is half-way there.

        When one cause makes many models bad, their guards do not fire in the same second. Whoever
        fires first would be rolled back before the others could speak for it. An alarm of long ago
        is latched and says nothing of now, nor does a model that is silent.
        """
        return {
            name for name, of_versions in self.guards.items()
            if self.partition.now_ms - self.models[name].last_row_ms < within_ms
            for guards in of_versions.values()
            for guard in guards.values()
            if is_turning(guard, self.models[name].now_ms - within_ms)
        }  # fmt: skip

    def refused(self, wanting: Wanting, wall: Wall) -> Refuse | None:
        """What forbids a command; holds and fleet are left aside, and read only if nothing does."""
        model, case, policy, _, _ = wanting
        return refusal(case, model, policy, self._facts(wanting, wall, None, None))

    def _facts(
        self, wanting: Wanting, wall: Wall, held: str | None, fleet: Fleet | None
    ) -> Facts:  # fmt: skip
        first = wanting.case.hop == wanting.case.base
        return Facts(wall.now_ms, held, both_moved=wanting.both_moved and first,
                     stable_ill=wanting.stable_ill and first, fleet=fleet,
                     frozen=frozen(self._freezes, wanting.model.name, wall.now_ms))  # fmt: skip

    def act(
        self, wanting: Wanting, wall: Wall, held: str | None, fleet: Fleet | None = None
    ) -> list[Said]:
        """Send, propose or withhold one command, given what the shell knows."""
        model, case, policy, _, _ = wanting
        said = order.act(case, model, policy, self._facts(wanting, wall, held, fleet), wall)
        if said:
            self.changed.add(model.name)
        return said

    def _has_room(self, name: str) -> bool:
        if name in self.models:
            return True
        self.changed.add("")
        return has_room(self.partition, len(self.models), name)

    def _model(self, name: str) -> Model:
        if name not in self.models:
            self.models[name] = Model(name)
            self.guards[name] = {}
        return self.models[name]

    def _sweep(self, logged_ms: int) -> Iterator[Said]:
        """Let time pass for all models: plans, proofs, silence."""
        now_ms = self.partition.now_ms
        if now_ms - self.partition.swept_ms < SWEEP_EVERY_MS and not any(
            model.dirty for model in self.models.values()
        ):
            return
        self.partition.swept_ms = now_ms
        for model in self.models.values():
            model.now_ms = max(model.now_ms, now_ms)
            policy = self.policy(model.name)
            hush(model, self.guards[model.name], {})
            replanned = False
            for event in due(model):
                replanned |= replan(model, self.guards[model.name], event, policy, self._registry)
            if replanned or model.dirty or self._fell_silent(model, policy):
                yield from self._judge(model, logged_ms)
                self.changed.add(model.name)
            elif policy is not None and any(case.receipt for case in model.cases.values()):
                yield from order.verify_cases(model, policy)
                self.changed.add(model.name)

    def _fell_silent(self, model: Model, policy: Policy | None) -> bool:
        if policy is None or model.plan is None:
            return False
        for name in (model.plan.stable, *canaries_of(model.plan)):
            version = model.versions.get(name)
            silent = version is not None and (model.silent_ms(version) > policy.max_silence.ms)
            told = (
                version is not None
                and version.verdict is not None
                and (version.verdict.verdict == "unknown")
            )
            if silent and not told:
                return True
        return False

    def _judge(self, model: Model, logged_ms: int) -> list[Said]:
        """Judge the live versions; say what changed, and breaches."""
        policy = self.policy(model.name)
        model.judged_ms, model.dirty = logged_ms, False
        promote.settle(model)
        said: list[Said] = []
        plan = model.plan
        if policy is not None and plan is not None:
            guards = self.guards[model.name]
            if ledger.long_lived(model, policy, guards.get(plan.stable, {})):
                equip(model, guards, policy, self._registry)
        for name in live(model, policy):
            version = model.version(name)
            judged = judge(model, version, policy, self.guards[model.name], {})
            if _news(version, judged.verdict):
                version.verdict = judged.verdict
                said.append(judged.verdict)
            ledger.credit(model, name, judged.verdict.verdict)
            case, breaches = order.open_case(model, judged, policy, self._digest)
            said += breaches
            if case is not None:
                self._flags[case.incident_id] = (judged.both_moved, judged.stable_ill)
            if policy is not None and plan is not None and name == plan.canary:
                step, record = promote.consider(model, judged.verdict, policy)
                said += record
                if step is not None:
                    self._flags[step.incident_id] = (False, judged.stable_ill)
        if policy is not None:
            said += order.escalate(model, policy)
            said += order.returned(model, policy)
            said += order.verify_cases(model, policy)
        return said


def _news(version: Version, verdict: Verdict) -> bool:
    """Whether a verdict should be published: it changed, or its numbers grew old."""
    last = version.verdict
    if last is None or (last.verdict, last.reason, last.rollout_id, last.role) != (
        verdict.verdict, verdict.reason, verdict.rollout_id, verdict.role,
    ):  # fmt: skip
        return True
    if len([g for g in verdict.guards if g.verdict == "breach"]) != len(
        [g for g in last.guards if g.verdict == "breach"]
    ):
        return True
    since_ms = verdict.decided_at - last.decided_at
    return since_ms >= PUBLISH_EVERY_MS or (since_ms >= SHOW_EVERY_MS and _moved(last, verdict))


def _moved(last: Verdict, verdict: Verdict) -> bool:
    """Whether the evidence of a guard moved by a good part of what an alarm takes.

    Pages and reports show how it grew; without this a quick breach would be two points.
    """
    before = {guard.name: guard.evidence for guard in last.guards}
    return any(
        guard.evidence is not None
        and guard.threshold is not None
        and abs(guard.evidence - (before.get(guard.name) or 0.0)) >= guard.threshold / 8
        for guard in verdict.guards
    )
