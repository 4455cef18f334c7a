"""What all adapters of the Kubernetes family share: settings, readiness, scaling first, the marks.

How. A target that has no pod must not get traffic. Where the settings name the Deployment behind a
version, its available pods are read; a good version that was scaled to zero is scaled to the bad
one's size first, and traffic moves only when it is ready. A version that is there and not ready is
refused, traffic untouched.

Refused here: scaling anything down.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.commands import Command
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.cluster import MERGE_PATCH, Cluster, check_object_name, path_to
from service.act.adapters.owners import Owner
from service.act.adapters.targets import decide
from service.act.plans import Applied, Current, Plan, Refusal, fault_of_expected
from service.addresses import Reach, read_networks

MARKS = {"rollbackd.io/incident": "incident_id", "rollbackd.io/command": "command_id"}


@dataclass(kw_only=True)
class Clustered(Adapter):
    """One object of one cluster.

    Parameters
    ----------
    name, namespace : str
        The object. Nothing else is ever written, except what is scaled up.
    versions : dict
        Version -> what it is on the platform. Nothing else is ever touched.
    model : str, optional
        The one model that the object serves; commands about others are refused.
    kubeconfig, context : str, optional
        A file outside the cluster; left out, the service account inside it is used.
    allow_private : list of str
        Networks of the API server that are not public but meant, such as `10.1.0.0/16`.
    writers : list of str
        Field managers (or what their names begin with) that write the same field and are fine.
    call_s, settle_s, recheck_s : float
        One call; how long the effect may take; when it is looked at once more. Seconds.
    """

    name: str
    versions: dict[str, str]
    namespace: str = "default"
    model: str | None = None
    kubeconfig: str | None = None
    context: str | None = None
    allow_private: list[str] = field(default_factory=list)
    writers: list[str] = field(default_factory=list)
    call_s: float = 10.0
    settle_s: float = 60.0
    recheck_s: float = 1.0

    def __post_init__(self) -> None:
        """Refuse names that could become another path, and build what calls."""
        for label, text in (("name", self.name), ("namespace", self.namespace)):
            check_object_name(label, text)
        if len(self.versions) < 2 or len(set(self.versions.values())) != len(self.versions):
            text = "versions: expected at least two versions, each with a target of its own"
            raise ValueError(text)
        for version, shown in self.versions.items():
            self._check_version(f"versions.{version}", shown)
        reach = Reach(allow_private=read_networks(self.allow_private))
        self._cluster = Cluster(self.kubeconfig, self.context, reach, self.call_s)
        self._scaled: set[tuple[str, str]] = set()

    def _check_version(self, label: str, text: str) -> None:
        check_object_name(label, text)

    @property
    def pace(self) -> Pace:
        """Look every second; several calls make one reading."""
        return Pace(3 * self.call_s, self.settle_s, poll_s=1.0, recheck_s=self.recheck_s)

    @property
    @abstractmethod
    def path(self) -> str:
        """Where the object is."""

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Ask the common questions, then plan requests."""
        if self.model is not None and command.model != self.model:
            text = f"this adapter serves {self.model!r}, not {command.model!r}"
            return Refusal("refused", "H13", "no_target", text)
        if refused := now.raw.get("refusal"):
            return Refusal("refused", "H13", "owned", str(refused))
        if command.action == "hold":
            return fault_of_expected(now, command) or self._hold(now, command)
        decided = decide(now, command, self.versions, self.model)
        if isinstance(decided, Plan | Refusal):
            return decided
        return self._plan(now, command, decided)

    @abstractmethod
    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal: ...

    def _hold(self, now: Current, command: Command) -> Plan | Refusal:
        return Refusal("refused", "H13", "unknown_verb", "this platform has nothing to hold")

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Scale first where that is asked for; else send the requests under their guards."""
        log: list[dict[str, Any]] = []
        answer: Mapping[str, Any] = {}
        for done, request in enumerate(plan.requests):
            guard = json.loads(request.get("guard", "{}"))
            path, body = request["path"], self.filled(json.loads(request["body"]))
            try:
                answer = await self._cluster.patch(path, body, request["type"], **guard)
            except PlatformFault as fault:
                raise PlatformFault(fault.kind, str(fault), fault.retry_after_s, done) from None
            log.append({"method": "PATCH", "path": path, "status": 200})
            if request.get("then") == "wait":
                self._scaled.add((ask.command.command_id, path))
                text = f"{path} was scaled up first; traffic moves when it is ready"
                raise PlatformFault("busy", text)
        if ask.command.action != "hold":
            return Applied(log=log)
        if self._is_held(answer):  # the answer is the object as it is stored
            return Applied(status="applied", shares=plan.before, log=log)
        raise PlatformFault("permanent", "it said yes to a hold and did not store it")

    def filled(self, body: Any) -> Any:
        """Put into a request what a stored plan must not hold."""
        return body

    def _is_held(self, stored: Mapping[str, Any]) -> bool:
        return bool(stored.get("spec", {}).get("paused"))

    async def missing(self) -> list[str]:
        """Read the object once."""
        try:
            await self._cluster.get(self.path)
        except PlatformFault as fault:
            return [str(fault)]
        return []

    async def pods_of(self, ask: Ask, deployments: Mapping[str, str]) -> dict[str, Pods]:
        """Read the Deployment behind each version; a missing one is left out."""
        found: dict[str, Pods] = {}
        for version, name in deployments.items():
            path = path_to("apps/v1", self.namespace, "deployments", name)
            one = await self._cluster.find(path)
            if one is None:
                continue
            replicas = int(one["spec"].get("replicas", 1))
            available = int(one.get("status", {}).get("availableReplicas", 0))
            waited = (ask.command.command_id, f"{path}/scale") in self._scaled
            found[version] = Pods(path, replicas, available, waited and not available)
        return found


@dataclass(frozen=True)
class Pods:
    """What stands behind a version."""

    path: str
    replicas: int
    available: int
    rising: bool
    """It was scaled up for this command and is not ready yet."""

    def as_dict(self) -> dict[str, Any]:
        """For what is kept of a reading."""
        return {"path": self.path, "replicas": self.replicas, "available": self.available}


def readiness(pods: Mapping[str, Pods]) -> dict[str, bool]:
    """Say which versions could take traffic, after being scaled up where they have no pods."""
    return {name: p.available > 0 or p.replicas == 0 or p.rising for name, p in pods.items()}


def scale_first(now: Current, command: Command, wanted: Mapping[str, float]) -> Plan | None:
    """Plan only to scale up what shall serve and has no pods, to the size of what serves now."""
    pods: Mapping[str, Any] = now.raw.get("pods") or {}
    size = max([1, *(p["replicas"] for p in pods.values())])
    asleep = [v for v, share in wanted.items() if share and v in pods and not pods[v]["replicas"]]
    if not asleep:
        return None
    paths = [f"{pods[version]['path']}/scale" for version in asleep]
    body = json.dumps({"spec": {"replicas": size}})
    return Plan(
        wanted=dict(wanted),
        before=now.shares,
        requests=[
            {"path": path, "type": MERGE_PATCH, "body": body, "then": "wait"} for path in paths
        ],
        diff=f"scale {', '.join(asleep)} from 0 to {size} pods, then {command.action}",
        touches=paths,
    )


def described(owner: Owner, raw: Mapping[str, Any]) -> dict[str, Any]:
    """Add to a reading what its owner means for a plan."""
    return {**raw, "refusal": owner.refusal, "note": owner.note}


def marking(found: Mapping[str, Any], command: Command) -> list[dict[str, Any]]:
    """Give the operations that mark an object with the incident and the command."""
    values = {name: getattr(command, field_) for name, field_ in MARKS.items()}
    if not found.get("metadata", {}).get("annotations"):
        return [{"op": "add", "path": "/metadata/annotations", "value": values}]
    return [
        {"op": "add", "path": f"/metadata/annotations/{name.replace('/', '~1')}", "value": value}
        for name, value in values.items()
    ]


def request_of(
    path: str, operations: Sequence[Mapping[str, Any]] | Mapping[str, Any], kind: str, **guard: Any
) -> dict[str, str]:
    """Write a request as plain data."""
    body, guarded = json.dumps(operations), json.dumps(guard)
    return {"path": path, "type": kind, "body": body, "guard": guarded}


def undo_of(kind: str, namespace: str, name: str, patch: object) -> str:
    """Say how a person takes a change back."""
    text = json.dumps(patch)
    return f"kubectl -n {namespace} patch {kind} {name} --type=json -p '{text}'"
