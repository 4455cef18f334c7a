"""A fake of Vertex AI endpoints: get, and patch of the traffic split under an etag.

Written by hand from the v1 API's documentation; google-cloud-aiplatform 2.7 read and wrote it once,
by hand, and took the stale etag for a Conflict; no test does. Every call must be a permission of
`deploy/iam/vertex_ai.json`. A patch without an etag overwrites blindly, as the real one does; every
write makes a new etag.
"""

from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file

PROJECT, LOCATION, ENDPOINT = "risk-1", "europe-west4", "7001"
TOKEN = "canary-canary-token"
PATH = f"/v1/projects/{PROJECT}/locations/{LOCATION}/endpoints/{ENDPOINT}"
IDS = {"v41": "410001", "v42": "420001", "v43": "430001"}
VERBS = {"GET": "get", "PATCH": "update", "DELETE": "delete"}


class FakeVertexAI(FakePlatform):
    """One endpoint with a DeployedModel per version."""

    mutating = frozenset({"aiplatform.endpoints.update"})

    def __init__(self, now_s: Callable[[], float], shares: dict[str, float]) -> None:
        super().__init__(now_s)
        self.permissions = set(role_file("vertex_ai")["includedPermissions"])
        self.tokens = {TOKEN}
        self.stale: tuple[int, str] = (409, "ABORTED")
        """How a stale etag is answered."""
        self.state = {
            "revision": 1,
            "split": {IDS[version]: int(share) for version, share in shares.items() if share},
            "models": {
                IDS[version]: {"id": IDS[version], "model": f"projects/1/models/{version}",
                               "dedicatedResources": {"minReplicaCount": 1}}
                for version in shares
            },
        }  # fmt: skip

    def action_of(self, request: web.Request, body: Any) -> str:
        if ":" in request.path:
            verb = request.path.rpartition(":")[2]
            return {"deployModel": "aiplatform.endpoints.deploy"}.get(
                verb, "aiplatform.endpoints.undeploy"
            )
        return f"aiplatform.endpoints.{VERBS[request.method]}"

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        return action in self.permissions

    def proves(self, request: web.Request, body: bytes) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def refuse(self, status: int, text: str) -> web.Response:
        words = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED"}
        error = {"code": status, "message": text, "status": words.get(status, "UNKNOWN")}
        return web.json_response({"error": error}, status=status)

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        if request.path != PATH:
            return self.refuse(404, "the endpoint does not exist")
        if request.method == "GET":
            return web.json_response(self._endpoint())
        if request.query.get("updateMask") != "trafficSplit":
            return self.refuse(400, "updateMask is not what this test allows")
        if unknown := set(body) - {"etag", "trafficSplit"}:
            return self.refuse(400, f"unknown fields {sorted(unknown)}")
        if body.get("etag") not in (None, self._etag()):
            error = {"code": self.stale[0], "message": "etag", "status": self.stale[1]}
            return web.json_response({"error": error}, status=self.stale[0])
        split = body["trafficSplit"]
        if any(type(share) is not int or not 0 <= share <= 100 for share in split.values()):
            return self.refuse(400, "traffic must be whole percents")
        if split and sum(split.values()) != 100:
            return self.refuse(400, "traffic must total 100")
        if not set(split) <= set(self.state["models"]):
            return self.refuse(400, "trafficSplit names a DeployedModel that is not there")
        self.state["split"] = {name: share for name, share in split.items() if share}
        self.state["revision"] += 1
        return web.json_response(self._endpoint())

    def _etag(self) -> str:
        return f"AMEw9y{self.state['revision']:04d}="

    def _endpoint(self) -> dict[str, Any]:
        return {
            "name": PATH.removeprefix("/v1/"),
            "etag": self._etag(),
            "trafficSplit": dict(self.state["split"]),
            "deployedModels": list(self.state["models"].values()),
        }

    def move(self, **shares: int) -> None:
        """Let somebody else set the split."""
        self.state["split"] = {IDS[version]: share for version, share in shares.items()}
        self.state["revision"] += 1

    def shares(self) -> dict[str, float]:
        version_of = {name: version for version, name in IDS.items()}
        return {version_of[name]: float(share) for name, share in self.state["split"].items()}
