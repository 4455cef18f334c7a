"""HAProxy as the router of the demonstration, moved through its runtime socket.

How. One frontend on a loopback port (bound here and handed over, so that no other program can take
it in between), one backend with a server for each version, a stats socket of level admin in the
demonstration's own folder. HAProxy tells the weights in force with every answer.

Refused here: using or changing an HAProxy that runs already.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.clock import Clock
from service.demo import http1

BACKEND = "models"
START_S = 10.0

CONFIG = """\
global
  stats socket {socket} mode 600 level admin
defaults
  mode http
  timeout connect 2s
  timeout client 30s
  timeout server 10s
frontend requests
  bind fd@{fd}
  default_backend {backend}
backend {backend}
  balance roundrobin
  http-response set-header x-weights "{weights}"
"""


class HAProxyRouter:
    """An HAProxy that this process started."""

    name = "HAProxy"

    def __init__(self, port: int, socket: Path, versions: list[str]) -> None:
        self.port = port
        self._socket = socket
        self._versions = versions
        self.adapter: dict[str, Any] = {
            "kind": "haproxy",
            "socket": str(socket),
            "backend": BACKEND,
            "servers": {version: version for version in versions},
        }

    async def shift(self, shares: Mapping[str, int]) -> None:
        """Set who gets how many percent; the larger share first, so that somebody always serves."""
        for version in sorted(self._versions, key=lambda version: -shares.get(version, 0)):
            answer = await self.say(f"set weight {BACKEND}/{version} {shares.get(version, 0)}")
            if answer.strip():
                raise RuntimeError(f"HAProxy did not set the weight of {version}: {answer.strip()}")

    async def served(self) -> dict[str, int]:
        """Requests given to each version so far, as HAProxy counts them."""
        rows = csv.DictReader(
            (await self.say(f"show stat {BACKEND} 4 -1")).lstrip("# ").split("\n")
        )
        return {row["svname"]: int(row["stot"] or 0) for row in rows if row.get("svname")}

    async def say(self, line: str) -> str:
        """Say one line to the runtime socket; gives its answer."""
        reader, writer = await asyncio.open_unix_connection(self._socket)
        try:
            writer.write(f"{line}\n".encode())
            return (await reader.read()).decode()
        finally:
            writer.close()


@asynccontextmanager
async def run(
    program: str, servers: Mapping[str, int], folder: Path, clock: Clock
) -> AsyncIterator[HAProxyRouter]:
    """Run HAProxy while the block lasts; the first version gets all at first.

    Raises
    ------
    RuntimeError
        When it does not start, with its own words.
    """
    listener = http1.listen()
    config, socket, log = folder / "haproxy.cfg", folder / "haproxy.sock", folder / "haproxy.log"
    config.write_text(_config(servers, socket, listener.fileno()), encoding="utf-8")
    # A killed demonstration must not leave a router behind.
    leash = ["setpriv", "--pdeathsig", "TERM", "--"] if shutil.which("setpriv") else []
    with log.open("wb") as words:
        child = await asyncio.create_subprocess_exec(
            *leash, program, "-db", "-f", str(config),
            stdin=asyncio.subprocess.DEVNULL, stdout=words, stderr=words,
            pass_fds=(listener.fileno(),),
            start_new_session=True,  # Ctrl-C is for us; it would end the router before its clients
        )  # fmt: skip
    port: int = listener.getsockname()[1]
    listener.close()
    try:
        router = HAProxyRouter(port, socket, list(servers))
        deadline_s = clock.monotonic_s() + START_S
        while not await _answers(router):
            if child.returncode is not None or clock.monotonic_s() > deadline_s:
                raise RuntimeError(f"HAProxy did not start: {_alert(log.read_text())}")
            await asyncio.sleep(0.05)
        yield router
    finally:
        with contextlib.suppress(ProcessLookupError):
            child.terminate()
        await child.wait()


def _config(servers: Mapping[str, int], socket: Path, fd: int) -> str:
    weights = ",".join(f"{version}=%[srv_uweight({BACKEND}/{version})]" for version in servers)
    lines = [
        f"  server {version} 127.0.0.1:{port} weight {100 * (i == 0)}\n"
        for i, (version, port) in enumerate(servers.items())
    ]
    head = CONFIG.format(socket=socket, fd=fd, backend=BACKEND, weights=weights)
    return head + "".join(lines)


async def _answers(router: HAProxyRouter) -> bool:
    with contextlib.suppress(OSError):
        return bool(await router.served())
    return False


def _alert(words: str) -> str:
    alerts = [line for line in words.splitlines() if line.startswith("[ALERT]")]
    return (alerts or words.splitlines() or ["it says nothing"])[0]
