"""What the adapters of weighted routes share: the reading, the patch, and the owner's look-up."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from schemas.commands import Action, Command
from service.act.adapters.base import Ask
from service.act.adapters.cluster import JSON_PATCH, check_object_name
from service.act.adapters.clustered import (
    Clustered,
    described,
    marking,
    readiness,
    request_of,
    scale_first,
    undo_of,
)
from service.act.adapters.owners import Owner, owner_of, rollout_that_routes
from service.act.adapters.routes import Leg, Route, cannot, change_of, read_routes
from service.act.adapters.targets import whole_weights
from service.act.plans import Current, Plan, Refusal

ROLLOUTS = "/apis/argoproj.io/v1alpha1/namespaces/{}/rollouts"


@dataclass(kw_only=True)
class Routed(Clustered):
    """One resource with weighted routes.

    Parameters
    ----------
    deployments : dict, optional
        Version -> Deployment behind it: a version without ready pods gets no traffic then, and one
        that sleeps at zero is scaled up first.
    """

    deployments: dict[str, str] = field(default_factory=dict)

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})
    resource: ClassVar[str]
    """As kubectl knows it."""
    object_kind: ClassVar[str]
    field_path: ClassVar[tuple[str, ...]]

    def __post_init__(self) -> None:
        """Check the names of Deployments as well."""
        super().__post_init__()
        for version, name in self.deployments.items():
            if version not in self.versions:
                raise ValueError(f"deployments.{version}: found a version that versions lacks")
            check_object_name(f"deployments.{version}", name)

    async def current(self, ask: Ask) -> Current:
        """Read the routes, their owner and, where it is known, what is behind them."""
        found = await self._get()
        owner = owner_of(found, self.field_path, ask.now_ms, self.writers)
        if not owner.refusal:
            rollouts = await self._cluster.items(ROLLOUTS.format(self.namespace))
            if rollout := rollout_that_routes(
                rollouts, self.object_kind, self.namespace, self.name
            ):
                text = f"{rollout} moves this {self.object_kind}: use the adapter argo_rollouts"
                owner = Owner(rollout, text)
        routes = self.routes_of(found)
        seen = read_routes(routes, list(self.versions))
        pods = await self.pods_of(ask, self.deployments)
        raw = {
            "routes": routes,
            "resource_version": found["metadata"]["resourceVersion"],
            "annotations": sorted(found["metadata"].get("annotations") or {}),
            "pods": {name: one.as_dict() for name, one in pods.items()},
            "confirmed": self.is_confirmed(found),
        }
        return Current(
            shares=seen.shares,
            ready=self._ready(pods, seen.shares),
            lingering=seen.lingering,
            transition=any(one.rising for one in pods.values()),
            owner=owner.name,
            raw=described(owner, raw),
        )

    def _ready(self, pods: Mapping[str, Any], shares: Mapping[str, float]) -> dict[str, bool]:
        # Without a Deployment to look at, a version that the routes name has to do.
        ready = dict.fromkeys((v for v in shares if v not in self.deployments), True)
        return ready | readiness(pods)

    async def _get(self) -> dict[str, Any]:
        return await self._cluster.get(self.path)

    @abstractmethod
    def routes_of(self, found: Mapping[str, Any]) -> list[Route]:
        """Read the routes of a resource."""

    def is_confirmed(self, found: Mapping[str, Any]) -> bool:
        """Whether the platform says that it serves what is stored."""
        return True

    @abstractmethod
    def turn(self, leg: Leg, version: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Make a leg point to another version; and back."""

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        if first := scale_first(now, command, wanted):
            return first
        weights = whole_weights(wanted)
        if isinstance(weights, Refusal):
            return weights
        routes = now.raw["routes"]
        if text := cannot(routes, weights):
            return Refusal("refused", "H1", "no_target", text)
        change = change_of(routes, weights, list(self.versions), self.turn)
        lock = now.raw["resource_version"]
        found = {"metadata": {"annotations": dict.fromkeys(now.raw["annotations"], "")}}
        guard = {"op": "test", "path": "/metadata/resourceVersion", "value": lock}
        operations = [guard, *change.operations, *marking(found, command)]
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, resourceVersion=lock)],
            diff=f"{self.object_kind} {self.name}: {'; '.join(change.words)}",
            touches=[self.path],
            lock="resourceVersion",
            undo=[undo_of(self.resource, self.namespace, self.name, change.undo)],
            notes=[now.raw["note"]] if now.raw["note"] else [],
        )
