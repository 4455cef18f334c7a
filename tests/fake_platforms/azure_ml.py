"""A fake of Azure ML's online endpoints: get, put, long operations, and a view that lags behind.

Written by hand from the resource manager's documented schema; azure-ai-ml 1.35's generated client
read and wrote it once, by hand; no test does. Every call must be an action of
`deploy/iam/azure_ml.json`. It is strict where the real one is said to be: whole percents that total
100, one mirror of at most 50 %, PATCH without traffic, 409 while an update runs, and what a put
leaves out is gone.
"""

import copy
import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file

SUBSCRIPTION, GROUP, WORKSPACE, ENDPOINT = "sub-1", "ml-group", "prod", "fraud"
TOKEN = "canary-canary-token"
BASE = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{GROUP}"
    f"/providers/Microsoft.MachineLearningServices/workspaces/{WORKSPACE}/onlineEndpoints"
)
OPERATIONS = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.MachineLearningServices"
    "/locations/westeurope/mfeOperationsStatus"
)
ROOT_FIELDS = {"location", "tags", "kind", "sku", "identity", "properties"}
FIELDS = {
    "authMode", "description", "compute", "properties", "publicNetworkAccess", "traffic",
    "mirrorTraffic",
}  # fmt: skip


class FakeAzureML(FakePlatform):
    """One endpoint with a deployment per version."""

    mutating = frozenset({"onlineEndpoints/write"})

    def __init__(self, now_s: Callable[[], float], shares: dict[str, float]) -> None:
        super().__init__(now_s)
        self.takes_s = 20.0
        self.lag_s = 10.0
        self.etags = True
        self.reverting = False
        """The next operation ends as Failed."""
        self.actions = set(role_file("azure_ml")["Actions"])
        self.tokens = {TOKEN}
        self.state = {
            "endpoint": {
                "id": f"{BASE}/{ENDPOINT}",
                "name": ENDPOINT,
                "type": "Microsoft.MachineLearningServices/workspaces/onlineEndpoints",
                "location": "westeurope",
                "tags": {"team": "risk"},
                "kind": "Managed",
                "identity": {
                    "type": "UserAssigned",
                    "userAssignedIdentities": {"/id/one": {"clientId": "c", "principalId": "p"}},
                },
                "properties": {
                    "authMode": "Key",
                    "description": "card fraud",
                    "publicNetworkAccess": "Disabled",
                    "provisioningState": "Succeeded",
                    "scoringUri": "https://fraud.example/score",
                    "swaggerUri": "https://fraud.example/swagger.json",
                    "traffic": {f"d-{v}": int(share) for v, share in shares.items() if share},
                    "mirrorTraffic": {"d-v42": 10},
                },
                "systemData": {"lastModifiedAt": "2026-01-01T00:00:00Z"},
            },
            "deployments": {
                f"d-{version}": {
                    "name": f"d-{version}",
                    "sku": {"name": "Default", "capacity": 2},
                    "properties": {"provisioningState": "Succeeded"},
                }
                for version in shares
            },
            "operations": {},
            "shown": None,
            "until": 0.0,
            "revision": 1,
        }

    def action_of(self, request: web.Request, body: Any) -> str:
        path = request.path
        if path.startswith(OPERATIONS):
            return "mfeOperationsStatus/read"
        kind = "onlineEndpoints"
        if re.fullmatch(rf"{BASE}/[^/]+/deployments/[^/]+", path):
            kind = "onlineEndpoints/deployments"
        verb = {"GET": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
        return f"{kind}/{verb[request.method]}"

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        above = "locations" if action.startswith("mfe") else "workspaces"
        return f"Microsoft.MachineLearningServices/{above}/{action}" in self.actions

    def proves(self, request: web.Request, body: bytes) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        if request.query.get("api-version") != "2025-12-01":
            return self.refuse(400, "MissingApiVersionParameter")
        name = request.path.rsplit("/", 1)[1]
        if action == "mfeOperationsStatus/read":
            return self._operation(name)
        if action == "onlineEndpoints/deployments/read":
            found = self.state["deployments"].get(name)
            return web.json_response(found) if found else self.refuse(404, "ResourceNotFound")
        if name != ENDPOINT:
            return self.refuse(404, "ResourceNotFound")
        if request.method == "GET":
            return self._show()
        if request.method == "PATCH":
            return self.refuse(400, "only tags and identity can be patched")
        return self._put(request, body)

    def _show(self) -> web.Response:
        state = self.state
        if state["shown"] is not None and self.now_s() >= state["until"] + self.lag_s:
            state["shown"] = None
        found = copy.deepcopy(state["shown"] or state["endpoint"])
        moving = self.now_s() < state["until"]
        found["properties"]["provisioningState"] = "Updating" if moving else "Succeeded"
        headers = {"ETag": f'"{state["revision"]}"'} if self.etags else {}
        return web.json_response(found, headers=headers)

    def _put(self, request: web.Request, body: Any) -> web.Response:
        state = self.state
        if self.now_s() < state["until"]:
            return self.refuse(409, "the endpoint is in state Updating")
        if self.etags and request.headers.get("If-Match") not in (None, f'"{state["revision"]}"'):
            return self.refuse(412, "PreconditionFailed")
        if fault := self.fault_of(body):
            return self.refuse(400, fault)
        operation = f"op-{len(state['operations'])}"
        state["operations"][operation] = "Failed" if self.reverting else "Succeeded"
        if not self.reverting:
            state["shown"] = copy.deepcopy(state["endpoint"])
            own = {"id", "name", "type", "systemData"}
            kept = {name: state["endpoint"][name] for name in own}
            uris = ("provisioningState", "scoringUri", "swaggerUri")
            properties = {name: state["endpoint"]["properties"][name] for name in uris}
            state["endpoint"] = {**kept, **body, "properties": {**properties, **body["properties"]}}
            self._touch()
        state["until"] = self.now_s() + self.takes_s
        place = f"{self.url}{OPERATIONS}/{operation}?api-version=2025-12-01"
        headers = {"Azure-AsyncOperation": place, "Retry-After": "5"}
        return web.json_response(state["endpoint"], status=201, headers=headers)

    def _operation(self, name: str) -> web.Response:
        moving = self.now_s() < self.state["until"]
        status = "InProgress" if moving else self.state["operations"][name]
        return web.json_response({"status": status, "name": name})

    def fault_of(self, body: Any) -> str | None:
        """Judge a body as the documented schema does."""
        if unknown := set(body) - ROOT_FIELDS:
            return f"unknown fields {sorted(unknown)}"
        properties = body.get("properties", {})
        if unknown := set(properties) - FIELDS:
            return f"unknown properties {sorted(unknown)}"
        if "location" not in body or "authMode" not in properties:
            return "location and properties.authMode are required"
        for users in body.get("identity", {}).get("userAssignedIdentities", {}).values():
            if users:
                return "clientId and principalId of an identity are read only"
        traffic = properties.get("traffic", {})
        if any(type(share) is not int or not 0 <= share <= 100 for share in traffic.values()):
            return "traffic must be whole percents"
        if traffic and sum(traffic.values()) != 100:
            return "traffic must total 100"
        if not set(traffic) <= set(self.state["deployments"]):
            return "traffic names a deployment that does not exist"
        mirror = properties.get("mirrorTraffic", {})
        if len(mirror) > 1 or any(share > 50 for share in mirror.values()):
            return "one mirror of at most 50 %"
        return None

    def _touch(self) -> None:
        self.state["revision"] += 1
        changed = f"2026-01-01T00:00:00.{self.state['revision']:07d}Z"
        self.state["endpoint"]["systemData"] = {"lastModifiedAt": changed}

    def move(self, **shares: int) -> None:
        """Let somebody else set the traffic."""
        traffic = {f"d-{version}": share for version, share in shares.items()}
        self.state["endpoint"]["properties"]["traffic"] = traffic
        self.state["shown"] = None
        self._touch()

    def shares(self) -> dict[str, float]:
        traffic = self.state["endpoint"]["properties"]["traffic"]
        return {name.removeprefix("d-"): float(share) for name, share in traffic.items()}
