"""A fake of MLflow's registry: aliases and versions of one registered model.

Its answers are those of MLflow 3.17; `tests/service/act/adapters/test_mlflow.py` runs the same
cases against the real server where that is installed. Every call must be listed in
`deploy/iam/mlflow.json`. There is no compare-and-set, as in the real one.
"""

import re
from collections.abc import Callable
from typing import Any

from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file

NAME = "fraud"
TOKEN = "canary-canary-token"
NUMBERS = {"v41": "41", "v42": "42", "v43": "43"}
ALIASES = tuple(f"slot-{number}" for number in range(10))


class FakeMLflow(FakePlatform):
    """One registered model whose ten aliases have a tenth of the traffic each."""

    mutating = frozenset({"POST /api/2.0/mlflow/registered-models/alias"})

    def __init__(self, now_s: Callable[[], float]) -> None:
        super().__init__(now_s)
        self.allowed = set(role_file("mlflow")["calls"])
        self.tokens = {TOKEN}
        self.state = {"aliases": {}, "versions": dict.fromkeys(NUMBERS.values(), "READY")}
        self.move(v41=90, v42=10)

    def action_of(self, request: web.Request, body: Any) -> str:
        return f"{request.method} {request.path}"

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        return action in self.allowed

    def proves(self, request: web.Request, body: bytes) -> bool:
        return request.headers.get("Authorization", "").removeprefix("Bearer ") in self.tokens

    def refuse(self, status: int, text: str, code: str = "INVALID_PARAMETER_VALUE") -> web.Response:
        return web.json_response({"error_code": code, "message": text}, status=status)

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        asked = dict(request.query) if request.method == "GET" else body
        if asked.get("name") != NAME:
            text = f"Registered Model with name={asked.get('name')} not found"
            return self.refuse(404, text, "RESOURCE_DOES_NOT_EXIST")
        if action.endswith("/get"):
            return self._version(asked.get("version"))
        alias = asked.get("alias", "")
        if not re.fullmatch(r"[\w-]{1,255}", alias) or re.fullmatch(r"latest|v\d+", alias):
            return self.refuse(400, "this alias is not allowed")
        if request.method == "POST":
            version = body.get("version")
            if type(version) is not str or version not in self.state["versions"]:
                text = f"Model Version (name={NAME}, version={version}) not found"
                return self.refuse(404, text, "RESOURCE_DOES_NOT_EXIST")
            self.state["aliases"][alias] = version
            return web.json_response({})
        if alias not in self.state["aliases"]:
            return self.refuse(400, f"Registered model alias {alias} not found.")
        return self._version(self.state["aliases"][alias])

    def _version(self, number: Any) -> web.Response:
        if number not in self.state["versions"]:
            text = f"Model Version (name={NAME}, version={number}) not found"
            return self.refuse(404, text, "RESOURCE_DOES_NOT_EXIST")
        found = {"name": NAME, "version": number, "status": self.state["versions"][number]}
        return web.json_response({"model_version": found})

    def move(self, **shares: int) -> None:
        """Let somebody else set the aliases."""
        numbers = [
            NUMBERS[version] for version, share in shares.items() for _ in range(share // 10)
        ]
        self.state["aliases"] = dict(zip(ALIASES, numbers, strict=True))

    def shares(self) -> dict[str, float]:
        at = list(self.state["aliases"].values())
        return {version: 10.0 * at.count(number) for version, number in NUMBERS.items()}
