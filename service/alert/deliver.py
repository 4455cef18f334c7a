"""Send what is due to one endpoint, and store what came of it.

Why. A notification goes out once; a crash between sending and storing is the only way to a second
one, which then has the same id. Endpoints do not wait for each other: each has a queue of its own.

How. Claim one row, send it, store the outcome under the same claim. What an answer means is said by
the notifier (`NotDelivered`), when to try again by `schedule.py`; here both are carried out, and a
message that nobody will try again is told to the other endpoints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import structlog

from schemas.ids import derive
from service.alert.audience import EVERYTHING, Audience, hears
from service.alert.notifiers.base import Letter, NotDelivered, Notifier
from service.alert.route import undelivered
from service.alert.schedule import next_try
from service.clock import Clock
from service.http import Http, HttpFault, Reach
from service.storage.deliveries import Claimed, DeliveryStore, NewDelivery
from service.telemetry import Metrics, redact

LEASE_MS = 60_000
"""Longer than a try can last (`service/http.py`, 20 s); after it another process may try."""
DAY_MS = 86_400_000

logs: Any = structlog.get_logger("alert")


class Deliverer:
    """Sends what waits for each endpoint.

    Parameters
    ----------
    notifiers : mapping
        Endpoint name -> notifier.
    http : callable
        Makes the client for what an endpoint's settings allow.
    audiences : mapping, optional
        Endpoint name -> what it wants to hear; everything where nothing is said.
    """

    def __init__(
        self,
        clock: Clock,
        metrics: Metrics,
        deliveries: DeliveryStore,
        notifiers: Mapping[str, Notifier],
        http: Callable[[Reach], Http] = Http,
        audiences: Mapping[str, Sequence[Audience]] | None = None,
    ) -> None:
        self._clock = clock
        self._metrics = metrics
        self._deliveries = deliveries
        self._notifiers = notifiers
        self._audiences = audiences or {}
        self._clients = {name: http(notifier.reach) for name, notifier in notifiers.items()}

    async def send_next(self, endpoint: str) -> bool:
        """Send the oldest delivery that is due to an endpoint; False when there was none."""
        now = self._clock.now_ms()
        claimed = await asyncio.to_thread(self._deliveries.claim, endpoint, now, LEASE_MS)
        if claimed is None:
            return False
        notifier = self._notifiers[endpoint]
        letter = Letter(claimed.delivery_id, claimed.payload, now)
        try:
            await notifier.send(letter, self._clients[endpoint])
        except (NotDelivered, HttpFault) as fault:
            await self._not_delivered(claimed, fault)
        except Exception as fault:
            # A plugin's mistake: its words may hold an address, so only its kind is shown.
            await self._not_delivered(claimed, NotDelivered(f"it failed ({type(fault).__name__})"))
        else:
            await asyncio.to_thread(self._deliveries.sent, claimed)
            self._count(endpoint, "sent")
            logs.debug("delivered", endpoint=endpoint, delivery=claimed.delivery_id)
        return True

    async def _not_delivered(self, claimed: Claimed, fault: NotDelivered | HttpFault) -> None:
        reason = redact(str(fault))
        now = self._clock.now_ms()
        refused = isinstance(fault, HttpFault) and fault.kind == "refused"
        answer = fault if isinstance(fault, NotDelivered) else NotDelivered("", permanent=refused)
        again = None
        if not (answer.permanent or answer.gone):
            age_s = (now - claimed.created_at) / 1000
            again = next_try(
                claimed.delivery_id, claimed.failures, age_s, answer.throttled, answer.retry_after_s
            )
        if again is None:
            await asyncio.to_thread(self._give_up, claimed, reason, answer.gone, now)
            return
        next_at = now + round(again.after_s * 1000)
        await asyncio.to_thread(self._deliveries.retry, claimed, reason, next_at, again.failed)
        if answer.throttled:
            await asyncio.to_thread(self._deliveries.pause, claimed.endpoint, next_at)
        self._metrics.errors.labels("alert").inc()
        self._count(claimed.endpoint, "retried")
        logs.warning(
            "not delivered, will be tried again",
            endpoint=claimed.endpoint, delivery=claimed.delivery_id, reason=reason,
            after_s=round(again.after_s, 1), failures=claimed.failures + again.failed,
        )  # fmt: skip

    def _give_up(self, claimed: Claimed, reason: str, gone: bool, now: int) -> None:
        self._deliveries.bury(claimed, reason)
        if gone:
            self._deliveries.disable(claimed.endpoint, reason)
        self._count(claimed.endpoint, "dead")
        logs.error(
            "not delivered, given up",
            endpoint=claimed.endpoint, delivery=claimed.delivery_id, reason=reason, disabled=gone,
        )  # fmt: skip
        # Trouble about trouble would never end.
        if claimed.kind != "undelivered":
            self._deliveries.add(self._told_elsewhere(claimed.endpoint, reason, now), now)

    def _told_elsewhere(self, failed: str, reason: str, now: int) -> list[NewDelivery]:
        day = now // DAY_MS
        notice = undelivered(failed, reason, day)
        others = [name for name in self._notifiers if name != failed]
        wanting = [
            name
            for name in others
            if any(hears(each, notice) for each in self._audiences.get(name, EVERYTHING))
        ]
        # When nobody wants to be called, all others are told: it must not stay unknown.
        return [
            NewDelivery(
                delivery_id=derive("undelivered", name, failed, day), endpoint=name,
                incident_id="", kind="undelivered",
                payload=self._notifiers[name].render(notice), not_before=now,
            )
            for name in wanting or others
        ]  # fmt: skip

    def _count(self, endpoint: str, result: str) -> None:
        self._metrics.deliveries.labels(endpoint.rpartition("-")[0] or endpoint, result).inc()
