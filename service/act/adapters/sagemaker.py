"""Amazon SageMaker: weights of production variants, or the endpoint's configuration as a whole.

How. A version is a variant of one shared endpoint (`variants`), or an endpoint configuration
(`configs`). Weights go out alone: an instance count in the same call would fight autoscaling, and
`RetainAllVariantProperties` keeps the counts when the configuration is changed.

What this platform does that others do not:

- `InService` is no success: a deployment that an alarm reverted comes back `InService` with the old
  state. So `CurrentWeight` or `EndpointConfigName` is compared, no deployment may be pending, and
  it is looked at once more later.
- An answer of 200 shows only after a while; until then the old weights are read.
- It has no precondition. `LastModifiedTime`, configuration and weights are compared right before a
  write; two writers can still race, so the lock is advisory and the read-back decides.
- A second update meanwhile is a `ValidationException`; it is waited out.
- `UpdateRollbackFailed`: both fleets serve. That is never more than `partial`, and a person's task.

Refused here: scaling (a variant without instances is not ready), deleting configurations or models.

References
----------
Amazon SageMaker API Reference: UpdateEndpointWeightsAndCapacities, UpdateEndpoint,
DescribeEndpoint.
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
from service.act.adapters.aws import REGION, AwsService
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.targets import (
    as_secret,
    check_name,
    check_versions,
    decide,
    shares_of,
    words_of_shares,
)
from service.act.plans import Applied, Current, Plan, Refusal
from service.addresses import read_networks
from service.http import Http, Reach

NAME = re.compile(r"[a-zA-Z0-9](-*[a-zA-Z0-9]){0,62}")
_MOVING = frozenset({"Creating", "Updating", "SystemUpdating", "RollingBack"})
_WHOLE = {
    "RetainAllVariantProperties": True,
    "DeploymentConfig": {
        "BlueGreenUpdatePolicy": {
            "TrafficRoutingConfiguration": {"Type": "ALL_AT_ONCE", "WaitIntervalInSeconds": 0}
        }
    },
}


@plugin("sagemaker")
@dataclass
class SageMaker(Adapter):
    """One endpoint.

    Parameters
    ----------
    endpoint, region : str
        Its name, and where it is.
    variants : dict
        Version -> production variant. Nothing else is ever touched.
    configs : dict
        In place of `variants`: version -> endpoint configuration. Traffic cannot be split then.
    model : str, optional
        The one model that the endpoint serves; commands about others are refused.
    access_key_id : str, optional
        With `secret_access_key`; without them botocore's chain finds the process's role.
    url : str, optional
        In place of the region's public address, such as a private endpoint's.
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

    endpoint: str
    region: str
    variants: dict[str, str] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    access_key_id: str | None = None
    secret_access_key: Secret | None = None
    url: str | None = None
    allow_private: list[str] = field(default_factory=list)
    deadline_s: float = 15.0
    settle_s: float = 1200.0
    lag_s: float = 15.0
    recheck_s: float = 30.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Read names and keys, so that a bad setting shows at the start."""
        check_name("endpoint", self.endpoint, NAME)
        check_name("region", self.region, REGION)
        if bool(self.variants) == bool(self.configs):
            raise ValueError("variants: give either variants (for weights) or configs")
        self._versions = self.variants or self.configs
        check_versions("variants" if self.variants else "configs", self._versions, NAME)
        if (self.access_key_id is None) != (self.secret_access_key is None):
            raise ValueError("access_key_id: needs secret_access_key, and the other way round")
        keys = None
        if self.access_key_id is not None and self.secret_access_key is not None:
            self.secret_access_key = as_secret(self.secret_access_key)
            keys = (self.access_key_id, self.secret_access_key)
        http = Http(Reach(False, read_networks(self.allow_private)), self.deadline_s)
        # The service's own name for its address; China's partition has another ending.
        ending = "amazonaws.com.cn" if self.region.startswith("cn-") else "amazonaws.com"
        url = self.url or f"https://api.sagemaker.{self.region}.{ending}/"
        self._aws = AwsService(http, "sagemaker", self.region, url, keys)

    @property
    def pace(self) -> Pace:
        """Weights take a minute or some, a whole fleet ten and more."""
        return Pace(2 * self.deadline_s + 1, self.settle_s, 5.0, self.recheck_s, self.lag_s)

    async def current(self, ask: Ask) -> Current:
        """Describe the endpoint, and the configuration that shall serve."""
        found = await self._describe()
        if self.variants:
            return read_weights(found, self.variants)
        there = {ask.command.to_version: True}
        if config := self.configs.get(ask.command.to_version):
            try:
                await self._aws.call("DescribeEndpointConfig", {"EndpointConfigName": config})
            except PlatformFault as fault:
                if fault.kind != "permanent" or "Could not find" not in str(fault):
                    raise
                there = {}
        return read_config(found, self.configs, there)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Set every mapped variant's weight in one call, or the whole configuration."""
        if self.configs and command.action == "shift":
            text = "an endpoint with one configuration at a time cannot split traffic"
            return Refusal("refused", "H13", "unknown_verb", text)
        status = now.raw["status"]
        if status != "InService" and not now.transition:
            text = f"the endpoint is {status}; a person must mend it before traffic can be moved"
            return Refusal("refused", "H1", "not_ready", text)
        wanted = decide(now, command, self._versions, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        params: dict[str, Any] = {"EndpointName": self.endpoint}
        if self.variants:
            operation = "UpdateEndpointWeightsAndCapacities"
            params["DesiredWeightsAndCapacities"] = [
                {"VariantName": variant, "DesiredWeight": wanted.get(version, 0.0)}
                for version, variant in self.variants.items()
                if version in (now.shares or {})
            ]
        else:
            operation = "UpdateEndpoint"
            params |= {"EndpointConfigName": self.configs[command.to_version], **_WHOLE}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[
                {
                    "call": operation,
                    "params": msgspec.json.encode(params).decode(),
                    "if": now.raw["mark"],
                }
            ],
            diff=f"{operation} on {self.endpoint}: {words_of_shares(wanted)}",
            touches=[f"endpoint/{self.endpoint}"],
            undo=[f"{operation} on {self.endpoint}: {words_of_shares(now.shares or {})}"],
            notes=["an alarm of a deployment, or a pipeline, may put the old state back later"],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Look whether anybody moved it since, then update."""
        request = plan.requests[0]
        if mark_of(await self._describe()) != request["if"]:
            raise PlatformFault("conflict", "the endpoint was changed since it was read")
        params = msgspec.json.decode(request["params"])
        await self._aws.call(request["call"], params, writes=True)
        return Applied(log=[{"call": request["call"], "status": 200}])

    async def missing(self) -> list[str]:
        """Check that the endpoint and every target of the map can be read."""
        try:
            found = await self._describe()
            lines = []
            for config in self.configs.values():
                await self._aws.call("DescribeEndpointConfig", {"EndpointConfigName": config})
        except PlatformFault as fault:
            return [str(fault)]
        there = {variant["VariantName"] for variant in found.get("ProductionVariants", [])}
        if self.variants and not there & set(self.variants.values()):
            lines.append(f"endpoint {self.endpoint} has none of the variants of the map")
        if found.get("EndpointStatus") != "InService":
            lines.append(f"endpoint {self.endpoint} is {found.get('EndpointStatus')}")
        return lines

    async def _describe(self) -> dict[str, Any]:
        return await self._aws.call("DescribeEndpoint", {"EndpointName": self.endpoint})


def read_weights(found: Mapping[str, Any], variants: Mapping[str, str]) -> Current:
    """Read who serves from a described endpoint; an unmapped variant counts as a stranger."""
    version_of = {variant: version for version, variant in variants.items()}
    weights: dict[str, float] = {}
    ready: dict[str, bool] = {}
    for entry in found.get("ProductionVariants", []):
        name = entry["VariantName"]
        version = version_of.get(name, f"variant:{name}")
        weights[version] = float(entry.get("CurrentWeight", 0.0))
        serverless = entry.get("CurrentServerlessConfig") is not None
        ready[version] = serverless or entry.get("CurrentInstanceCount", 0) >= 1
    return _current(found, shares_of(weights), ready, sorted(set(weights) & set(variants)))


def read_config(
    found: Mapping[str, Any], configs: Mapping[str, str], there: Mapping[str, bool]
) -> Current:
    """Read which configuration serves."""
    name = str(found.get("EndpointConfigName", ""))
    serving = next((v for v, config in configs.items() if config == name), f"config:{name}")
    return _current(found, {serving: 100.0}, dict(there), sorted(configs))


def _current(
    found: Mapping[str, Any], shares: dict[str, float], ready: dict[str, bool], known: list[str]
) -> Current:
    status = str(found.get("EndpointStatus", ""))
    return Current(
        shares=shares,
        ready=ready,
        # Both fleets serve then, whatever the weights say.
        lingering=known if status == "UpdateRollbackFailed" else [],
        transition=status in _MOVING or found.get("PendingDeploymentSummary") is not None,
        raw={"status": status, "mark": mark_of(found)},
    )


def mark_of(found: Mapping[str, Any]) -> str:
    """Say in one text what somebody else's change would alter."""
    weights = [
        f"{entry['VariantName']}={entry.get('DesiredWeight')}/{entry.get('CurrentWeight')}"
        for entry in found.get("ProductionVariants", [])
    ]
    head = [str(found.get("LastModifiedTime")), str(found.get("EndpointConfigName"))]
    return " ".join([*head, *sorted(weights)])
