r"""Envoy: weights of one route's clusters, through the runtime layer of its admin port.

How. The route splits by `weighted_clusters` with a `runtime_key_prefix`, and `layered_runtime` has
an `admin_layer`. A version is a cluster. The configured weights are read from the configuration
dump, what overrides them from the runtime; all keys are set in one request, which holds from the
next request on. Several Envoys with the same route are one target: each is told, and while they
differ the state is between.

What this platform does that others do not:

- 200 proves nothing: a misspelt key is taken and does nothing, a value that is no number silently
  brings the configured weight back, all zeros answer 404 to everyone. So the keys are taken from
  the dump, the values are whole numbers with the configured total, and both are read back.
- Overrides are gone after a restart; then the configured split serves again. Every receipt says so.
- There is no precondition: the weights are compared right before they are set, the lock is
  advisory.
- The admin port has no authentication. Keep it on loopback or behind a proxy that allows the four
  calls of `deploy/iam/envoy.json`.

Refused here: routes that come from a control plane which would put its own weights back (use the
adapter of that), clusters that are not in the map, an override without a configured route.

References
----------
Envoy 1.40: administration interface; config.route.v3.WeightedCluster.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import urlencode

import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.calls import Call, Caller, fault_of, read_object
from service.act.adapters.targets import (
    check_name,
    check_versions,
    decide,
    shares_of,
    words_of_shares,
)
from service.act.plans import Applied, Current, Plan, Refusal
from service.addresses import read_networks
from service.http import Http, Reach

NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_RESTART = "a restart of Envoy brings the configured weights back; change the configuration as well"


@plugin("envoy")
@dataclass
class Envoy(Adapter):
    """One route on one or several Envoys.

    Parameters
    ----------
    admins : list of str
        Addresses of the admin ports.
    prefix : str
        The route's `runtime_key_prefix`.
    clusters : dict
        Version -> cluster. Nothing else is ever touched.
    route_config : str, optional
        Name of the route configuration; needed where there are many and the dump grows large.
    model : str, optional
        The one model that the route serves.
    allow_http, allow_private : bool, list of str
        Allow http beyond loopback; networks that are not public but meant.
    deadline_s : float
        Total time of one call, seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    admins: list[str]
    prefix: str
    clusters: dict[str, str]
    route_config: str | None = None
    model: str | None = None
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)
    deadline_s: float = 5.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Refuse names that could become another key."""
        check_name("prefix", self.prefix, NAME)
        check_versions("clusters", self.clusters, NAME)
        if self.route_config is not None:
            check_name("route_config", self.route_config, NAME)
        if not self.admins:
            raise ValueError("admins: expected a list of addresses, such as http://127.0.0.1:9901")
        http = Http(Reach(self.allow_http, read_networks(self.allow_private)), self.deadline_s)
        self._callers = [Caller(http, root) for root in self.admins]

    @property
    def pace(self) -> Pace:
        """A weight holds from the next request on."""
        calls = 5 * len(self.admins) + 1
        return Pace(calls * self.deadline_s, settle_s=5.0, poll_s=0.5, recheck_s=1.0)

    async def current(self, ask: Ask) -> Current:
        """Read every Envoy."""
        weights = [await self._weights(caller) for caller in self._callers]
        healthy = [await self._healthy(caller) for caller in self._callers]
        return read_fleet(weights, healthy, self.clusters)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Set all keys of the route on every Envoy that has others."""
        wanted = decide(now, command, self.clusters, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        requests, undo = [], []
        for admin, configured in enumerate(now.raw["fleet"]):
            total = sum(configured.values()) or 100
            weights = scaled(wanted, total, self.clusters)
            if weights is None:
                text = f"a share that small cannot be set with weights that total {total}"
                return Refusal("refused", "H13", "no_weight", text)
            value = {cluster: weights.get(cluster, 0) for cluster in configured}
            was = msgspec.json.encode(configured, order="sorted").decode()
            if value != configured:
                keys = urlencode({f"{self.prefix}.{c}": w for c, w in value.items()})
                requests.append({"admin": str(admin), "keys": keys, "was": was})
                undo.append(f"{self.prefix} on Envoy {admin}: {was}")
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=requests,
            diff=f"{self.prefix} on {len(requests)} Envoy(s): {words_of_shares(wanted)}",
            touches=[f"{self.prefix}.{cluster}" for cluster in self.clusters.values()],
            undo=undo,
            notes=[_RESTART],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Tell one Envoy after the other; the first that does not take it ends it."""
        log: list[dict[str, Any]] = []
        for done, request in enumerate(plan.requests):
            caller = self._callers[int(request["admin"])]
            try:
                weights = await self._weights(caller)
                if msgspec.json.encode(weights, order="sorted").decode() != request["was"]:
                    raise PlatformFault("conflict", "the weights were changed since they were read")
                call = Call("POST", f"/runtime_modify?{request['keys']}", writes=True)
                reply = await caller.send(call)
                log.append({"call": "runtime_modify", "status": reply.status})
                if b"No admin layer" in reply.body:
                    text = "Envoy has no admin_layer in its layered_runtime; add one"
                    raise PlatformFault("permanent", text)
                if reply.status != 200:
                    raise fault_of(reply, "runtime_modify", writes=True)
            except PlatformFault as fault:
                raise PlatformFault(fault.kind, str(fault), fault.retry_after_s, done) from None
        return Applied(log=log)

    async def missing(self) -> list[str]:
        """Check that every Envoy has the route and every cluster of the map."""
        lines = []
        for admin, caller in enumerate(self._callers):
            try:
                weights = await self._weights(caller)
            except PlatformFault as fault:
                return [str(fault)]
            lines += [
                f"version {version!r}: the route on Envoy {admin} has no cluster {cluster!r}"
                for version, cluster in self.clusters.items()
                if cluster not in weights
            ]
        return lines

    async def _weights(self, caller: Caller) -> dict[str, int]:
        """Read what holds: the configured weights with the runtime's over them."""
        found: list[dict[str, int]] = []
        for kind in ("static_route_configs", "dynamic_route_configs"):
            query = {"resource": kind}
            if self.route_config is not None:
                query["name_regex"] = re.escape(self.route_config)
            dump = await self._get(caller, f"/config_dump?{urlencode(query)}")
            found += splits_in(dump, self.prefix)
        if not found:
            text = f"Envoy has no route with runtime_key_prefix {self.prefix!r}"
            raise PlatformFault("permanent", text)
        if any(one != found[0] for one in found):
            text = f"several routes use {self.prefix!r} with other weights; give each its own"
            raise PlatformFault("permanent", text)
        entries = (await self._get(caller, "/runtime?format=json")).get("entries", {})
        return overridden(found[0], entries, self.prefix)

    async def _healthy(self, caller: Caller) -> dict[str, int]:
        """Count the hosts that can take requests, by cluster."""
        names = "|".join(re.escape(name) for name in self.clusters.values())
        query = urlencode(
            {"format": "json", "filter": rf"^cluster\.({names})\.membership_healthy$"}
        )
        stats = (await self._get(caller, f"/stats?{query}")).get("stats", [])
        return {
            one["name"].removeprefix("cluster.").removesuffix(".membership_healthy"): one["value"]
            for one in stats
            if "name" in one
        }

    async def _get(self, caller: Caller, path: str) -> dict[str, Any]:
        reply = await caller.send(Call("GET", path))
        what = f"GET {path.partition('?')[0]}"
        if reply.status != 200:
            raise fault_of(reply, what)
        return read_object(reply, what)


def splits_in(dump: Any, prefix: str) -> list[dict[str, int]]:
    """Find the weighted clusters with a prefix, anywhere in a configuration dump."""
    return [
        {one["name"]: int(one.get("weight", 0)) for one in split.get("clusters", [])}
        for split in _weighted(dump)
        if split.get("runtime_key_prefix") == prefix
    ]


def _weighted(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, dict):
        for name, value in node.items():
            if name == "weighted_clusters" and isinstance(value, dict):
                yield value
            else:
                yield from _weighted(value)
    elif isinstance(node, list):
        for value in node:
            yield from _weighted(value)


def overridden(
    configured: Mapping[str, int], entries: Mapping[str, Any], prefix: str
) -> dict[str, int]:
    """Lay the runtime over configured weights; what is no number leaves them, as in Envoy.

    Examples
    --------
    >>> overridden({"a": 90, "b": 10}, {"p.a": {"final_value": "100"}, "p.b": {}}, "p")
    {'a': 100, 'b': 10}
    """
    weights = dict(configured)
    for cluster in weights:
        text = str(entries.get(f"{prefix}.{cluster}", {}).get("final_value", ""))
        if re.fullmatch(r"\d{1,9}", text):
            weights[cluster] = int(text)
    return weights


def scaled(
    wanted: Mapping[str, float], total: int, clusters: Mapping[str, str]
) -> dict[str, int] | None:
    """Turn percents into weights of a total; None where one would vanish.

    Examples
    --------
    >>> scaled({"v41": 95.0, "v42": 5.0}, 1000, {"v41": "a", "v42": "b"})
    {'a': 950, 'b': 50}
    """
    weights = {clusters[version]: round(share * total / 100) for version, share in wanted.items()}
    if any(weights[clusters[version]] == 0 for version, share in wanted.items() if share > 0):
        return None
    largest = max(weights, key=lambda cluster: weights[cluster])
    weights[largest] += total - sum(weights.values())
    return weights


def read_fleet(
    fleet: list[dict[str, int]], healthy: list[dict[str, int]], clusters: Mapping[str, str]
) -> Current:
    """Read who serves over all Envoys; a cluster without a version counts as a stranger."""
    version_of = {cluster: version for version, cluster in clusters.items()}
    shares: dict[str, float] = {}
    for weights in fleet:
        for cluster, share in shares_of(weights).items():
            version = version_of.get(cluster, f"cluster:{cluster}")
            shares[version] = shares.get(version, 0.0) + share / len(fleet)
    ready = {
        version: all(hosts.get(cluster, 0) >= 1 for hosts in healthy)
        for version, cluster in clusters.items()
        if all(cluster in weights for weights in fleet)
    }
    return Current(shares=shares, ready=ready, raw={"fleet": fleet})
