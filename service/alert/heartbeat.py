"""The dead man's switch: an address outside hears from us only while the whole way is open.

Why. A service that watches others fails in silence: no breach is told when nothing is judged. Only
somebody outside notices that nothing comes any more (H12 of docs/safety.md). So what is sent must
not come from a timer alone. It rests on what the way from an event to a message leaves behind:
`ingest` ticks about once a second, `watch` takes the tick in and stores how far it came, and that
is read here from the storage that all processes share, whichever of them does the work.

How. Every two seconds it is looked whether (1) this process's handlers are ready, lag included,
(2) `watch` has come further on `observations` within the last minute, (3) the incident log can be
read and was told of late. An installation that has never had an event has nothing to come further
with, and (2) is left out. A restart waits until it has seen something move.

What it does not show: one partition of several that stands still while others move; that is what
`/readyz` of its owner and the metric of lag are for. Trouble is logged once until it ends, and the
address is a secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import structlog

from service.addresses import read_networks
from service.clock import Clock
from service.config import HeartbeatSettings
from service.http import Http, HttpFault, Reach
from service.storage.checkpoints import CheckpointStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics, redact

LOOK_S = 2.0
STILL_S = 60.0
"""Ticks come every second; what has stood still for so long is not slow but dead."""
AGAIN_S = 10.0
"""Pause after a beat that was not taken; never longer than the pause between beats."""

logs: Any = structlog.get_logger("alert")


class Signs(NamedTuple):
    """What is known of the whole way at one moment."""

    health: Mapping[str, Any]
    """`ready` and `lag_s` of this process's handlers."""
    still_s: float | None
    """Time since `watch` was seen to come further; None: there was never an event."""
    untold_s: float
    """Time since the incident log was last told to the end."""


def fault_of(signs: Signs) -> str | None:
    """Say what keeps the way from being open, or None.

    Examples
    --------
    >>> fault_of(Signs({"ready": True, "lag_s": 0.1}, 1.0, 0.3)) is None
    True
    """
    if not signs.health.get("ready"):
        return f"this process is not ready (lag {signs.health.get('lag_s', 0.0):.0f} s)"
    if signs.still_s is not None and signs.still_s > STILL_S:
        return "watch takes nothing in; look whether ingest and watch run"
    if signs.untold_s > STILL_S:
        return "the incident log is not told"
    return None


class Heart:
    """Beats while all is well.

    Parameters
    ----------
    health : callable
        The engine's own (`service/engine/base.py`).
    """

    def __init__(
        self,
        settings: HeartbeatSettings,
        clock: Clock,
        metrics: Metrics,
        health: Callable[[], Mapping[str, Any]],
        log: IncidentLog,
        checkpoints: CheckpointStore,
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._metrics = metrics
        self._health = health
        self._log = log
        self._checkpoints = checkpoints
        self._http = Http(Reach(settings.allow_http, read_networks(settings.allow_private)))
        self._places: dict[int, int] | None = None
        self._moved_s = float("-inf")
        self._alive_s = clock.monotonic_s()
        self._look_s = self._beat_s = float("-inf")
        self._withheld = self._failing = False

    async def beat(self, told_s: float) -> None:
        """Look, and send when it is time and all is well; else nothing.

        Parameters
        ----------
        told_s : float
            When the incident log was last told to its end, by the clock's monotonic seconds.
        """
        now_s = self._clock.monotonic_s()
        if now_s < self._look_s:
            return
        self._look_s = now_s + min(LOOK_S, self._settings.every)
        fault = await self._fault(now_s, told_s)
        if fault is not None:
            self._withhold(fault, now_s)
            return
        if self._withheld:
            logs.info("heartbeat goes on")
        self._alive_s, self._withheld = now_s, False
        if now_s >= self._beat_s:
            taken = await self._send()
            pause_s = self._settings.every if taken else min(self._settings.every, AGAIN_S)
            self._beat_s = now_s + pause_s

    async def _fault(self, now_s: float, told_s: float) -> str | None:
        try:
            cursors = await asyncio.to_thread(self._checkpoints.cursors, "watch")
            await asyncio.to_thread(self._log.last)
        except Exception as fault:
            # A driver's words may hold the database's address.
            return f"the incident log cannot be read ({type(fault).__name__})"
        places = {
            partition: cursor.positions["observations"].offset
            for partition, cursor in cursors.items()
            if "observations" in cursor.positions
        }
        if self._places is not None and places != self._places:
            self._moved_s = now_s
        self._places = places
        still_s = now_s - self._moved_s if any(places.values()) else None
        return fault_of(Signs(self._health(), still_s, now_s - told_s))

    def _withhold(self, fault: str, now_s: float) -> None:
        # A start takes a moment, and so does a rebalance: neither is worth a line.
        if not self._withheld and now_s - self._alive_s > STILL_S:
            self._withheld = True
            logs.error("heartbeat withheld", fault=fault)

    async def _send(self) -> bool:
        reason = ""
        try:
            address = self._settings.url.reveal()
            reply = await self._http.post(address, json={"service": "rollbackd"})
            if not 200 <= reply.status < 300:
                reason = f"the receiver answered {reply.status}"
        except HttpFault as fault:
            reason = redact(str(fault))
        self._metrics.deliveries.labels("heartbeat", "failed" if reason else "sent").inc()
        if reason and not self._failing:
            logs.warning("heartbeat not taken, will be tried again", reason=reason)
        elif self._failing and not reason:
            logs.info("heartbeat taken again")
        self._failing = bool(reason)
        return not reason
