"""Azure Machine Learning: the traffic map of an online endpoint.

How. A version is a deployment of one endpoint. PATCH takes only tags and identity there, so the
whole resource is read, its traffic replaced, and put back, everything else as it was. Zero entries
are left out, mirrored traffic is taken away in the same call.

What this platform does that others do not:

- A put is a long operation; after it is over the old traffic may be read for a while. So it is
  followed, and then read until it shows.
- A put while the endpoint is `Updating` is answered 409; it is waited out.
- Whether `If-Match` is honoured is not documented. It is sent where there is an etag, and traffic
  and time of change are compared right before the put; the lock stays advisory.

Refused here: shares that are no whole percents, creating or scaling deployments, mirroring.

References
----------
Azure Resource Manager: Microsoft.MachineLearningServices/workspaces/onlineEndpoints.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from schemas.secrets import Secret
from service.act.adapters import tokens
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.calls import Call, Caller, fault_of, path_on, read_object
from service.act.adapters.targets import (
    as_secret,
    check_name,
    check_versions,
    decide,
    whole_weights,
    words_of_shares,
)
from service.act.plans import Applied, Current, Plan, Refusal
from service.addresses import read_networks
from service.clock import Clock, WallClock
from service.http import Http, Reach

API = "2025-12-01"
CLOUD = "https://management.azure.com"
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.()-]{0,89}")
_MOVING = frozenset({"Creating", "Updating", "Provisioning", "Scaling", "Deleting"})
_OWN = frozenset({"provisioningState", "scoringUri", "swaggerUri", "mirrorTraffic", "traffic"})
"""Properties that the platform writes, or that are written anew."""


@plugin("azure_ml")
@dataclass
class AzureML(Adapter):
    """One online endpoint.

    Parameters
    ----------
    subscription, resource_group, workspace, endpoint : str
        Where it is.
    deployments : dict
        Version -> deployment of the endpoint. Nothing else is ever touched.
    model : str, optional
        The one model that the endpoint serves.
    token_path : str, optional
        A file with a token that somebody keeps fresh.
    tenant, client_id : str, optional
        The application to be, with `client_secret` or `assertion_path` (a federated workload's
        token). Without these and `token_path` the machine's managed identity is used.
    url, authority : str
        Other clouds' addresses.
    allow_private : list of str
        Networks that are not public but meant.
    deadline_s, settle_s, recheck_s, lag_s : float
        Total time of one call; how long an update may take; after how long it is looked at once
        more; how long the old state may be shown after an update. Seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    subscription: str
    resource_group: str
    workspace: str
    endpoint: str
    deployments: dict[str, str]
    model: str | None = None
    token_path: str | None = None
    tenant: str | None = None
    client_id: str | None = None
    client_secret: Secret | None = None
    assertion_path: str | None = None
    url: str = CLOUD
    authority: str = "https://login.microsoftonline.com"
    allow_private: list[str] = field(default_factory=list)
    deadline_s: float = 20.0
    settle_s: float = 900.0
    lag_s: float = 30.0
    recheck_s: float = 15.0

    clock: Clock = field(default_factory=WallClock, init=False, repr=False)
    """Only for how long a token is good."""

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Read names and credentials, so that a bad setting shows at the start."""
        for name in ("subscription", "resource_group", "workspace", "endpoint"):
            check_name(name, getattr(self, name), NAME)
        check_versions("deployments", self.deployments, NAME)
        http = Http(Reach(False, read_networks(self.allow_private)), self.deadline_s)
        self._path = (
            f"/subscriptions/{self.subscription}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.MachineLearningServices/workspaces/{self.workspace}"
            f"/onlineEndpoints/{self.endpoint}"
        )
        credentials = tokens.Tokens(self._fetch(http), self.clock)
        self._caller = Caller(http, self.url, credentials)

    @property
    def pace(self) -> Pace:
        """An update takes some minutes."""
        reads = 2 + len(self.deployments)
        return Pace(reads * self.deadline_s, self.settle_s, 5.0, self.recheck_s, self.lag_s)

    async def current(self, ask: Ask) -> Current:
        """Read the endpoint and the deployments that the command names."""
        found = await self._get("")
        named = {ask.command.to_version, ask.command.from_version}
        states = {}
        for version in sorted(named & set(self.deployments)):
            states[version] = await self._deployment(self.deployments[version])
        return read_endpoint(found, self.deployments, states)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Replace the traffic map."""
        wanted = decide(now, command, self.deployments, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        weights = whole_weights(wanted)
        if isinstance(weights, Refusal):
            return weights
        traffic = {self.deployments[version]: share for version, share in weights.items() if share}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[
                {
                    "put": self._path,
                    "traffic": msgspec.json.encode(traffic).decode(),
                    "if": now.raw["mark"],
                }
            ],
            diff=f"traffic of {self.endpoint}: {words_of_shares(wanted)}",
            touches=[f"onlineEndpoints/{self.endpoint}"],
            undo=[f"traffic of {self.endpoint}: {words_of_shares(now.shares or {})}"],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Look whether anybody moved it since, then put the whole resource."""
        request = plan.requests[0]
        found = await self._get("")
        if mark_of(found) != request["if"]:
            raise PlatformFault("conflict", "the endpoint was changed since it was read")
        body = body_of(found, msgspec.json.decode(request["traffic"], type=dict[str, int]))
        headers = {"if-match": str(found["etag"])} if found.get("etag") else {}
        path = f"{self._path}?api-version={API}"
        reply = await self._caller.send(Call("PUT", path, body, headers, writes=True))
        if reply.status == 409:
            raise PlatformFault("busy", "the endpoint is being updated", reply.retry_after_s)
        if reply.status not in (200, 201, 202):
            raise fault_of(reply, "PUT of the endpoint", writes=True)
        place = reply.headers.get("azure-asyncoperation")
        handle = path_on(self.url, place) if place else ""
        log = [{"method": "PUT", "status": reply.status}]
        return Applied(handle=handle, retry_after_s=reply.retry_after_s, log=log)

    async def follow(self, ask: Ask, handle: str) -> Applied:
        """Ask how the update goes; what it did is read back afterwards."""
        reply = await self._caller.send(Call("GET", handle))
        if reply.status not in (200, 202):
            raise fault_of(reply, "GET of the operation")
        status = str(read_object(reply, "the operation").get("status", ""))
        log = [{"method": "GET", "operation": status[:40]}]
        if status in ("Failed", "Canceled"):
            raise PlatformFault("permanent", f"the update ended as {status}")
        handle = "" if status == "Succeeded" else handle
        return Applied(handle=handle, retry_after_s=reply.retry_after_s, log=log)

    async def missing(self) -> list[str]:
        """Check the endpoint and every deployment of the map."""
        try:
            await self._get("")
            states = {v: await self._deployment(name) for v, name in self.deployments.items()}
        except PlatformFault as fault:
            return [str(fault)]
        return [
            f"version {version!r}: {self.endpoint} has no deployment {self.deployments[version]!r}"
            for version, state in states.items()
            if state is None
        ]

    async def _get(self, below: str) -> dict[str, Any]:
        reply = await self._caller.send(Call("GET", f"{self._path}{below}?api-version={API}"))
        if reply.status != 200:
            raise fault_of(reply, f"GET of endpoint {self.endpoint}{below}")
        found = read_object(reply, "the endpoint")
        return {**found, "etag": found.get("etag") or reply.headers.get("etag")}

    async def _deployment(self, name: str) -> dict[str, Any] | None:
        try:
            return await self._get(f"/deployments/{name}")
        except PlatformFault as fault:
            if "answered 404" in str(fault):
                return None
            raise

    def _fetch(self, http: Http) -> tokens.Fetch:
        if self.token_path is not None:
            return tokens.from_file(self.token_path)
        if self.tenant is None:
            return tokens.azure_machine(f"{CLOUD}/", self.client_id, self.deadline_s)
        check_name("tenant", self.tenant, NAME)
        if self.client_id is None or (self.client_secret is None) == (self.assertion_path is None):
            raise ValueError("tenant: needs client_id, and client_secret or assertion_path")
        client = {
            "tenant": self.tenant,
            "client_id": self.client_id,
            "scope": f"{CLOUD}/.default",
            "assertion_path": self.assertion_path or "",
        }
        self.client_secret = as_secret(self.client_secret or "")
        return tokens.azure_client(http, self.authority, client, self.client_secret)


def read_endpoint(
    found: Mapping[str, Any],
    deployments: Mapping[str, str],
    states: Mapping[str, Mapping[str, Any] | None],
) -> Current:
    """Read who serves; a deployment without a version counts as a stranger."""
    version_of = {name: version for version, name in deployments.items()}
    properties = found.get("properties") or {}
    shares = dict.fromkeys(states, 0.0)
    for name, share in (properties.get("traffic") or {}).items():
        shares[version_of.get(name, f"deployment:{name}")] = float(share)
    state = str(properties.get("provisioningState", ""))
    return Current(
        shares=shares,
        ready={version: _is_ready(state) for version, state in states.items() if state is not None},
        transition=state in _MOVING,
        raw={
            "state": state,
            "mark": mark_of(found),
            "mirror": properties.get("mirrorTraffic") or {},
        },
    )


def _is_ready(deployment: Mapping[str, Any]) -> bool:
    properties, sku = deployment.get("properties") or {}, deployment.get("sku") or {}
    up = sku.get("capacity") is None or sku["capacity"] >= 1
    return up and properties.get("provisioningState") == "Succeeded"


def mark_of(found: Mapping[str, Any]) -> str:
    """Say in one text what somebody else's change would alter."""
    properties, system = found.get("properties") or {}, found.get("systemData") or {}
    traffic = sorted((properties.get("traffic") or {}).items())
    return f"{system.get('lastModifiedAt')} {found.get('etag')} {traffic}"


def body_of(found: Mapping[str, Any], traffic: Mapping[str, int]) -> dict[str, Any]:
    """Give the whole resource as it was read, with other traffic and without a mirror."""
    kept = {n: found[n] for n in ("location", "tags", "kind", "sku") if found.get(n) is not None}
    if identity := found.get("identity"):
        users = identity.get("userAssignedIdentities")
        kept["identity"] = {"type": identity.get("type")}
        if users:  # what they are is read only; which they are is to be said again
            kept["identity"]["userAssignedIdentities"] = {name: {} for name in users}
    properties = {
        name: value
        for name, value in (found.get("properties") or {}).items()
        if name not in _OWN and value is not None
    }
    return {**kept, "properties": {**properties, "traffic": dict(traffic), "mirrorTraffic": {}}}
