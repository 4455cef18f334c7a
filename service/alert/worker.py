"""The shell of `alert`: turns new entries of the incident log into deliveries, and sends them.

Why two loops. Telling (one transaction: deliveries and the position in the log) and sending (the
world) must not wait for each other; and each endpoint has a sender of its own, so that a dead one
delays nobody.

Several daemons may run: the position moves by a conditional update, a row is claimed by one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import structlog

from schemas.ids import derive
from schemas.incidents import Entry, fold
from service.alert.audience import EVERYTHING, Audience, send_from
from service.alert.deliver import Deliverer
from service.alert.heartbeat import Heart
from service.alert.notifiers.base import Notifier
from service.alert.route import Notice, route
from service.clock import Clock
from service.http import Http, Reach
from service.storage.deliveries import DeliveryStore, NewDelivery
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics

STAGE = "alert"
POLL_S = 0.25
BATCH = 100
GRACE_MS = 1500
"""How long an `opened` notice waits for what follows, so that both become one message."""
FIRST_LOOK_BACK_MS = 3_600_000
"""On the very first start older entries are not told: they are history, not news."""

logs: Any = structlog.get_logger(STAGE)


class AlertWorker:
    """Everything `alert` does.

    Parameters
    ----------
    notifiers : mapping
        Endpoint name -> notifier (`endpoint_name`).
    http : callable
        Makes the client for what an endpoint's settings allow.
    public_url : str or None
        Address of the pages as people reach them, for links.
    audiences : mapping, optional
        Endpoint name -> what it wants to hear, and when; everything where nothing is said.
    heart : Heart, optional
        Beats while telling goes well, and all that comes before it.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        log: IncidentLog,
        deliveries: DeliveryStore,
        notifiers: Mapping[str, Notifier],
        http: Callable[[Reach], Http] = Http,
        public_url: str | None = None,
        audiences: Mapping[str, Sequence[Audience]] | None = None,
        heart: Heart | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._deliveries = deliveries
        self._notifiers = notifiers
        self._public_url = public_url
        self._audiences = audiences or {}
        self._heart = heart
        self._told_s = clock.monotonic_s()
        self._deliverer = Deliverer(clock, metrics, deliveries, notifiers, http, audiences)

    async def run(self, stop: asyncio.Event) -> None:
        """Tell and send until `stop`; what is under way is finished, the rest stays in storage."""
        disabled = await asyncio.to_thread(self._deliveries.disabled)
        for name in self._notifiers.keys() & disabled.keys():
            logs.error("endpoint is disabled", endpoint=name, reason=disabled[name])
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._loop(stop, self._tell_all))
            if self._heart is not None:
                tasks.create_task(self._loop(stop, partial(self._beat, self._heart)))
            for name in self._notifiers:
                tasks.create_task(self._loop(stop, partial(self._send, name, stop)))

    async def _loop(self, stop: asyncio.Event, step: Callable[[], Any]) -> None:
        while not stop.is_set():
            try:
                await step()
            except Exception as fault:
                # Storage that cannot be used for a while must not end the role.
                self._metrics.errors.labels(STAGE).inc()
                logs.warning("alert pauses", fault=str(fault))
                await _pause(stop, 2.0)
            await _pause(stop, POLL_S)

    async def _tell_all(self) -> None:
        while await asyncio.to_thread(self.tell):
            pass
        self._told_s = self._clock.monotonic_s()

    async def _beat(self, heart: Heart) -> None:
        await heart.beat(self._told_s)

    async def _send(self, endpoint: str, stop: asyncio.Event) -> None:
        while not stop.is_set() and await self._deliverer.send_next(endpoint):
            await _pause(stop, self._notifiers[endpoint].pause_s)

    def tell(self) -> int:
        """Make deliveries of the next entries of the log; return how many entries were read."""
        position = self._deliveries.position()
        now = self._clock.now_ms()
        found = self._log.since(position or 0, BATCH)
        if not found:
            return 0
        news = [
            (sequence, entry)
            for sequence, entry in found
            if position is not None or entry.recorded_at > now - FIRST_LOOK_BACK_MS
        ]
        told = [new for sequence, entry in news for new in self._told(sequence, entry, now)]
        if not self._deliveries.enqueue(told, position, now, found[-1][0]):
            return 0
        self._metrics.received.labels(STAGE).inc(len(found))
        return len(found)

    def _told(self, sequence: int, entry: Entry, now: int) -> list[NewDelivery]:
        story = self._log.story(entry.incident_id)
        incident = fold(e for at, e in story if at <= sequence)
        if incident is None:
            return []
        notice = route(incident, entry, self._public_url)
        if notice is None:
            return []
        at = now + GRACE_MS if entry.kind == "opened" else now
        told = []
        for name in self._notifiers:
            not_before = send_from(self._audiences.get(name, EVERYTHING), notice, at)
            if not_before is None or (payload := self._rendered(name, notice)) is None:
                continue
            delivery_id = derive("delivery", entry.entry_id, name)
            told.append(
                NewDelivery(delivery_id, name, entry.incident_id, entry.kind, payload, not_before)
            )
        return told

    def _rendered(self, name: str, notice: Notice) -> dict[str, Any] | None:
        try:
            return self._notifiers[name].render(notice)
        except Exception as fault:
            # One plugin's mistake must not keep the news from the others.
            self._metrics.deliveries.labels(name.rpartition("-")[0] or name, "unrendered").inc()
            logs.error("cannot be rendered", endpoint=name, fault=type(fault).__name__)
            return None


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    if seconds > 0:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stop.wait(), seconds)
