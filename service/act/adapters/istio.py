"""Istio: weights of a VirtualService.

How. A version is a destination, by host or by host and subset. Every `http`, `tls` and `tcp` route
that names it is changed; matches that send testers to the bad version and mirrors are turned too.
Weights of a route total 100, which the API server does not check and Istio's own webhook does, so
the plan does. `status` says nothing here: proxies follow within seconds, and only the share of
predictions proves it.

Sticky users (a DestinationRule with consistent hashing) may stay with a version that other routes
still reach; DestinationRules are not edited.

References
----------
Istio: networking.istio.io VirtualService. Argo Rollouts issues 849, 1838.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.plugins import plugin
from service.act.adapters.base import PlatformFault
from service.act.adapters.cluster import path_to
from service.act.adapters.routed import Routed
from service.act.adapters.routes import Leg, Mirror, Route

GROUP = "networking.istio.io"
_DESTINATION = re.compile(r"[a-z0-9][-a-z0-9.]{0,252}(/[A-Za-z0-9][-A-Za-z0-9_.]{0,62})?")
_SERVED = ("v1", "v1beta1", "v1alpha3")


@plugin("istio")
@dataclass(kw_only=True)
class Istio(Routed):
    """One VirtualService.

    Parameters
    ----------
    versions : dict
        Version -> destination: `host` or `host/subset`, as the VirtualService writes them.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    resource: ClassVar[str] = "virtualservice"
    object_kind: ClassVar[str] = "VirtualService"
    field_path: ClassVar[tuple[str, ...]] = ("spec", "http")

    def __post_init__(self) -> None:
        """Nothing is known of the API server yet."""
        super().__post_init__()
        self._api = ""

    def _check_version(self, label: str, text: str) -> None:
        if not _DESTINATION.fullmatch(str(text)):
            raise ValueError(f"{label}: found {text!r}, expected host or host/subset")

    @property
    def path(self) -> str:
        """The VirtualService's."""
        api = f"{GROUP}/{self._api or _SERVED[0]}"
        return path_to(api, self.namespace, "virtualservices", self.name)

    async def _get(self) -> dict[str, Any]:
        if not self._api:
            group = await self._cluster.get(f"/apis/{GROUP}")
            served = {entry.get("version") for entry in group.get("versions", [])}
            known = [version for version in _SERVED if version in served]
            if not known:
                raise PlatformFault("permanent", f"the cluster serves no known version of {GROUP}")
            self._api = known[0]
        return await super()._get()

    def routes_of(self, found: Mapping[str, Any]) -> list[Route]:
        """Read http, tls and tcp routes."""
        routes = []
        for protocol in ("http", "tls", "tcp"):
            for index, entry in enumerate(found.get("spec", {}).get(protocol) or []):
                at = f"/spec/{protocol}/{index}"
                legs = tuple(self._legs(entry, at))
                routes.append(Route(legs, tuple(self._mirrors(entry, at))))
        return routes

    def _legs(self, entry: Mapping[str, Any], at: str) -> Iterator[Leg]:
        legs = entry.get("route") or []
        for index, leg in enumerate(legs):
            path, destination = f"{at}/route/{index}", leg.get("destination") or {}
            # Alone, a destination gets everything, whatever its weight says.
            weight = 100 if len(legs) == 1 else leg.get("weight", 0)
            tests = ((f"{path}/destination", destination),)
            yield Leg(path, self._version_of(destination), float(weight), tests)

    def _mirrors(self, entry: Mapping[str, Any], at: str) -> Iterator[Mirror]:
        if mirror := entry.get("mirror"):
            version = self._version_of(mirror)
            yield Mirror(f"{at}/mirror", version, mirror)
            for name in ("mirrorPercentage", "mirrorPercent", "mirror_percent"):
                if name in entry:
                    yield Mirror(f"{at}/{name}", version, entry[name])
        for index, mirror in enumerate(entry.get("mirrors") or []):
            version = self._version_of(mirror.get("destination") or {})
            yield Mirror(f"{at}/mirrors/{index}", version, mirror)

    def _version_of(self, destination: Mapping[str, Any]) -> str:
        host, subset = str(destination.get("host", "")), destination.get("subset")
        whole = f"{host}/{subset}" if subset else host
        for version, known in self.versions.items():
            if known == whole:
                return version
        return f"unknown:{whole}"

    def turn(self, leg: Leg, version: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Point a leg to another version; its port stays."""
        (path, old), host = leg.tests[0], self.versions[version].partition("/")
        new = {"host": host[0], **({"subset": host[2]} if host[2] else {})}
        new |= {"port": old["port"]} if "port" in old else {}
        return (
            [{"op": "replace", "path": path, "value": new}],
            [{"op": "replace", "path": path, "value": old}],
        )
