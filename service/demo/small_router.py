"""A small HTTP router, for machines without HAProxy: it splits by weight and takes signed orders.

How. Each request goes to a version drawn by its share. `POST /rollback` takes rollbackd's `webhook`
adapter: a Standard Webhooks signature, `probe` to read, `rollback` and `shift` to write; it answers
409 when what serves is not what the command expects, and says the same again to the same order.

Refused here: unsigned orders, versions without a server, and taking all traffic from everybody.
"""

from __future__ import annotations

import base64
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import numpy as np

from schemas.secrets import Secret
from service.clock import Clock
from service.demo import http1
from service.webhooks import read_keys, verify

ORDERS = "POST /rollback"


class SmallRouter:
    """Shares, connections to the model servers, and counts."""

    name = "small router"

    def __init__(self, servers: Mapping[str, int], clock: Clock, seed: int = 7) -> None:
        secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
        self.port = 0
        self.adapter: dict[str, Any] = {"kind": "webhook", "secret": secret}
        self._keys = read_keys(Secret(secret))
        self._clock = clock
        self._draws = np.random.default_rng(seed)
        self._servers = dict(servers)
        self._shares = {version: 100.0 * (i == 0) for i, version in enumerate(servers)}
        self._idle: dict[str, list[http1.Line]] = {version: [] for version in servers}
        self._served: Counter[str] = Counter(dict.fromkeys(servers, 0))

    def listens_on(self, port: int) -> None:
        """Learn the own port, which the adapter has to know."""
        self.port = port
        self.adapter["url"] = f"http://127.0.0.1:{port}{ORDERS.removeprefix('POST ')}"

    async def shift(self, shares: Mapping[str, int]) -> None:
        """Set who gets how many percent."""
        self._shares = {version: float(shares.get(version, 0)) for version in self._servers}

    async def served(self) -> dict[str, int]:
        """Requests given to each version so far."""
        return dict(self._served)

    async def handle(self, message: http1.Message) -> http1.Reply:
        """Answer one request: an order, or one for the models."""
        if message.route != ORDERS:
            return await self._forward(message)
        fault = verify(self._keys, message.headers, message.body, self._clock.now_ms() / 1000)
        if fault is not None:
            return 401, {}, msgspec.json.encode({"detail": fault})
        try:
            status, answer = self.obey(msgspec.json.decode(message.body, type=dict[str, Any]))
        except (msgspec.MsgspecError, UnicodeDecodeError):
            status, answer = 400, {"detail": "the body is not a command"}
        return status, {"content-type": "application/json"}, msgspec.json.encode(answer)

    def obey(self, command: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        """Carry out one command; gives status and body of the answer."""
        if command.get("action") == "probe":
            return 200, {"current": self._shares}
        wanted = self._wanted(command)
        if wanted is None:
            text = "only rollback, promote and shift between the two versions are known here"
            return 200, {"status": "refused", "detail": text, "current": self._shares}
        if wanted == self._shares:
            return 200, {"status": "already_there", "current": self._shares}
        expected = command.get("expected") or {}
        share = self._shares.get(str(expected.get("canary")), 0.0)
        weight = expected.get("weight")
        if weight is not None and abs(share - 100 * weight) > 1e-6:
            text = "another share serves than the command expects"
            return 409, {"status": "superseded", "detail": text, "current": self._shares}
        self._shares = wanted
        return 200, {"status": "applied", "current": wanted}

    def _wanted(self, command: dict[str, Any]) -> dict[str, float] | None:
        old, new = command.get("from_version"), command.get("to_version")
        if not isinstance(old, str) or not isinstance(new, str) or old == new:
            return None
        if {old, new} != set(self._servers):
            return None
        share = 100.0
        if command.get("action") == "shift":
            weight = command.get("weight")
            if not isinstance(weight, int | float) or not 0 <= weight <= 1:
                return None
            share = 100.0 * weight
        elif command.get("action") not in ("rollback", "promote"):
            return None
        moved = {old: 100 - share, new: share}
        return {version: moved[version] for version in self._servers}

    async def _forward(self, message: http1.Message) -> http1.Reply:
        shares = dict(self._shares)
        version = pick(shares, self._draws.random())
        idle = self._idle[version]
        line = idle.pop() if idle else http1.Line(self._servers[version])
        try:
            reply = await line.ask(message.route, message.body)
        except OSError:
            return 502, {}, b"the model server does not answer"
        idle.append(line)
        self._served[version] += 1
        weights = ",".join(f"{name}={share:g}" for name, share in shares.items())
        return reply.status, {"x-weights": weights}, reply.body

    def hang_up(self) -> None:
        """Close the idle connections."""
        for idle in self._idle.values():
            for line in idle:
                line.close()


def pick(shares: Mapping[str, float], draw: float) -> str:
    """Name the version for a draw in [0, 1).

    Examples
    --------
    >>> pick({"v41": 80, "v42": 20}, 0.79), pick({"v41": 80, "v42": 20}, 0.8)
    ('v41', 'v42')
    """
    left = draw * sum(shares.values())
    serving = [(version, share) for version, share in shares.items() if share > 0]
    for version, share in serving:
        if left < share:
            return version
        left -= share
    return serving[-1][0]  # what rounding left over


@asynccontextmanager
async def run(servers: Mapping[str, int], clock: Clock) -> AsyncIterator[SmallRouter]:
    """Run the router while the block lasts."""
    router = SmallRouter(servers, clock)
    listener = http1.listen()
    router.listens_on(listener.getsockname()[1])
    server = await http1.serve(router.handle, listener)
    try:
        yield router
    finally:
        server.close()
        router.hang_up()
