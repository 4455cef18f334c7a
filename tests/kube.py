"""A real Kubernetes API server for tests, with the right of exactly the shipped roles.

The server is the one that `ROLLBACKD_TEST_KUBECONFIG` names: any cluster that may be dirtied. Every
test gets a namespace of its own. CRDs are the released ones, read from the Go modules that ship
them; where a platform has none there, an open one of the same names. What needs pods to become
ready needs a kubelet, or something that plays it.

`relaying` puts a plain relay between an adapter and the server: it takes notes of what was written
and plays what networks and busy servers do. The server behind it stays the judge.
"""

import asyncio
import contextlib
import functools
import http.client
import json
import os
import subprocess
import time
import urllib.parse
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import web

from service.act.adapters.cluster import JSON_PATCH, MERGE_PATCH, Login, read_login
from tests.real import require, wait_until

VARIABLE = "ROLLBACKD_TEST_KUBECONFIG"
RBAC = Path(__file__).parents[1] / "deploy" / "rbac"
MODULES = {
    "istio": ("istio.io/api@v1.31.4", "kubernetes/customresourcedefinitions.gen.yaml"),
    "gateway": ("sigs.k8s.io/gateway-api@v1.6.3", "config/crd/standard/*_httproutes.yaml"),
    "flagger": ("github.com/fluxcd/flagger@v1.36.1", "artifacts/flagger/crd.yaml"),
    "argo": ("github.com/argoproj/argo-rollouts@v1.10.2", "manifests/crds/*-crd.yaml"),
}
USED = ("virtualservices", "httproutes", "rollouts", "analysisruns", "analysistemplates",
        "clusteranalysistemplates", "experiments", "canaries")  # fmt: skip
"""Of the many that the modules define."""


class Refused(RuntimeError):
    """The server said no."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{status}: {text}")
        self.status = status


class Kube:
    """The server, as its administrator, or as `token` when one is given."""

    def __init__(self, login: Login) -> None:
        self.login = login
        self.server = urllib.parse.urlsplit(login.server)

    def call(
        self, method: str, path: str, body: Any = None, kind: str = "application/json",
        token: str | None = None,
    ) -> Any:  # fmt: skip
        """Call; raise `Refused` for any status that is no success."""
        assert self.server.hostname is not None
        peer = http.client.HTTPSConnection(
            self.server.hostname, self.server.port, timeout=30, context=self.login.tls()
        )
        headers = {"content-type": kind, "accept": "application/json", "user-agent": "kubectl-test"}
        if shown := token or self.login.token:
            headers["authorization"] = f"Bearer {shown}"
        try:
            peer.request(method, path, None if body is None else json.dumps(body), headers)
            answer = peer.getresponse()
            text = answer.read().decode()
        finally:
            peer.close()
        if answer.status >= 300:
            raise Refused(answer.status, text[:600])
        return json.loads(text)

    def get(self, path: str) -> Any:
        return self.call("GET", path)

    def make(self, path: str, body: Any) -> Any:
        return self.call("POST", f"{path}?fieldManager=kubectl-create", body)

    def patch(self, path: str, body: Any) -> Any:
        """Patch as a person: a list is a JSON patch, a mapping a merge patch."""
        kind = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        return self.call("PATCH", f"{path}?fieldManager=kubectl-edit", body, kind)

    @contextmanager
    def namespace(self) -> Iterator[str]:
        """A namespace of one's own."""
        name = f"test-{uuid.uuid4().hex[:10]}"
        self.make("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield name
        finally:
            with contextlib.suppress(Refused):
                self.call("DELETE", f"/api/v1/namespaces/{name}")

    def account(self, kind: str, namespace: str) -> str:
        """Bind the shipped role of an adapter in a namespace; give a token that has it only."""
        text = (RBAC / f"{kind}.yaml").read_text().replace("namespace: default", "namespace: NS")
        for one in yaml.safe_load_all(text.replace("NS", namespace)):
            group = "" if one["apiVersion"] == "v1" else f"s/{one['apiVersion']}"
            root = f"/api{group}" if group else "/api/v1"
            try:
                self.make(f"{root}/namespaces/{namespace}/{one['kind'].lower()}s", one)
            except Refused as refused:  # the account of another adapter's role
                if refused.status != 409:
                    raise
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts/rollbackd-act/token"
        asked = {"spec": {"expirationSeconds": 3600}}
        return str(self.make(path, asked)["status"]["token"])

    def kubeconfig(self, file: Path, token: str, server: str | None = None) -> Path:
        """Write a kubeconfig for a token; `server` in place of the real address."""
        cluster = {"server": server or self.login.server}
        if server is None and self.login.ca is not None:
            (file.parent / f"{file.name}.ca").write_text(self.login.ca)
            cluster["certificate-authority"] = f"{file.name}.ca"
        written = {
            "clusters": [{"name": "c", "cluster": cluster}],
            "users": [{"name": "u", "user": {"token": token}}],
            "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
            "current-context": "x",
        }
        file.write_text(yaml.safe_dump(written))
        return file

    @functools.cache  # noqa: B019 - one server for the whole session
    def install(self, crds: str) -> None:
        """Install released CRDs and wait until they are served."""
        module, pattern = MODULES[crds]
        definitions = [
            one
            for file in sorted(module_dir(module).glob(pattern))
            for one in yaml.load_all(file.read_text(), yaml.CSafeLoader)
            if one
            and one["kind"] == "CustomResourceDefinition"
            and one["spec"]["names"]["plural"] in USED
        ]
        assert definitions
        for one in definitions:
            self._install(one)

    @functools.cache  # noqa: B019
    def install_open(self, group: str, version: str, kind: str) -> None:
        """Install a CRD with the names of a platform's own and an open schema."""
        plural, single = f"{kind.lower()}s", kind.lower()
        schema = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        served = {
            "name": version, "served": True, "storage": True, "subresources": {"status": {}},
            "schema": {"openAPIV3Schema": schema},
        }  # fmt: skip
        names = {"kind": kind, "plural": plural, "singular": single}
        spec = {"group": group, "scope": "Namespaced", "names": names, "versions": [served]}
        metadata = {"name": f"{plural}.{group}"}
        base = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}
        self._install({**base, "metadata": metadata, "spec": spec})

    def _install(self, definition: dict[str, Any]) -> None:
        path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
        try:
            self.make(path, definition)
        except Refused as refused:
            if refused.status != 409:
                raise

        def served() -> bool:
            conditions = self.get(f"{path}/{definition['metadata']['name']}").get("status", {})
            return any(
                one["type"] == "Established" and one["status"] == "True"
                for one in conditions.get("conditions") or []
            )

        wait_until(served, 60, what="the CRD is served")
        group, spec = definition["spec"]["group"], definition["spec"]
        version = next(one["name"] for one in spec["versions"] if one["served"])

        def answers() -> bool:
            with contextlib.suppress(Refused):
                return bool(self.get(f"/apis/{group}/{version}/{spec['names']['plural']}"))
            return False

        wait_until(answers, 60, what="the new kind answers")


def module_dir(module: str) -> Path:
    """Where a Go module lies after its download; skips where there is no go command."""
    try:
        made = subprocess.run(
            ["go", "mod", "download", "-json", module], check=False, capture_output=True, text=True,
            timeout=300, env={**os.environ, "GOTOOLCHAIN": "auto", "GOFLAGS": ""}, cwd="/",
        )  # fmt: skip
    except FileNotFoundError:
        require("kube", "no go command, which fetches the platforms' CRDs")
    return Path(json.loads(made.stdout)["Dir"])


@functools.cache
def the_server() -> Kube:
    """The server of this session; skips (or fails, see `require`) where there is none."""
    file = os.environ.get(VARIABLE)
    if not file:
        require("kube", f"{VARIABLE} names no kubeconfig of a cluster for tests")
    kube = Kube(read_login(file, None))
    wait_until(lambda: bool(kube.get("/version")), 30, what="the API server answers")
    return kube


class Relay:
    """Between an adapter and the server: takes notes, plays faults."""

    def __init__(self, kube: Kube) -> None:
        self.kube = kube
        self.url = ""
        self.calls: list[str] = []
        self.writes: list[str] = []
        """Every mutating call, with its body."""
        self.faults: list[Any] = []
        """For the next writes: `reset` (done, no answer), `lost` (not done, no answer), `lie` (says
        yes, does nothing), or (status, headers)."""
        self.read_faults: list[Any] = []
        """For the next reads: (status, headers)."""
        self.before_write: Callable[[], None] = lambda: None
        self.after_write: Callable[[], None] = lambda: None
        """What a controller does."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        writes = request.method != "GET"
        self.calls.append(f"{request.method} {request.path}")
        faults = self.faults if writes else self.read_faults
        fault = faults.pop(0) if faults else None
        if writes:
            self.writes.append(f"{request.method} {request.path} {body.decode()}")
            await asyncio.to_thread(self.before_write)
        if isinstance(fault, tuple):
            text = json.dumps({"kind": "Status", "message": "played"})
            return web.Response(status=fault[0], headers=fault[1], text=text)
        if fault == "lie":
            found = await asyncio.to_thread(self.kube.get, request.path)
            return web.json_response(found)
        if fault != "lost":
            answer = await self._forward(request, body)
            if writes and answer.status < 300:
                await asyncio.to_thread(self.after_write)
            if fault != "reset":
                return answer
        if request.transport is not None:
            request.transport.abort()
        return web.Response()

    async def _forward(self, request: web.Request, body: bytes) -> web.Response:
        kept = {
            n: v for n, v in request.headers.items() if n.lower() in ("authorization", "accept")
        }
        kept["content-type"] = request.headers.get("content-type", "application/json")
        url = f"{self.kube.login.server}{request.path_qs}"
        tls = self.kube.login.tls()
        async with (
            aiohttp.ClientSession() as session,
            session.request(request.method, url, data=body, headers=kept, ssl=tls) as answer,
        ):
            return web.Response(
                status=answer.status, body=await answer.read(), content_type="application/json"
            )


@asynccontextmanager
async def relaying(kube: Kube) -> AsyncIterator[Relay]:
    """Run a relay while the block lasts."""
    relay = Relay(kube)
    app = web.Application(client_max_size=8 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", relay.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        relay.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield relay
    finally:
        await runner.cleanup()


def a_deployment(name: str, image: str, replicas: int = 1, **template: Any) -> dict[str, Any]:
    """A Deployment of one container."""
    labels = {"app": name, **template.get("labels", {})}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [{"name": "model", "image": image}]},
            },
        },
    }


def pause() -> None:
    """Give real controllers real time where a test's clock is set."""
    time.sleep(0.05)
