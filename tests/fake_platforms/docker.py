"""A fake of the Docker Engine's API on a Unix socket: list, inspect, start, and health over time.

There is no engine here. The vendor's Python client reads every answer (a test), and every call must
be listed in `deploy/iam/docker.json`. Traffic is not faked: a real HAProxy stands in front.
"""

import fnmatch
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file

LABEL = "rollbackd.deployment"


class FakeDocker(FakePlatform):
    """One container per version."""

    def __init__(self, now_s: Callable[[], float], versions: tuple[str, ...]) -> None:
        super().__init__(now_s)
        self.allowed = role_file("docker")["calls"]
        self.mutating = frozenset({"POST /containers/*/start"})
        self.heals_s = 10.0
        """How long a started container takes until it is healthy; -1: it turns unhealthy."""
        self.checks = True
        """Whether its image defines a health check."""
        self.state = {
            "containers": {
                f"{number:064x}": {"version": version, "status": "running", "started": 0.0}
                for number, version in enumerate(versions, start=1)
            }
        }

    def action_of(self, request: web.Request, body: Any) -> str:
        found = re.fullmatch(r"/v1\.\d{2}(/.*)", request.path)
        action = f"{request.method} {found[1] if found else request.path}"
        return next((one for one in self.allowed if fnmatch.fnmatchcase(action, one)), action)

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        return action in self.allowed

    def proves(self, request: web.Request, body: bytes) -> bool:
        return True

    def refuse(self, status: int, text: str) -> web.Response:
        return web.json_response({"message": text}, status=status)

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        if action.endswith("/containers/json"):
            return self._list(request)
        name = request.path.split("/")[-2]
        if name not in self.state["containers"]:
            return self.refuse(404, f"No such container: {name}")
        if action.startswith("GET"):
            return web.json_response(self._inspect(name))
        one = self.state["containers"][name]
        if one["status"] == "running":
            return web.Response(status=304)
        one |= {"status": "running", "started": self.now_s()}
        return web.Response(status=204)

    def _list(self, request: web.Request) -> web.Response:
        filters = json.loads(request.query.get("filters", "{}"))
        if set(filters) - {"label"}:
            return self.refuse(400, "invalid filter")
        every = request.query.get("all") in ("1", "true")
        found = [
            {"Id": name, "Names": [f"/fraud-{one['version']}"], "State": one["status"],
             "Labels": self._labels(one), "Image": "fraud", "ImageID": "sha256:1"}
            for name, one in self.state["containers"].items()
            if (every or one["status"] == "running")
            and set(filters.get("label", []))
            <= {f"{key}={value}" for key, value in self._labels(one).items()}
        ]  # fmt: skip
        return web.json_response(found)

    def _labels(self, one: dict[str, Any]) -> dict[str, str]:
        return {LABEL: "fraud", "rollbackd.version": one["version"]}

    def _inspect(self, name: str) -> dict[str, Any]:
        one = self.state["containers"][name]
        at = datetime.fromtimestamp(one["started"], UTC)
        stamp = at.strftime("%Y-%m-%dT%H:%M:%S.%f") + "123Z"
        state: dict[str, Any] = {
            "Status": one["status"], "Running": one["status"] == "running", "StartedAt": stamp
        }  # fmt: skip
        if self.checks:
            state["Health"] = {"Status": self._health(one), "FailingStreak": 0, "Log": []}
        return {
            "Id": name, "Name": f"/fraud-{one['version']}", "State": state,
            "Image": "sha256:" + "1" * 64, "Config": {"Labels": self._labels(one), "Image": "f"},
            "NetworkSettings": {"Networks": {}},
        }  # fmt: skip

    def _health(self, one: dict[str, Any]) -> str:
        if one["status"] != "running":
            return "unhealthy"
        if one["started"] == 0:
            return "healthy"
        if self.now_s() < one["started"] + abs(self.heals_s):
            return "starting"
        return "healthy" if self.heals_s >= 0 else "unhealthy"

    def stop(self, version: str) -> None:
        """Stop a container, as somebody who saves memory would."""
        for one in self.state["containers"].values():
            if one["version"] == version:
                one["status"] = "exited"

    def remove(self, version: str) -> None:
        """Remove it, as a prune would."""
        self.state["containers"] = {
            name: one for name, one in self.state["containers"].items() if one["version"] != version
        }
