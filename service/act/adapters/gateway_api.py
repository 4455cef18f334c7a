"""The Gateway API, and Linkerd by it: weights of an HTTPRoute or GRPCRoute.

How. A version is a backend Service. Weights are proportions with a default of 1; written are whole
percents. Every rule that names the backend is changed, rules that send only to it are turned, and
request mirrors to it are removed. It has settled when every parent that the route names has
accepted it and resolved its backends, at the generation that was written; a parent that says
nothing has not.

Nobody forbids weights that are all 0, and what a lone backend at weight 0 gets differs between
implementations: neither is ever written.

References
----------
Gateway API: HTTPRoute, BackendRef.weight, RouteStatus. Linkerd: HTTPRoute with a Service as parent.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.plugins import plugin
from service.act.adapters.cluster import path_to
from service.act.adapters.routed import Routed
from service.act.adapters.routes import Leg, Mirror, Route
from service.act.plans import Current, Plan, Settled, compare

_PLURALS = {"HTTPRoute": "httproutes", "GRPCRoute": "grpcroutes"}


@plugin("gateway_api")
@dataclass(kw_only=True)
class GatewayApi(Routed):
    """One route.

    Parameters
    ----------
    versions : dict
        Version -> name of the Service, in the route's namespace.
    route : str
        `HTTPRoute` or `GRPCRoute`.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    route: str = "HTTPRoute"

    resource: ClassVar[str] = "httproute"
    object_kind: ClassVar[str] = "HTTPRoute"
    field_path: ClassVar[tuple[str, ...]] = ("spec", "rules")

    def __post_init__(self) -> None:
        """Know the two kinds, no others."""
        super().__post_init__()
        if self.route not in _PLURALS:
            raise ValueError(f"route: found {self.route!r}, expected HTTPRoute or GRPCRoute")

    @property
    def path(self) -> str:
        """The route's."""
        group = "gateway.networking.k8s.io/v1"
        return path_to(group, self.namespace, _PLURALS[self.route], self.name)

    def routes_of(self, found: Mapping[str, Any]) -> list[Route]:
        """Read the rules."""
        rules = found.get("spec", {}).get("rules") or []
        return [
            Route(tuple(self._legs(rule, at)), tuple(self._mirrors(rule, at)))
            for at, rule in ((f"/spec/rules/{index}", rule) for index, rule in enumerate(rules))
        ]

    def _legs(self, rule: Mapping[str, Any], at: str) -> Iterator[Leg]:
        backends = rule.get("backendRefs") or []
        for index, backend in enumerate(backends):
            path = f"{at}/backendRefs/{index}"
            weight = 1 if len(backends) == 1 else backend.get("weight", 1)
            tests = ((f"{path}/name", backend.get("name")),)
            yield Leg(path, self._version_of(backend), float(weight), tests)

    def _mirrors(self, rule: Mapping[str, Any], at: str) -> Iterator[Mirror]:
        for index, one in enumerate(rule.get("filters") or []):
            if backend := (one.get("requestMirror") or {}).get("backendRef"):
                yield Mirror(f"{at}/filters/{index}", self._version_of(backend), one)

    def _version_of(self, backend: Mapping[str, Any]) -> str:
        name = str(backend.get("name", ""))
        group, kind = backend.get("group") or "", backend.get("kind") or "Service"
        ours = backend.get("namespace") in (None, self.namespace)
        if group in ("", "core") and kind == "Service" and ours:
            for version, known in self.versions.items():
                if known == name:
                    return version
        return f"unknown:{backend.get('namespace', self.namespace)}/{kind}/{name}"

    def turn(self, leg: Leg, version: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Name another Service; the port stays."""
        path, old = leg.tests[0]
        return (
            [{"op": "replace", "path": path, "value": self.versions[version]}],
            [{"op": "replace", "path": path, "value": old}],
        )

    def is_confirmed(self, found: Mapping[str, Any]) -> bool:
        """Whether every parent has accepted this generation."""
        generation = found["metadata"].get("generation", 0)
        wanted = len(found.get("spec", {}).get("parentRefs") or [])
        parents = found.get("status", {}).get("parents") or []
        return 0 < wanted <= len(parents) and all(
            _is_true(parent, name, generation)
            for parent in parents
            for name in ("Accepted", "ResolvedRefs")
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once the gateways say that they serve it."""
        seen = compare(now, plan)
        return "pending" if seen == "settled" and not now.raw["confirmed"] else seen


def _is_true(parent: Mapping[str, Any], name: str, generation: int) -> bool:
    return any(
        condition.get("type") == name
        and condition.get("status") == "True"
        and condition.get("observedGeneration") == generation
        for condition in parent.get("conditions") or []
    )
