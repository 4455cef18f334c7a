"""Google Vertex AI: the traffic split of an endpoint.

How. A version is a DeployedModel of one endpoint, named by its own id and not by its model's.
The split is patched alone, under the endpoint's etag: without one a patch overwrites blindly.

What this platform does that others do not:

- A version that was undeployed cannot get traffic. Deploying takes minutes and costs money; that is
  a person's task, and the command is refused before any traffic moves.
- A new deploy takes 100 % by default, so a third version may appear at any moment: `superseded`.
- A stale etag is 409, and may be 400 or 412 by other texts of the same vendor: all are conflicts.

Refused here: deploying, undeploying, scaling, shares that are no whole percents.

References
----------
Vertex AI API v1: projects.locations.endpoints (get, patch); Google API improvement proposal 154.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters import tokens
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.calls import Call, Caller, fault_of, read_object
from service.act.adapters.targets import (
    check_name,
    check_versions,
    decide,
    whole_weights,
    words_of_shares,
)
from service.act.plans import Applied, Current, Plan, Refusal
from service.addresses import read_networks
from service.clock import Clock, WallClock
from service.http import Http, Reach, Reply

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:-]{0,127}")
LOCATION = re.compile(r"[a-z]+(-[a-z]+)*[0-9]+")
SCOPE = "https://www.googleapis.com/auth/cloud-platform"


@plugin("vertex_ai")
@dataclass
class VertexAI(Adapter):
    """One endpoint.

    Parameters
    ----------
    project, location, endpoint : str
        Where it is.
    deployed_models : dict
        Version -> id of its DeployedModel. Nothing else is ever touched.
    model : str, optional
        The one model that the endpoint serves.
    token_path : str, optional
        A file with a token that somebody keeps fresh.
    key_path : str, optional
        A service account's key. Without both the machine's own account is used.
    url : str, optional
        In place of the location's public address.
    allow_private : list of str
        Networks that are not public but meant.
    deadline_s, settle_s, recheck_s : float
        Total time of one call; how long a change may take to show; after how long it is looked at
        once more. Seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    project: str
    location: str
    endpoint: str
    deployed_models: dict[str, str]
    model: str | None = None
    token_path: str | None = None
    key_path: str | None = None
    url: str | None = None
    allow_private: list[str] = field(default_factory=list)
    deadline_s: float = 20.0
    settle_s: float = 120.0
    recheck_s: float = 5.0

    clock: Clock = field(default_factory=WallClock, init=False, repr=False)
    """Only for tokens: how long they are good, and when they are asked for."""

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Read names and credentials, so that a bad setting shows at the start."""
        check_name("project", self.project, NAME)
        check_name("location", self.location, LOCATION)
        check_name("endpoint", self.endpoint, NAME)
        check_versions("deployed_models", self.deployed_models, NAME)
        http = Http(Reach(False, read_networks(self.allow_private)), self.deadline_s)
        if self.token_path is not None:
            fetch = tokens.from_file(self.token_path)
        elif self.key_path is not None:
            fetch = tokens.google_key(http, self.key_path, SCOPE, self.clock)
        else:
            fetch = tokens.google_machine(self.deadline_s)
        root = self.url or f"https://{self.location}-aiplatform.googleapis.com"
        self._path = (
            f"/v1/projects/{self.project}/locations/{self.location}/endpoints/{self.endpoint}"
        )
        self._caller = Caller(http, root, tokens.Tokens(fetch, self.clock))

    @property
    def pace(self) -> Pace:
        """A patch is answered when it is done."""
        return Pace(2 * self.deadline_s, self.settle_s, poll_s=2.0, recheck_s=self.recheck_s)

    async def current(self, ask: Ask) -> Current:
        """Read the endpoint."""
        return read_endpoint(await self._get(), self.deployed_models)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Patch the split under the etag."""
        wanted = decide(now, command, self.deployed_models, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        weights = whole_weights(wanted)
        if isinstance(weights, Refusal):
            return weights
        etag = now.raw["etag"]
        if not etag:
            text = "the endpoint came without an etag; without one a patch would overwrite blindly"
            return Refusal("refused", "H2", "no_lock", text)
        split = {self.deployed_models[version]: share for version, share in weights.items()}
        body = {"etag": etag, "trafficSplit": split}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[{"patch": self._path, "body": msgspec.json.encode(body).decode()}],
            diff=f"trafficSplit of endpoint {self.endpoint}: {words_of_shares(wanted)}",
            touches=[f"endpoints/{self.endpoint}"],
            lock=f"etag {etag}",
            undo=[f"trafficSplit: {words_of_shares(now.shares or {})}"],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Patch."""
        body = msgspec.json.decode(plan.requests[0]["body"])
        path = f"{self._path}?updateMask=trafficSplit"
        reply = await self._caller.send(Call("PATCH", path, body, writes=True))
        if reply.status != 200:
            fault = fault_of(reply, "PATCH of trafficSplit", writes=True)
            if _status_of(reply) in ("ABORTED", "FAILED_PRECONDITION"):
                raise PlatformFault("conflict", str(fault))
            raise fault
        read_object(reply, "PATCH of trafficSplit", writes=True)
        return Applied(log=[{"method": "PATCH", "status": reply.status}])

    async def missing(self) -> list[str]:
        """Check the endpoint and that every version of the map is deployed."""
        try:
            found = await self._get()
        except PlatformFault as fault:
            return [str(fault)]
        there = {str(one.get("id")) for one in found.get("deployedModels", [])}
        return [
            f"version {version!r}: no DeployedModel {name!r} on endpoint {self.endpoint}"
            for version, name in self.deployed_models.items()
            if name not in there
        ]

    async def _get(self) -> dict[str, Any]:
        reply = await self._caller.send(Call("GET", self._path))
        if reply.status != 200:
            raise fault_of(reply, f"GET of endpoint {self.endpoint}")
        return read_object(reply, "the endpoint")


def read_endpoint(found: Mapping[str, Any], deployed: Mapping[str, str]) -> Current:
    """Read who serves; a DeployedModel without a version counts as a stranger."""
    version_of = {name: version for version, name in deployed.items()}

    def named(name: str) -> str:
        return version_of.get(name, f"deployed:{name}")

    models = {str(one["id"]): one for one in found.get("deployedModels", [])}
    shares = {named(name): 0.0 for name in models}
    shares |= {named(name): float(share) for name, share in found.get("trafficSplit", {}).items()}
    return Current(
        shares=shares,
        ready={named(name): _is_ready(one) for name, one in models.items()},
        raw={"etag": str(found.get("etag", ""))},
    )


def _is_ready(deployed: Mapping[str, Any]) -> bool:
    dedicated = deployed.get("dedicatedResources")
    if dedicated is None:
        return True
    status = deployed.get("status") or {}
    return int(status.get("availableReplicaCount", dedicated.get("minReplicaCount", 1))) >= 1


def _status_of(reply: Reply) -> str:
    answer = reply.json()
    error = answer.get("error") if isinstance(answer, dict) else None
    return str(error.get("status", "")) if isinstance(error, dict) else ""
