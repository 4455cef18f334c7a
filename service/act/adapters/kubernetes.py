"""A Kubernetes Deployment: a version is an image, or a label, of its pod template.

How. Going back means to put the template of the good version's ReplicaSet back; it is found by what
it runs and never by its revision number, which moves with every undo. This is a rolling update and
takes as long as one: where a router can move traffic, its adapter is faster. The guard is
`metadata.generation`, because the status of a Deployment changes all the time. A rollout that is
stuck half way may be rolled back; what serves meanwhile is read from the pods of each ReplicaSet.

Traffic cannot be shifted: shares of pods are no shares of traffic. A hold pauses the rollout, and a
rollback takes that pause back; one that a person set is left alone and nothing is written, since a
paused Deployment accepts a template and does nothing with it.

A pod template may hold secrets in plain sight, and plans are stored. So a plan only names the
version whose template it means, and `apply` fills in the one that was read.

Refused here: acting on revisions, deleting ReplicaSets, scaling.

References
----------
Kubernetes API: apps/v1 Deployment, ReplicaSet; Deployment status conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask, PlatformFault
from service.act.adapters.cluster import JSON_PATCH, path_to
from service.act.adapters.clustered import Clustered, described, marking, request_of
from service.act.adapters.owners import owner_of
from service.act.adapters.targets import shares_of
from service.act.plans import Current, Plan, Refusal, Settled, compare

HASHES = frozenset({"pod-template-hash", "rollouts-pod-template-hash"})
TEMPLATE_OF = "rollbackd: pod template of"
HELD = "rollbackd.io~1held"
REVISION = "deployment.kubernetes.io/revision"


@plugin("kubernetes")
@dataclass(kw_only=True)
class Kubernetes(Clustered):
    """One Deployment.

    Parameters
    ----------
    versions : dict
        Version -> image as the pod template says it; with `label`, the label's value.
    label : str, optional
        Label of the pod template that tells the version.
    container : str, optional
        Whose image counts; the first container's when left out.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    label: str | None = None
    container: str | None = None
    settle_s: float = 300.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "hold"})

    def __post_init__(self) -> None:
        """Nothing was read yet."""
        super().__post_init__()
        self._templates: dict[str, dict[str, Any]] = {}

    def filled(self, body: Any) -> Any:
        """Put the pod template that was read in place of its version's name."""
        if not isinstance(body, list):
            return body
        made = []
        for operation in body:
            value = operation.get("value")
            if isinstance(value, dict) and TEMPLATE_OF in value:
                found = self._templates.get(value[TEMPLATE_OF])
                if found is None:
                    raise PlatformFault("conflict", "the good version's pod template is gone")
                operation = {**operation, "value": _without_hash(found["template"])}
            made.append(operation)
        return made

    def _check_version(self, label: str, text: str) -> None:
        if not str(text).strip() or "*" in str(text):
            raise ValueError(f"{label}: found {text!r}, expected an image or a label's value")

    @property
    def path(self) -> str:
        """The Deployment's."""
        return path_to("apps/v1", self.namespace, "deployments", self.name)

    async def current(self, ask: Ask) -> Current:
        """Read the Deployment and its ReplicaSets."""
        found = await self._cluster.get(self.path)
        labels = found["spec"].get("selector", {}).get("matchLabels") or {}
        selector = ",".join(f"{name}={value}" for name, value in sorted(labels.items()))
        path = path_to("apps/v1", self.namespace, "replicasets")
        sets = await self._cluster.items(path, labelSelector=selector) or []
        owner = owner_of(found, ("spec", "template"), ask.now_ms, self.writers)
        now = self.read(found, sets, described(owner, {}), owner.name)
        self._templates = now.raw["templates"]
        # Once the template is the good one there is nothing to write: the rollout is under way.
        there = now.raw["template_version"] == ask.command.to_version
        moving = there and not now.raw["found"]["complete"]
        return msgspec.structs.replace(now, transition=moving)

    def read(
        self, found: dict[str, Any], sets: list[dict[str, Any]], raw: dict[str, Any], owner: str
    ) -> Current:
        """Turn a Deployment and its ReplicaSets into shares of pods."""
        uid = found["metadata"].get("uid")
        templates: dict[str, dict[str, Any]] = {}
        pods: dict[str, float] = {}
        for one in sets:
            owners = one["metadata"].get("ownerReferences") or []
            if uid not in [reference.get("uid") for reference in owners]:
                continue
            version = self.version_of(one["spec"]["template"])
            pods[version] = pods.get(version, 0.0) + one.get("status", {}).get("replicas", 0)
            notes = one["metadata"].get("annotations") or {}
            template = templates.get(version)
            if template is None or _revision(notes) > template["revision"]:
                of_it = {"template": one["spec"]["template"], "revision": _revision(notes)}
                templates[version] = of_it
        wanted = self.version_of(found["spec"]["template"])
        pods[wanted] = max(pods.get(wanted, 0.0), 1.0)  # it is what the rollout goes to
        raw |= {"templates": templates, "found": _kept(found), "template_version": wanted}
        return Current(
            shares=shares_of(pods),
            ready=dict.fromkeys([*templates, wanted], True),
            owner=owner,
            raw=raw,
        )

    def version_of(self, template: Mapping[str, Any]) -> str:
        """Tell which version a pod template runs; a stranger has a name of its own."""
        if self.label is not None:
            text = (template.get("metadata", {}).get("labels") or {}).get(self.label, "")
        else:
            containers = template["spec"]["containers"]
            chosen = [c for c in containers if self.container in (None, c.get("name"))]
            text = chosen[0].get("image", "") if chosen else ""
        for version, known in self.versions.items():
            if known == text:
                return version
        return f"unknown:{text}"

    def _fault(self, now: Current) -> Refusal | None:
        found = now.raw["found"]
        if found["paused"] and not found["held"]:
            text = "a person paused this Deployment; it would accept a template and do nothing"
            return Refusal("refused", "H13", "paused", text)
        if found["replicas"] == 0:
            text = "this Deployment has 0 pods: scale it first, then order the rollback again"
            return Refusal("refused", "H1", "not_ready", text)
        return None

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        if refusal := self._fault(now):
            return refusal
        found = now.raw["found"]
        operations = [
            {"op": "test", "path": "/metadata/generation", "value": found["generation"]},
            {"op": "replace", "path": "/spec/template", "value": {TEMPLATE_OF: command.to_version}},
            *marking(found, command),
        ]
        if found["held"]:
            operations.append({"op": "replace", "path": "/spec/paused", "value": False})
            operations.append({"op": "remove", "path": f"/metadata/annotations/{HELD}"})
        bad = now.raw["templates"].get(now.raw["template_version"], {}).get("revision")
        undo = f"kubectl -n {self.namespace} rollout undo deployment/{self.name}"
        guard = {"generation": found["generation"]}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, **guard)],
            diff=f"Deployment {self.name}: pod template of {command.to_version} in place of that "
            f"of {now.raw['template_version']}; other fields stay",
            touches=[self.path],
            lock="generation",
            undo=[f"{undo} --to-revision={bad}"] if bad else [],
            notes=[note] if (note := now.raw.get("note")) else [],
        )

    def _hold(self, now: Current, command: Command) -> Plan | Refusal:
        found = now.raw["found"]
        if found["paused"]:
            return Plan(wanted={}, before=now.shares)
        operations = [
            {"op": "test", "path": "/metadata/generation", "value": found["generation"]},
            {"op": "add", "path": "/spec/paused", "value": True},
            *marking(found, command),
            {"op": "add", "path": f"/metadata/annotations/{HELD}", "value": "true"},
        ]
        guard = {"generation": found["generation"]}
        return Plan(
            wanted={},
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, **guard)],
            diff=f"Deployment {self.name}: spec.paused true",
            touches=[self.path],
            lock="generation",
            undo=[f"kubectl -n {self.namespace} rollout resume deployment/{self.name}"],
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once the controller says that the rollout is complete."""
        seen = compare(now, plan)
        return "pending" if seen == "settled" and not now.raw["found"]["complete"] else seen


def _revision(notes: Mapping[str, str]) -> int:
    text = notes.get(REVISION, "0")
    return int(text) if text.isdigit() else 0


def _without_hash(template: dict[str, Any]) -> dict[str, Any]:
    metadata = template.get("metadata", {})
    labels = {n: v for n, v in (metadata.get("labels") or {}).items() if n not in HASHES}
    return {**template, "metadata": {**metadata, "labels": labels}}


def _kept(found: Mapping[str, Any]) -> dict[str, Any]:
    """Keep of a Deployment what plans need; the pod's environment may hold secrets."""
    spec, status = found["spec"], found.get("status", {})
    notes = found["metadata"].get("annotations") or {}
    generation, replicas = found["metadata"].get("generation", 0), spec.get("replicas", 1)
    updated = status.get("updatedReplicas", 0)
    complete = (
        status.get("observedGeneration", 0) >= generation
        and updated == replicas == status.get("replicas", 0)
        and status.get("availableReplicas", 0) >= updated
    )
    return {
        "generation": generation,
        "replicas": replicas,
        "paused": bool(spec.get("paused")),
        "held": bool(spec.get("paused")) and notes.get("rollbackd.io/held") == "true",
        "complete": complete,
        "metadata": {"annotations": dict.fromkeys(notes, "")},
    }
