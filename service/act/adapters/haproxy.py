"""HAProxy by its runtime API: a version is a server of one backend, its share is its weight.

What bites here, all of it seen on HAProxy 2.6:
- There are no status codes: any answer to a `set` that is not empty is an error.
- A backend whose weights are all 0 answers 503 to everyone, so the good server is raised first.
- With cookies or a stick table, a server at weight 0, even in state `drain`, still gets all its old
  sessions; only `maint` moves them. Where the backend is sticky, `maint` is part of a rollback.
- Runtime weights are lost when HAProxy reloads, unless `load-server-state-from-file` is set; the
  receipt says so, since the socket cannot tell.
- There is no precondition: read, compare, write, read back. The lock is advisory.

Refused here: ending sessions, backup servers as a target, versions that the map does not name.

References
----------
HAProxy 2.6 Management Guide, section 9.3 (Unix Socket commands).
"""

from __future__ import annotations

import asyncio
import csv
import re
from dataclasses import dataclass, field
from typing import ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Adapter, Ask, Pace, PlatformFault
from service.act.plans import (
    Applied,
    Current,
    Plan,
    Refusal,
    differs,
    fault_of_expected,
    fault_of_ready,
    fault_of_target,
    wanted_shares,
)
from service.crash import crash_point

_NAME = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_RUNNING = "2"
_MAINT = 0x01 | 0x02 | 0x04 | 0x20 | 0x40
_DRAIN = 0x08 | 0x10
_ANSWER_LIMIT = 4 * 1024 * 1024
_RELOAD = (
    "a reload of HAProxy brings the configured weights back, unless load-server-state-from-file "
    "is set; change the configuration as well"
)


@plugin("haproxy")
@dataclass
class HAProxy(Adapter):
    """One backend of one HAProxy.

    Parameters
    ----------
    socket : str
        Path of a stats socket of level admin, or HOST:PORT of one that listens on TCP.
    backend : str
        Name of the backend.
    servers : dict
        Version -> name of its server in the backend. Nothing else is ever touched.
    model : str, optional
        The one model that this backend serves; commands about others are refused.
    sticky : bool, optional
        Whether sessions stay with their server; found out when left out, except where a stick
        table of another name is used.
    call_s : float
        Total time for one exchange with the socket, seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    socket: str
    backend: str
    servers: dict[str, str] = field(default_factory=dict)
    model: str | None = None
    sticky: bool | None = None
    call_s: float = 5.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Refuse what could become a second command on the socket."""
        for name, text in [("backend", self.backend), *self.servers.items()]:
            if not _NAME.fullmatch(str(text)):
                raise ValueError(f"{name}: found {text!r}, expected a name as HAProxy knows it")
        if len(set(self.servers.values())) != len(self.servers) or len(self.servers) < 2:
            raise ValueError("servers: expected at least two versions, each with its own server")
        if "/" not in self.socket and not re.fullmatch(r".+:\d{1,5}", self.socket):
            raise ValueError("socket: expected a path such as /run/haproxy.sock, or HOST:PORT")

    @property
    def pace(self) -> Pace:
        """A weight holds from the next request on."""
        return Pace(call_s=self.call_s, settle_s=5.0, poll_s=0.5)

    async def current(self, ask: Ask) -> Current:
        """Read states and weights of the backend's servers."""
        table = await self._ask(f"show servers state {self.backend}")
        stat = await self._ask(f"show stat {self.backend} 6 -1")
        sticky = self.sticky
        if sticky is None:
            sticky = _is_sticky(stat) or _has_table(await self._ask("show table"), self.backend)
        return read_state(table, _backups(stat), self.servers, sticky)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Raise what shall serve, then lower what shall not."""
        if self.model is not None and command.model != self.model:
            text = f"this adapter serves {self.model!r}, not {command.model!r}"
            return Refusal("refused", "H13", "no_target", text)
        if refusal := fault_of_target(command, self.servers):
            return refusal
        wanted = wanted_shares(command)
        if not differs(now, wanted):
            return Plan(wanted=wanted, before=now.shares)
        if refusal := fault_of_expected(now, command) or fault_of_ready(now, wanted):
            return refusal
        weights = {version: round(share) for version, share in wanted.items()}
        if any(share > 0 and weights[version] == 0 for version, share in wanted.items()):
            return Refusal("refused", "H13", "no_weight", "a share below 0.5 % cannot be set here")
        return self._plan(now, wanted, weights)

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Say one line after the other; the first that is not taken ends it."""
        log = []
        for done, request in enumerate(plan.requests):
            line = request["line"]
            try:
                answer = await self._ask(line, crash="K9")
            except PlatformFault as fault:
                raise PlatformFault(fault.kind, str(fault), None, done) from None
            log.append({"line": line, "answer": answer.strip()[:200]})
            if answer.strip():
                text = f"HAProxy refused {line!r}: {answer.strip()[:200]}"
                raise PlatformFault("permanent", text, None, done)
        return Applied(log=log)

    async def missing(self) -> list[str]:
        """Check the socket, its level, the backend and every server of the map."""
        try:
            level = (await self._ask("show cli level")).strip()
            state = await self._ask(f"show servers state {self.backend}")
            found = {row["srv_name"] for row in _rows(state)}
        except PlatformFault as fault:
            return [str(fault)]
        faults = [] if level == "admin" else [f"the socket's level is {level}, it must be admin"]
        faults += [
            f"version {version!r}: backend {self.backend} has no server {server!r}"
            for version, server in self.servers.items()
            if server not in found
        ]
        return faults

    def _plan(self, now: Current, wanted: dict[str, float], weights: dict[str, int]) -> Plan:
        before = now.raw["servers"]
        lines, undo = [], []
        for version, weight in sorted(weights.items(), key=lambda item: -item[1]):
            lines.append(f"set weight {self.backend}/{self.servers[version]} {weight}")
        for version, server in self.servers.items():
            if version in wanted or version not in before:
                continue
            if before[version]["weight"] != "0":
                lines.append(f"set weight {self.backend}/{server} 0")
            if now.raw["sticky"]:
                lines.append(f"set server {self.backend}/{server} state maint")
        for version in before:
            if version in self.servers:
                at = f"{self.backend}/{self.servers[version]}"
                undo.append(f"set weight {at} {before[version]['weight']}")
                if now.raw["sticky"] and before[version]["state"] == "ready":
                    undo.append(f"set server {at} state ready")
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[{"line": line} for line in lines],
            diff="; ".join(lines),
            touches=[f"{self.backend}/{server}" for server in self.servers.values()],
            undo=undo,
            notes=[_RELOAD],
        )

    async def _ask(self, line: str, crash: str = "") -> str:
        """Say one line and read the whole answer; the socket closes after it."""
        sent, answer = False, b""
        try:
            async with asyncio.timeout(self.call_s):
                reader, writer = await self._connect()
                try:
                    sent = True
                    writer.write(line.encode("ascii") + b"\n")
                    await writer.drain()
                    if crash:
                        crash_point(crash)
                    while part := await reader.read(65_536):
                        answer += part
                        if len(answer) > _ANSWER_LIMIT:
                            raise PlatformFault("permanent", "HAProxy's answer has no end")
                finally:
                    writer.close()
        except (OSError, TimeoutError) as fault:
            reason = getattr(fault, "strerror", None) or "no answer in time"
            text = f"HAProxy's socket {self.socket} cannot be used: {reason}"
            raise PlatformFault("unknown" if sent else "transient", text) from None
        if not answer.endswith(b"\n"):  # every answer ends with an empty line
            text = f"HAProxy's socket {self.socket} closed before its answer was whole"
            raise PlatformFault("unknown", text)
        return answer.decode("utf-8", "replace")

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if "/" in self.socket:
            return await asyncio.open_unix_connection(self.socket)
        host, _, port = self.socket.rpartition(":")
        return await asyncio.open_connection(host.strip("[]"), int(port))


def read_state(
    table: str, backups: frozenset[str], servers: dict[str, str], sticky: bool
) -> Current:
    """Turn `show servers state` into shares; a server without a version counts as a stranger.

    Raises
    ------
    PlatformFault
        When it is no such table: an unknown backend, or another version of the format.
    """
    version_of = {server: version for version, server in servers.items()}
    weights: dict[str, int] = {}
    ready: dict[str, bool] = {}
    lingering: list[str] = []
    raw: dict[str, dict[str, str]] = {}
    for row in _rows(table):
        name = row["srv_name"]
        version = version_of.get(name, f"server:{name}")
        admin, weight = int(row["srv_admin_state"]), int(row["srv_uweight"])
        running = row["srv_op_state"] == _RUNNING
        state = "maint" if admin & _MAINT else "drain" if admin & _DRAIN else "ready"
        backup = name in backups
        # A server that is down keeps its share here: who serves is what people set, and whether
        # that works is `ready`. Otherwise an outage would look like somebody's decision.
        weights[version] = weight if state == "ready" and not backup else 0
        ready[version] = running and state == "ready" and not backup
        if sticky and weights[version] == 0 and running and state != "maint" and not backup:
            lingering.append(version)
        raw[version] = {"weight": str(weight), "state": state, "server": name}
    total = sum(weights.values())
    return Current(
        shares={version: 100 * w / total if total else 0.0 for version, w in weights.items()},
        ready=ready,
        lingering=lingering,
        raw={"servers": raw, "sticky": sticky},
    )


def _rows(table: str) -> list[dict[str, str]]:
    lines = table.strip().splitlines()
    if len(lines) < 2 or lines[0].strip() != "1" or not lines[1].startswith("# "):
        text = f"HAProxy does not show the backend's servers: {table.strip()[:200]}"
        raise PlatformFault("permanent", text)
    names = lines[1].removeprefix("# ").split()
    return [dict(zip(names, line.split(), strict=False)) for line in lines[2:] if line.strip()]


def _stat(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(text.strip().removeprefix("# ").splitlines()))


def _backups(text: str) -> frozenset[str]:
    return frozenset(row["svname"] for row in _stat(text) if row.get("bck") == "1")


def _is_sticky(text: str) -> bool:
    return any(row["svname"] == "BACKEND" and row.get("cookie") for row in _stat(text))


def _has_table(text: str, backend: str) -> bool:
    # A table of another name can be used with `stick on … table`, which the socket does not show.
    return f"# table: {backend}, " in text
