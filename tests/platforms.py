"""Platforms that adapters talk to in tests: a real HAProxy, and a deployer behind a webhook.

The deployer is a real HTTP server with a state, strict about signatures, which plays what
deployers get wrong by a script. Both count what was written, by their own account.
"""

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from aiohttp import web

from schemas.secrets import Secret
from service.webhooks import read_keys, verify
from tests.real import free_port, port_answers, run_process

SECRET = "whsec_Y2FuYXJ5LWNhbmFyeS1jYW5hcnktY2FuYXJ5LWNhbmFyeQ=="
MAY_SET = ("applied", "partial")

Fault = Callable[["Deployer", web.Request], "web.StreamResponse | None"]


class Deployer:
    """A customer's service that moves traffic on signed commands.

    Parameters
    ----------
    now_s : callable
        Its clock, epoch seconds.
    """

    def __init__(self, now_s: Callable[[], float], shares: dict[str, float]) -> None:
        self.now_s = now_s
        self.shares = dict(shares)
        self.probes = True
        """Whether it knows `action: probe`."""
        self.delay_s = 0.0
        """How long it takes before it answers a command, after it was done."""
        self.faults: list[Any] = []
        """Answers to the next commands, in place of doing them: a status, (status, headers, body),
        `reset` (done, then no answer), `lost` (not done, no answer), `lie` (says applied, does
        nothing), `later` (202)."""
        self.probe_faults: list[int] = []
        self.before_write: Callable[[], None] | None = None
        """Somebody else's hand, between our read and our write."""
        self.commands: list[dict[str, Any]] = []
        """Every command that came, faults included."""
        self.writes = 0
        """How often it moved traffic."""
        self.ids: list[str] = []
        self.unsigned: list[str] = []
        self.jobs = 0
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        fault = verify(read_keys(Secret(SECRET)), dict(request.headers), body, self.now_s())
        if fault is not None:
            self.unsigned.append(fault)
            return web.json_response({"error": fault}, status=401)
        if request.method == "GET":
            return self._job()
        order = json.loads(body)
        assert request.headers["webhook-id"] == request.headers["idempotency-key"]
        assert request.headers["webhook-id"] == order["command_id"]
        if order["action"] == "probe":
            return self._probe()
        self.ids.append(request.headers["webhook-id"])
        return await self._command(order, request)

    def _probe(self) -> web.StreamResponse:
        if self.probe_faults:
            return web.Response(status=self.probe_faults.pop(0))
        if not self.probes:
            return web.json_response({"error": "unknown action"}, status=400)
        return web.json_response({"current": self.shares})

    def _job(self) -> web.StreamResponse:
        self.jobs -= 1
        if self.jobs > 0:
            return web.Response(status=202)
        return web.json_response({"status": "applied", "current": self.shares})

    async def _command(self, order: dict[str, Any], request: web.Request) -> web.StreamResponse:
        self.commands.append(order)
        if self.before_write is not None:
            self.before_write()
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, tuple):
            status, headers, text = fault
            return web.Response(status=status, headers=headers, text=text)
        if isinstance(fault, int):
            return web.Response(status=fault)
        if fault == "lost":
            return await self._break_off(request)
        answer = {"status": "applied", "current": {order["to_version"]: 100}}
        if fault != "lie":
            self._move(order)
            answer["current"] = self.shares
        if fault == "reset":
            return await self._break_off(request)
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if fault == "later":
            self.jobs = 2
            return web.Response(status=202, headers={"Location": "/jobs/7"})
        return web.json_response(answer)

    def _move(self, order: dict[str, Any]) -> None:
        self.writes += 1
        if order["action"] in ("rollback", "promote"):
            self.shares = {order["to_version"]: 100.0, order["from_version"]: 0.0}
        if order["action"] == "shift":
            share = 100 * order["weight"]
            self.shares = {order["to_version"]: 100 - share, order["from_version"]: share}

    async def _break_off(self, request: web.Request) -> web.StreamResponse:
        if request.transport is not None:
            request.transport.abort()
        return web.Response()


@asynccontextmanager
async def deploying(now_s: Callable[[], float], **shares: float) -> AsyncIterator[Deployer]:
    """Run a deployer while the block lasts."""
    deployer = Deployer(now_s, shares)
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", deployer.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        deployer.url = f"http://127.0.0.1:{runner.addresses[0][1]}/deploy/canary-path"
        yield deployer
    finally:
        await runner.cleanup()


class _Version(BaseHTTPRequestHandler):
    """Answers with its version's name and counts."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        name = self.server.name  # type: ignore[attr-defined]
        self.server.counts[name] += 1  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Length", str(len(name)))
        self.end_headers()
        self.wfile.write(name.encode())

    def log_message(self, *_: object) -> None:
        """Be silent."""


class Balancer:
    """A running HAProxy with one tiny real server per version behind it."""

    def __init__(self, home: Path, front: int, counts: Counter[str]) -> None:
        self.home = home
        self.socket = str(home / "relay.sock")
        self.front = front
        self.counts = counts
        """Requests that each version really got."""
        self.lines: list[str] = []
        """What was said on the relayed socket."""
        self.cut_after: str | None = None
        """Cut the connection once, after the first line that begins so was carried out."""
        self.cut_before: str | None = None
        """Cut the connection once, before the first line that begins so is carried out."""
        self.on_line: Callable[[str], None] | None = None

    def say(self, line: str) -> str:
        """Speak to the real socket, past the relay, as a person would."""
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(str(self.home / "admin.sock"))
            peer.sendall(line.encode() + b"\n")
            answer = b""
            while part := peer.recv(65_536):
                answer += part
        return answer.decode()

    def sets(self) -> list[str]:
        """The mutating lines."""
        return [line for line in self.lines if line.startswith("set ")]

    def ask(self, requests: int, cookie: str = "") -> Counter[str]:
        """Send real requests through it; count who answered, by what was answered."""
        got: Counter[str] = Counter()
        extra = f"Cookie: {cookie}\r\n" if cookie else ""
        for _ in range(requests):
            with socket.create_connection(("127.0.0.1", self.front), timeout=5) as peer:
                peer.sendall(
                    f"GET / HTTP/1.1\r\nHost: x\r\n{extra}Connection: close\r\n\r\n".encode()
                )
                answer = b""
                while part := peer.recv(65_536):
                    answer += part
            got[answer.rpartition(b"\r\n\r\n")[2].decode()] += 1
        return got

    def relay(self, client: socket.socket) -> None:
        with client, socket.socket(socket.AF_UNIX) as peer:
            line = b""
            while not line.endswith(b"\n"):
                line += client.recv(65_536)
            text = line.decode().strip()
            self.lines.append(text)
            if self.on_line is not None:
                self.on_line(text)
            if self.cut_before is not None and text.startswith(self.cut_before):
                self.cut_before = None
                return
            peer.connect(str(self.home / "admin.sock"))
            peer.sendall(line)
            answer = b""
            while part := peer.recv(65_536):
                answer += part
            if self.cut_after is not None and text.startswith(self.cut_after):
                self.cut_after = None
                return
            with contextlib.suppress(OSError):
                client.sendall(answer)


CONFIG = """
global
 stats socket {home}/admin.sock mode 600 level admin
 stats socket {home}/operator.sock mode 600 level operator
defaults
 mode http
 timeout client 5s
 timeout server 5s
 timeout connect 5s
frontend front
 bind 127.0.0.1:{front}
 default_backend fraud
backend fraud
 balance roundrobin
 {sticky}
{servers}
"""


@contextmanager
def balancing(
    program: str, home: Path, weights: dict[str, int], sticky: str = "", extra: str = ""
) -> Iterator[Balancer]:
    """Run HAProxy with a server of each weight; a relay in front of its socket takes notes."""
    counts: Counter[str] = Counter()
    with contextlib.ExitStack() as stack:
        lines = []
        for name, weight in weights.items():
            server = ThreadingHTTPServer(("127.0.0.1", 0), _Version)
            server.daemon_threads = True
            server.name, server.counts = name, counts  # type: ignore[attr-defined]
            threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
            stack.callback(server.server_close)
            stack.callback(server.shutdown)
            cookie = f" cookie {name}" if sticky.startswith("cookie") else ""
            at = f"127.0.0.1:{server.server_address[1]}"
            lines.append(f" server s-{name} {at} weight {weight}{cookie}")
        balancer = Balancer(home, free_port(), counts)
        settings = {"home": home, "front": balancer.front, "sticky": sticky}
        config = home / "haproxy.cfg"
        config.write_text(CONFIG.format(**settings, servers="\n".join(lines)) + extra)
        process = stack.enter_context(
            run_process([program, "-W", "-db", "-f", config], home / "log")
        )
        process.wait_until(lambda: port_answers(balancer.front), 10, "HAProxy answers")
        stack.enter_context(_relaying(balancer))
        yield balancer


@contextmanager
def _relaying(balancer: Balancer) -> Iterator[None]:
    door = socket.socket(socket.AF_UNIX)
    door.bind(balancer.socket)
    door.listen(32)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = door.accept()
                threading.Thread(target=balancer.relay, args=(client,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()
