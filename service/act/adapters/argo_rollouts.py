"""Argo Rollouts: a canary under way is aborted, a promoted version is undone by its pod template.

How. In progress (`status.stableRS` is not the current hash) a rollback is `status.abort`, and its
target is always the last stable; any other target is refused. A finished rollout ignores an abort
although it answers 200, so the template of the good ReplicaSet is put back instead, which runs all
steps again unless `spec.rollbackWindow` covers it. A hold sets `spec.paused`; a promotion, on a
person's order, is `status.promoteFull`.

What this controller does that others do not:

- `Degraded` is no proof. The abort is accepted and traffic stays where the stable has no available
  pod (refused before), where the spec is invalid (refused), and where `promoteFull` is set (taken
  back in the same patch).
- `spec.template` names the bad version after an abort: a retry by hand re-enters it.
- Without traffic routing there are no weights: shares are then pods, and the receipt says so.

Refused here: a Rollout that takes its template from a Deployment (`workloadRef`), a retry.

References
----------
Argo Rollouts 1.10: `rollout/` of its source; issues 3078, 4128, 4461, 4841.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask
from service.act.adapters.cluster import JSON_PATCH, MERGE_PATCH, path_to
from service.act.adapters.clustered import MARKS, described, marking, request_of
from service.act.adapters.kubernetes import TEMPLATE_OF, Kubernetes
from service.act.adapters.owners import owner_of
from service.act.adapters.targets import shares_of
from service.act.plans import Current, Plan, Refusal, Settled, compare

API = "argoproj.io/v1alpha1"
HASH = "rollouts-pod-template-hash"
_ITSELF = ("rollouts-controller", "argo-rollouts")
_STEPS = "an undo runs the Rollout's steps again, unless spec.rollbackWindow covers the old version"
_PODS = "this Rollout has no traffic routing: shares are pods, not requests"
_REENTERS = "spec.template still names the bad version: a retry would bring it back"


@plugin("argo_rollouts")
@dataclass(kw_only=True)
class ArgoRollouts(Kubernetes):
    """One Rollout; fields as for the adapter `kubernetes`."""

    settle_s: float = 120.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "hold", "promote"})

    @property
    def path(self) -> str:
        """The Rollout's."""
        return path_to(API, self.namespace, "rollouts", self.name)

    async def current(self, ask: Ask) -> Current:
        """Read the Rollout and its ReplicaSets."""
        found = await self._cluster.get(self.path)
        labels = found["spec"].get("selector", {}).get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        path = path_to("apps/v1", self.namespace, "replicasets")
        sets = await self._cluster.items(path, labelSelector=selector) or []
        owner = owner_of(found, ("spec", "template"), ask.now_ms, [*self.writers, *_ITSELF])
        now = self.read(found, sets, described(owner, {}), owner.name)
        self._templates = now.raw["templates"]
        return now

    def read(
        self, found: dict[str, Any], sets: list[dict[str, Any]], raw: dict[str, Any], owner: str
    ) -> Current:
        """Turn a Rollout and its ReplicaSets into shares."""
        status, uid = found.get("status", {}), found["metadata"].get("uid")
        templates: dict[str, dict[str, Any]] = {}
        pods: dict[str, float] = {}
        version_of: dict[str, str] = {}
        for one in sets:
            owners = one["metadata"].get("ownerReferences") or []
            if uid not in [reference.get("uid") for reference in owners]:
                continue
            template = one["spec"]["template"]
            version = self.version_of(template)
            version_of[(one["metadata"].get("labels") or {}).get(HASH, "")] = version
            available = one.get("status", {}).get("availableReplicas", 0)
            pods[version] = pods.get(version, 0.0) + available
            templates[version] = {"template": template}
        stable = version_of.get(status.get("stableRS", ""), "")
        latest = version_of.get(status.get("currentPodHash", ""), "")
        weights = (status.get("canary") or {}).get("weights")
        shares = _shares(stable, latest, weights, pods)
        kept = _kept(found)
        raw |= {"templates": templates, "found": kept, "stable": stable, "latest": latest}
        raw |= {"pods_only": stable != latest and not weights}
        # An abort that was taken and does not show yet: there is nothing to write, only to wait.
        moving = kept["abort"] and shares.get(latest, 0.0) > 0 and stable != latest
        return Current(
            shares=shares,
            ready={version: self._is_ready(version, stable, pods) for version in templates},
            transition=moving,
            owner=owner,
            raw=raw,
        )

    def _is_ready(self, version: str, stable: str, pods: Mapping[str, float]) -> bool:
        # An abort needs the stable's pods now; an undo starts pods of its own.
        return version != stable or pods.get(version, 0) > 0

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        found, stable, latest = now.raw["found"], now.raw["stable"], now.raw["latest"]
        if text := found["unfit"]:
            return Refusal("refused", "H13", "unfit", text)
        if command.action == "promote":
            if stable == latest or latest != command.to_version:
                text = f"{command.to_version} is not the canary under way, and only that goes on"
                return Refusal("refused", "H1", "no_target", text)
            return self._status_plan(now, command, {"promoteFull": True}, "status.promoteFull true")
        if stable != latest:
            if stable != command.to_version:
                text = f"an abort always goes back to the last stable, which is {stable}"
                return Refusal("refused", "H1", "no_target", text)
            body: dict[str, Any] = {"abort": True}
            if found["promote_full"]:
                body["promoteFull"] = None  # an abort alone would be dropped
            return self._status_plan(now, command, body, "status.abort true")
        return self._undo(now, command, wanted)

    def _status_plan(
        self, now: Current, command: Command, status: dict[str, Any], words: str
    ) -> Plan:
        lock = now.raw["found"]["resource_version"]
        body = {"metadata": {"resourceVersion": lock}, "status": status}
        marks = {name: getattr(command, field) for name, field in MARKS.items()}
        notes = [_PODS] if now.raw["pods_only"] else []
        notes += [_REENTERS] if "abort" in status else []
        undo = f"kubectl argo rollouts -n {self.namespace} retry rollout {self.name}"
        return Plan(
            wanted={command.to_version: 100.0},
            before=now.shares,
            requests=[
                request_of(f"{self.path}/status", body, MERGE_PATCH),
                # A patch of the status drops what it says of annotations.
                request_of(self.path, {"metadata": {"annotations": marks}}, MERGE_PATCH),
            ],
            diff=f"Rollout {self.name}: {words}",
            touches=[self.path],
            lock="resourceVersion",
            undo=[undo] if "abort" in status else [],
            notes=notes + ([now.raw["note"]] if now.raw["note"] else []),
        )

    def _undo(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan:
        found = now.raw["found"]
        operations = [
            {"op": "test", "path": "/metadata/generation", "value": found["generation"]},
            {"op": "replace", "path": "/spec/template", "value": {TEMPLATE_OF: command.to_version}},
            *marking(found, command),
        ]
        guard = {"generation": found["generation"]}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, **guard)],
            diff=f"Rollout {self.name}: pod template of {command.to_version}",
            touches=[self.path],
            lock="generation",
            undo=[f"kubectl argo rollouts -n {self.namespace} undo {self.name}"],
            notes=[_STEPS, *([now.raw["note"]] if now.raw["note"] else [])],
        )

    def _hold(self, now: Current, command: Command) -> Plan | Refusal:
        found = now.raw["found"]
        if found["paused"]:
            return Plan(wanted={}, before=now.shares)
        lock = found["resource_version"]
        marks = {name: getattr(command, field) for name, field in MARKS.items()}
        metadata = {"resourceVersion": lock, "annotations": marks}
        body = {"metadata": metadata, "spec": {"paused": True}}
        return Plan(
            wanted={},
            before=now.shares,
            requests=[request_of(self.path, body, MERGE_PATCH)],
            diff=f"Rollout {self.name}: spec.paused true",
            touches=[self.path],
            lock="resourceVersion",
            undo=[
                f"kubectl -n {self.namespace} patch rollout {self.name} --type=merge "
                '-p \'{"spec":{"paused":false}}\''
            ],
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once the controller says that it aborted, or is done."""
        seen = compare(now, plan)
        found = now.raw["found"]
        by_word = found["aborted"] or (found["healthy"] and now.raw["stable"] == now.raw["latest"])
        return "pending" if seen == "settled" and not by_word else seen


def _shares(
    stable: str, latest: str, weights: Mapping[str, Any] | None, pods: Mapping[str, float]
) -> dict[str, float]:
    """Percent by version: the controller's own weights, else pods."""
    if stable == latest or not latest:
        return {stable: 100.0} if stable else {}
    if weights:
        canary = float((weights.get("canary") or {}).get("weight", 0))
        return {stable: 100.0 - canary, latest: canary}
    found = shares_of({version: count for version, count in pods.items() if count})
    return found or {stable: 100.0}


def _kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a Rollout what plans need; the pod's environment may hold secrets."""
    spec, status = found["spec"], found.get("status", {})
    notes = found["metadata"].get("annotations") or {}
    phase, message = status.get("phase", ""), str(status.get("message", ""))
    unfit = ""
    if spec.get("workloadRef"):
        unfit = "this Rollout takes its template from a Deployment (workloadRef)"
    for condition in status.get("conditions") or []:
        if condition.get("type") == "InvalidSpec" and condition.get("status") == "True":
            unfit = "the Rollout's spec is invalid, so its controller does nothing; mend it first"
    return {
        "generation": found["metadata"].get("generation", 0),
        "resource_version": found["metadata"]["resourceVersion"],
        "paused": bool(spec.get("paused")),
        "abort": bool(status.get("abort")),
        "promote_full": bool(status.get("promoteFull")),
        "aborted": bool(status.get("abort"))
        and phase == "Degraded"
        and message.startswith("RolloutAborted"),
        "healthy": phase == "Healthy"
        and str(status.get("observedGeneration")) == str(found["metadata"].get("generation")),
        "unfit": unfit,
        "metadata": {"annotations": dict.fromkeys(notes, "")},
    }
