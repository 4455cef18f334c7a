"""MLflow model registry: which version an alias points to.

How. Servers load `models:/NAME@ALIAS`; an alias is set to the registered version that shall serve.
Where several aliases share the traffic (`champion` 90 %, `challenger` 10 %, split by whatever
stands before the servers), each is set, and what a version has is the sum over its aliases. The
split itself is not here, so there is no `shift`.

What this platform does that others do not:

- An alias moves traffic only when servers load it again. A read-back proves the registry and
  nothing more; the proof by traffic that follows every command is what counts here.
- There is no compare-and-set and no history. Each alias is read right before it is set, and what it
  pointed to stands in the receipt; the lock is advisory.
- Several aliases are set one after the other: a part may be done. What is left is set next time.

Refused here: creating aliases' versions, stages (deprecated), deleting an alias.

References
----------
MLflow REST API 2.0: registered-models/alias, model-versions/get.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar
from urllib.parse import quote, urlencode

from schemas.commands import Action, Command
from schemas.plugins import plugin
from schemas.secrets import Secret
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.calls import Call, Caller, fault_of, read_object
from service.act.adapters.targets import as_secret, check_name, check_versions, decide
from service.act.plans import Applied, Current, Plan, Refusal
from service.addresses import read_networks
from service.http import Http, Reach

API = "/api/2.0/mlflow"
ALIAS = re.compile(r"(?!latest$|v\d+$)[\w-]{1,255}")
NAME = re.compile(r"[^/:.%\"'\s\x00-\x1f*]{1,255}")
NUMBER = re.compile(r"[1-9]\d{0,9}")
UNSET = "unset"
_RELOAD = (
    "an alias moves traffic only when servers load the model again; until then the old version "
    "answers, and only traffic shows it"
)


@plugin("mlflow")
@dataclass
class MLflow(Adapter):
    """One registered model.

    Parameters
    ----------
    url : str
        The tracking server's address.
    name : str
        The registered model.
    versions : dict
        Version -> number of the registered version. Nothing else is ever touched.
    aliases : dict
        Alias -> percent of the traffic that its servers get; together 100.
    model : str, optional
        The one model that this serves, by rollbackd's name.
    token : Secret, optional
        Sent as a bearer.
    username, password : str and Secret, optional
        In place of a token.
    allow_http, allow_private : bool, list of str
        Allow http beyond loopback; networks that are not public but meant.
    ca_file : str, optional
        Certificates to trust in place of the public ones.
    deadline_s : float
        Total time of one call, seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    url: str
    name: str
    versions: dict[str, str]
    aliases: dict[str, float] = field(default_factory=lambda: {"champion": 100.0})
    model: str | None = None
    token: Secret | None = None
    username: str | None = None
    password: Secret | None = None
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)
    ca_file: str | None = None
    deadline_s: float = 10.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "promote"})

    def __post_init__(self) -> None:
        """Read names and keys, so that a bad setting shows at the start."""
        check_name("name", self.name, NAME)
        check_versions("versions", self.versions, NUMBER)
        for alias, share in self.aliases.items():
            check_name("aliases", alias, ALIAS)
            if not 0 < share <= 100:
                raise ValueError(f"aliases.{alias}: found {share!r}, expected a percent above 0")
        if abs(sum(self.aliases.values()) - 100) > 1e-6:
            raise ValueError("aliases: the percents must total 100")
        if (self.username is None) != (self.password is None):
            raise ValueError("username: needs password, and the other way round")
        reach = Reach(self.allow_http, read_networks(self.allow_private))
        http = Http(reach, self.deadline_s, self.ca_file)
        self._caller = Caller(http, self.url, _Proof(self._authorization()))

    @property
    def pace(self) -> Pace:
        """A registry answers when it is done."""
        reads = 2 * len(self.aliases) + 2
        return Pace(reads * self.deadline_s, settle_s=10.0, poll_s=1.0)

    async def current(self, ask: Ask) -> Current:
        """Read every alias, and whether the target can be loaded."""
        pointing = {alias: await self._alias(alias) for alias in self.aliases}
        ready = {}
        if number := self.versions.get(ask.command.to_version):
            status = await self._status(number)
            ready = {} if status is None else {ask.command.to_version: status == "READY"}
        return read_aliases(pointing, self.aliases, self.versions, ready)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Set every alias that points elsewhere."""
        wanted = decide(now, command, self.versions, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        number = self.versions[command.to_version]
        pointing: dict[str, str] = now.raw["aliases"]
        moves = [alias for alias, at in pointing.items() if at != number]
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[{"alias": a, "version": number, "was": pointing[a]} for a in moves],
            diff="; ".join(f"{self.name}@{a}: {pointing[a]} to {number}" for a in moves),
            touches=[f"{self.name}@{alias}" for alias in moves],
            undo=[f"{self.name}@{alias}: {pointing[alias]}" for alias in moves],
            notes=[_RELOAD],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Look at each alias once more, then set it; the first that fails ends it."""
        log: list[dict[str, Any]] = []
        for done, request in enumerate(plan.requests):
            alias = request["alias"]
            try:
                if await self._alias(alias) != request["was"]:
                    raise PlatformFault("conflict", f"alias {alias} was moved since it was read")
                body = {"name": self.name, "alias": alias, "version": request["version"]}
                path = f"{API}/registered-models/alias"
                reply = await self._caller.send(Call("POST", path, body, writes=True))
                log.append({"method": "POST", "alias": alias, "status": reply.status})
                if reply.status != 200:
                    raise fault_of(reply, f"POST of alias {alias}", writes=True)
            except PlatformFault as fault:
                raise PlatformFault(fault.kind, str(fault), fault.retry_after_s, done) from None
        return Applied(log=log)

    async def missing(self) -> list[str]:
        """Check every alias and every version of the map."""
        try:
            pointing = {alias: await self._alias(alias) for alias in self.aliases}
            states = {v: await self._status(number) for v, number in self.versions.items()}
        except PlatformFault as fault:
            return [str(fault)]
        lines = [f"{self.name} has no alias {a!r}" for a, at in pointing.items() if at == UNSET]
        return lines + [
            f"version {version!r}: {self.name} has no version {self.versions[version]}"
            for version, state in states.items()
            if state is None
        ]

    async def _alias(self, alias: str) -> str:
        query = urlencode({"name": self.name, "alias": alias}, quote_via=quote)
        reply = await self._caller.send(Call("GET", f"{API}/registered-models/alias?{query}"))
        if reply.status in (400, 404) and f"alias {alias} not found" in str(reply.json()):
            return UNSET
        if reply.status != 200:
            raise fault_of(reply, f"GET of alias {alias}")
        return str(_version_in(read_object(reply, f"alias {alias}"))["version"])

    async def _status(self, number: str) -> str | None:
        query = urlencode({"name": self.name, "version": number}, quote_via=quote)
        reply = await self._caller.send(Call("GET", f"{API}/model-versions/get?{query}"))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise fault_of(reply, f"GET of version {number}")
        return str(_version_in(read_object(reply, f"version {number}")).get("status", "READY"))

    def _authorization(self) -> Secret | None:
        if self.token is not None:
            self.token = as_secret(self.token)
            return Secret(f"Bearer {self.token.reveal()}")
        if self.username is not None and self.password is not None:
            self.password = as_secret(self.password)
            pair = f"{self.username}:{self.password.reveal()}".encode()
            return Secret(f"Basic {base64.b64encode(pair).decode()}")
        return None


class _Proof:
    """The same header each time, or none."""

    def __init__(self, authorization: Secret | None) -> None:
        self._authorization = authorization

    async def headers(self, fresh: bool = False) -> Mapping[str, str]:
        if self._authorization is None:
            return {}
        return {"authorization": self._authorization.reveal()}


def _version_in(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    found = answer.get("model_version")
    if not isinstance(found, dict) or "version" not in found:
        raise PlatformFault("transient", "the registry's answer has no model_version")
    return found


def read_aliases(
    pointing: Mapping[str, str],
    aliases: Mapping[str, float],
    versions: Mapping[str, str],
    ready: Mapping[str, bool],
) -> Current:
    """Read who serves; a number without a version counts as a stranger."""
    version_of = {number: version for version, number in versions.items()}
    shares: dict[str, float] = {}
    for alias, number in pointing.items():
        version = version_of.get(number, f"number:{number}")
        shares[version] = shares.get(version, 0.0) + aliases[alias]
    return Current(shares=shares, ready=dict(ready), raw={"aliases": dict(pointing)})
