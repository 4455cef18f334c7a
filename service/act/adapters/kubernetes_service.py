"""A blue/green Service: one label of its selector says which version gets all traffic.

How. The label's value is replaced under the resourceVersion and a `test` of the old value. A
selector that matches nothing empties the Service at once, so every version names its Deployment,
which must have an available pod; one that sleeps at zero is scaled up first. It has settled when
the Service's EndpointSlices list ready pods of the good Deployment and no others.

Connections that are kept alive stay on the old pods until they close; the receipt says so. Traffic
cannot be shifted or held here.

Refused here: a Service whose selector Argo Rollouts switches.

References
----------
Kubernetes API: v1 Service, discovery.k8s.io/v1 EndpointSlice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask
from service.act.adapters.cluster import JSON_PATCH, check_object_name, path_to
from service.act.adapters.clustered import (
    Clustered,
    described,
    marking,
    readiness,
    request_of,
    scale_first,
    undo_of,
)
from service.act.adapters.owners import owner_of
from service.act.plans import Current, Plan, Refusal, Settled, compare

_ALIVE = "connections that are kept alive stay on the old pods until they close"


@plugin("kubernetes_service")
@dataclass(kw_only=True)
class KubernetesService(Clustered):
    """One Service.

    Parameters
    ----------
    versions : dict
        Version -> value of the label in the Service's selector.
    deployments : dict
        Version -> name of the Deployment behind it, for every version.
    selector : str
        The label.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    deployments: dict[str, str] = field(default_factory=dict)
    selector: str = "version"

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "promote"})

    def __post_init__(self) -> None:
        """Refuse a version that could not be checked for pods."""
        super().__post_init__()
        if set(self.deployments) != set(self.versions):
            raise ValueError("deployments: expected one for each of versions, and no others")
        for version, name in self.deployments.items():
            check_object_name(f"deployments.{version}", name)

    @property
    def path(self) -> str:
        """The Service's."""
        return path_to("v1", self.namespace, "services", self.name)

    async def current(self, ask: Ask) -> Current:
        """Read the Service, the Deployments and the endpoints."""
        found = await self._cluster.get(self.path)
        selector = found["spec"].get("selector") or {}
        value = str(selector.get(self.selector, ""))
        version = next((v for v, known in self.versions.items() if known == value), "")
        version = version or f"unknown:{value}"
        owner = owner_of(found, ("spec", "selector"), ask.now_ms, self.writers)
        pods = await self.pods_of(ask, self.deployments)
        path = path_to("discovery.k8s.io/v1", self.namespace, "endpointslices")
        label = f"kubernetes.io/service-name={self.name}"
        slices = await self._cluster.items(path, labelSelector=label) or []
        raw = {
            "value": value,
            "resource_version": found["metadata"]["resourceVersion"],
            "pods": {name: one.as_dict() for name, one in pods.items()},
            "annotations": sorted(found["metadata"].get("annotations") or {}),
            "serving": endpoints_of(slices),
        }
        return Current(
            shares={version: 100.0},
            ready=readiness(pods),
            transition=any(one.rising for one in pods.values()),
            owner=owner.name,
            raw=described(owner, raw),
        )

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        if first := scale_first(now, command, wanted):
            return first
        label = self.selector.replace("~", "~0").replace("/", "~1")
        path, old = f"/spec/selector/{label}", now.raw["value"]
        value, lock = self.versions[command.to_version], now.raw["resource_version"]
        found = {"metadata": {"annotations": dict.fromkeys(now.raw["annotations"], "")}}
        operations = [
            {"op": "test", "path": "/metadata/resourceVersion", "value": lock},
            {"op": "test", "path": path, "value": old},
            {"op": "replace", "path": path, "value": value},
            *marking(found, command),
        ]
        undo = [{"op": "replace", "path": path, "value": old}]
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, resourceVersion=lock)],
            diff=f"Service {self.name}: selector {self.selector} from {old} to {value}",
            touches=[self.path],
            lock="resourceVersion",
            undo=[undo_of("service", self.namespace, self.name, undo)],
            notes=[_ALIVE, *([now.raw["note"]] if now.raw["note"] else [])],
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once only ready pods of the good version are behind the Service."""
        seen = compare(now, plan)
        good = [self.deployments[version] for version in plan.wanted]
        serving: Sequence[str] = now.raw["serving"]
        whole = serving and all(pod.startswith(f"{name}-") for pod in serving for name in good)
        return "pending" if seen == "settled" and not whole else seen


def endpoints_of(slices: Sequence[dict[str, Any]]) -> list[str]:
    """Name the ready pods behind a Service."""
    return sorted(
        str(endpoint.get("targetRef", {}).get("name", "?"))
        for one in slices
        for endpoint in one.get("endpoints") or []
        if endpoint.get("conditions", {}).get("ready", True)
    )
