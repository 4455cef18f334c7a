"""Docker on one host: containers side by side, traffic by the HAProxy in front of them.

Why. The labels of a container cannot be changed and its network knows no weights, so who serves is
decided in a proxy. This adapter sees to it that the container of the good version is up, and leaves
traffic to the adapter `haproxy`.

How. Containers are known by the labels `rollbackd.deployment` and `rollbackd.version`, set when
they are made; names and tags move. When the good container is stopped it is started first, as a
step of its own: nothing else is written until it is healthy, and when the command expires before
that, traffic has not moved. A container without a health check is up when it runs; then HAProxy's
own check decides.

What this platform does that others do not:

- The engine's socket is as good as root on the host. Put a proxy before it that allows the three
  calls of `deploy/iam/docker.json`.
- A prune removes stopped containers, the good one among them: then the command is refused.
- Compose makes containers anew from its file; change the file as well.

Refused here: stopping, removing, making or renaming containers, networks, images.

References
----------
Docker Engine API 1.44: ContainerList, ContainerInspect, ContainerStart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, ClassVar
from urllib.parse import urlencode

import httpx2
import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.adapters.haproxy import HAProxy
from service.act.adapters.targets import check_name
from service.act.plans import Applied, Current, Plan, Refusal

API = "/v1.44"
NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
ID = re.compile(r"[0-9a-f]{12,64}")
_ANSWER_LIMIT = 4 * 1024 * 1024
_COMPOSE = "compose makes containers anew from its file; change the version there as well"


@plugin("docker")
@dataclass
class Docker(Adapter):
    """One deployment behind one HAProxy backend.

    Parameters
    ----------
    socket : str
        Path of the engine's socket, or of the filtering proxy before it.
    deployment : str
        Value of the label `rollbackd.deployment`.
    haproxy : str
        HAProxy's stats socket of level admin, as in the adapter `haproxy`.
    backend : str
        Its backend.
    servers : dict
        Version (as in the label `rollbackd.version`) -> server of the backend.
    model : str, optional
        The one model that the backend serves.
    start_s : float
        How long a container may take from its start until HAProxy sends to it, seconds.
    call_s : float
        Total time for one exchange with either socket, seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    socket: str
    deployment: str
    haproxy: str
    backend: str
    servers: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    start_s: float = 60.0
    call_s: float = 5.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Read names, so that a bad setting shows at the start."""
        if not self.socket.startswith("/"):
            raise ValueError("socket: expected a path such as /var/run/docker.sock")
        check_name("deployment", self.deployment, NAME)
        self._proxy = HAProxy(
            self.haproxy, self.backend, self.servers, self.model, call_s=self.call_s
        )
        self._engine = _Engine(self.socket, self.call_s)

    @property
    def pace(self) -> Pace:
        """Weights hold at once; a start is waited for within the command's time."""
        calls = 5 + len(self.servers)
        return Pace(calls * self.call_s, settle_s=5.0, poll_s=1.0)

    async def current(self, ask: Ask) -> Current:
        """Read HAProxy's weights and the containers behind them."""
        now = await self._proxy.current(ask)
        containers = await self._containers()
        return with_containers(now, containers, ask, self.start_s)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Start the good container when it is stopped; move weights when it is up."""
        stopped: dict[str, str] = now.raw["stopped"]
        target = command.to_version
        ready = dict(now.ready or {})
        if target in stopped:
            ready[target] = True  # as soon as it is started
        planned = self._proxy.plan(msgspec.structs.replace(now, ready=ready), command)
        if isinstance(planned, Refusal) or not planned.requests:
            return planned
        changes: dict[str, Any] = {"notes": [*planned.notes, _COMPOSE]}
        if target in stopped:
            diff = f"start container {stopped[target][:12]} of {target}; then {planned.diff}"
            changes |= {"requests": [{"start": stopped[target]}], "diff": diff}
        return msgspec.structs.replace(planned, **changes)

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Start, and have it waited for; or set weights."""
        container = plan.requests[0].get("start")
        if container is None:
            return await self._proxy.apply(ask, plan)
        status, answer = await self._engine.ask("POST", f"/containers/{container}/start")
        if status not in (204, 304):
            raise engine_fault(status, answer, "start")
        raise PlatformFault("busy", f"container {container[:12]} was started; it is waited for")

    async def missing(self) -> list[str]:
        """Check both sockets, and that every version has a container."""
        lines = await self._proxy.missing()
        try:
            found = {one["version"] for one in await self._containers()}
        except PlatformFault as fault:
            return [*lines, str(fault)]
        return lines + [
            f"version {version!r}: no container with rollbackd.deployment={self.deployment}"
            for version in self.servers
            if version not in found
        ]

    async def _containers(self) -> list[dict[str, str]]:
        """Give id, version, state and start of every container of the deployment."""
        filters = {"label": [f"rollbackd.deployment={self.deployment}"]}
        query = urlencode({"all": "true", "filters": msgspec.json.encode(filters).decode()})
        status, listed = await self._engine.ask("GET", f"/containers/json?{query}")
        if status != 200 or not isinstance(listed, list):
            raise engine_fault(status, listed, "list")
        found = []
        for entry in listed:
            container = str(entry.get("Id", ""))
            if not ID.fullmatch(container):
                raise PlatformFault("permanent", "the engine lists a container without an id")
            status, one = await self._engine.ask("GET", f"/containers/{container}/json")
            if status == 404:  # gone between two calls
                continue
            if status != 200 or not isinstance(one, dict):
                raise engine_fault(status, one, "inspect")
            found.append(read_container(container, one))
        return found


class _Engine:
    """HTTP over the engine's own socket: no host is resolved, none can be named."""

    def __init__(self, path: str, call_s: float) -> None:
        self._path = path
        self._call_s = call_s

    async def ask(self, method: str, path: str) -> tuple[int, Any]:
        """Give status and body; the body None where it is no JSON."""
        transport = httpx2.AsyncHTTPTransport(uds=self._path)
        body = bytearray()
        try:
            async with (
                asyncio.timeout(self._call_s),
                httpx2.AsyncClient(transport=transport, trust_env=False) as client,
                client.stream(method, f"http://docker{API}{path}") as answer,
            ):
                async for part in answer.aiter_raw():
                    body += part
                    if len(body) > _ANSWER_LIMIT:
                        raise PlatformFault("permanent", "the engine's answer has no end")
        except (httpx2.HTTPError, OSError, TimeoutError) as fault:
            lost = isinstance(fault, httpx2.ConnectError | FileNotFoundError)
            text = f"the engine's socket {self._path} cannot be used"
            kind = "transient" if lost or method == "GET" else "unknown"
            raise PlatformFault(kind, text) from None  # type: ignore[arg-type]
        try:
            return answer.status_code, msgspec.json.decode(bytes(body))
        except msgspec.DecodeError:
            return answer.status_code, None


def engine_fault(status: int, answer: Any, what: str) -> PlatformFault:
    """Say what an engine's refusal means."""
    words = str(answer.get("message", ""))[:200] if isinstance(answer, dict) else ""
    kind = "transient" if status in (429, 500, 502, 503, 504) or status == 200 else "permanent"
    text = f"{what} of containers was answered {status}" + (f": {words}" if words else "")
    return PlatformFault(kind, text)  # type: ignore[arg-type]


def read_container(container: str, found: Mapping[str, Any]) -> dict[str, str]:
    """Read what matters of an inspected container."""
    state = found.get("State") or {}
    health = (state.get("Health") or {}).get("Status", "none")
    status = str(state.get("Status", ""))
    if status == "running":
        status = {"healthy": "up", "none": "up", "starting": "starting"}.get(health, "ill")
    elif status in ("created", "exited"):
        status = "stopped"
    labels = (found.get("Config") or {}).get("Labels") or {}
    return {
        "id": container,
        "version": str(labels.get("rollbackd.version", "")),
        "state": status,
        "started": str(state.get("StartedAt", "")),
        "image": str(found.get("Image", ""))[:80],
    }


def with_containers(
    now: Current, containers: Sequence[Mapping[str, str]], ask: Ask, start_s: float
) -> Current:
    """Lay the containers under what HAProxy says: a server without one is not there."""
    target = ask.command.to_version
    ready: dict[str, bool] = {}
    stopped: dict[str, str] = {}
    moving = False
    for version in now.shares or {}:
        mine = [one for one in containers if one["version"] == version]
        states = {one["state"] for one in mine}
        if not mine:
            continue
        sent = bool((now.ready or {}).get(version))
        ready[version] = "up" in states and sent
        if states == {"stopped"}:
            stopped[version] = mine[0]["id"]
        if version == target and not ready[version]:
            fresh = any(is_fresh(one["started"], ask.now_ms, start_s) for one in mine)
            moving = "starting" in states or ("up" in states and fresh)
            ready[version] = moving  # it is on its way, and nothing is written meanwhile
    return Current(
        shares=now.shares,
        ready=ready,
        lingering=now.lingering,
        transition=moving,
        raw={**now.raw, "stopped": stopped, "containers": [dict(one) for one in containers]},
    )


def is_fresh(started: str, now_ms: int, start_s: float) -> bool:
    """Tell whether a container was started so lately that a proxy need not know it yet.

    Examples
    --------
    >>> is_fresh("1970-01-01T00:01:00.123456789Z", 70_000, 60.0)
    True
    """
    try:
        at = datetime.fromisoformat(re.sub(r"(\.\d{1,6})\d*", r"\1", started))
        return 0 <= now_ms / 1000 - at.timestamp() <= start_s
    except ValueError:
        return False
