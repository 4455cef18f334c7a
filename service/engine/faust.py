"""`each` and `lead` on Faust: agents for single messages, and what one process alone does.

Why. Commands and receipts are a few an hour; what counts is that each is handled before it is
acknowledged, in order, and again after a crash. Faust's agents and leader give that with public
parts. Its tables and its throughput are not used (docs/decisions, 0014).

How. One Faust app per group, inside this process's loop, made anew when it crashes. An agent calls
the handler until it returns, and only then acknowledges; when the partition is given away or the
engine stops meanwhile, nothing more is acknowledged, so the message comes again. Offsets must
follow each other (compacted topics apart): Faust commits past what it believes to be a gap, so at
a gap the app is made anew, from what was committed.

The leader of a name is whoever owns partition 0 of `LEADER_TOPIC` in that name's group. Faust's own
leader topic would have to be made at run time, which needs rights that nobody should have.

Refused here: Faust's web server, tables, transactions, topic creation, signals and logging setup.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import aiokafka.errors
import faust
import structlog
from faust.assignor.leader_assignor import LeaderAssignor
from faust.auth import SASLCredentials, SSLCredentials
from faust.exceptions import ConsumerNotStarted
from faust.types import TP
from prometheus_client import Gauge

from service.clock import Clock
from service.crash import crash_point
from service.engine.base import TOPICS, Action, Each, Record
from service.engine.kafka_client import Cluster
from service.engine.retry import Retry, Stopped
from service.telemetry import Metrics

log = structlog.get_logger(__name__)

LEADER_TOPIC = "holds"
"""Exists in every installation, is small, and everybody may read it."""
START_S, STOP_S, LOOK_S = 60.0, 10.0, 0.1
COMMIT_EVERY_S = 0.5


class Gap(RuntimeError):
    """Faust delivered offsets that do not follow each other."""


class FaustHost:
    """All Faust apps of one engine."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        metrics: Metrics,
        session_s: float,
        stopping: asyncio.Event,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._metrics = metrics
        self._session_s = session_s
        self._stopping = stopping
        self._served: dict[str, Served] = {}

    def each(self, topic: str, handler: Each, group: str) -> None:
        """Register a handler of single messages."""
        self._group(group).handlers[topic] = handler

    def lead(self, name: str, every_s: float, action: Action) -> None:
        """Register what the leader of `name` does every so often."""
        self._group(f"lead-{name}").leads.append((name, every_s, action))

    async def run(self) -> None:
        """Serve until the engine stops."""
        with tempfile.TemporaryDirectory(prefix="rollbackd-faust-") as folder:
            await asyncio.gather(*(served.run(folder) for served in self._served.values()))

    def health(self) -> dict[str, dict[str, Any]]:
        """Whether each group takes part, and how far it is behind."""
        return {group: served.health() for group, served in self._served.items()}

    def _group(self, group: str) -> Served:
        if group not in self._served:
            retry = Retry(group, self._metrics.errors, self._stopping)
            lag = self._metrics.lag_s.labels(stage=group)
            self._served[group] = Served(
                group, self._cluster, self._clock, lag, retry, self._stopping, self._session_s
            )
        return self._served[group]


class Served:
    """One group: its handlers, and the app that calls them at the moment."""

    def __init__(
        self,
        group: str,
        cluster: Cluster,
        clock: Clock,
        lag: Gauge,
        retry: Retry,
        stopping: asyncio.Event,
        session_s: float,
    ) -> None:
        self.handlers: dict[str, Each] = {}
        self.leads: list[tuple[str, float, Action]] = []
        self._group = group
        self._cluster = cluster
        self._clock = clock
        self._lag = lag
        self._retry = retry
        self._stopping = stopping
        self._session_s = session_s
        self._app: Any = None
        self._gap: Gap | None = None
        self._next: dict[Any, tuple[int, int]] = {}
        """Generation and next offset of each topic partition that delivered something."""
        self._since_s = clock.monotonic_s()
        self._time_ms = 0

    async def run(self, folder: str) -> None:
        """Keep an app running until the engine stops."""
        await self._cluster.require([*self.handlers, *([LEADER_TOPIC] if self.leads else [])])
        while not self._stopping.is_set():
            try:
                await self._serve(folder)
            except Exception as fault:
                try:
                    await self._retry.pause("app", fault)
                except Stopped:
                    return

    async def _serve(self, folder: str) -> None:
        self._gap, self._next, self._since_s = None, {}, self._clock.monotonic_s()
        app = self._app = self._build(folder)
        try:
            await asyncio.wait_for(app.start(), START_S)
            self._retry.worked("app")
            while not self._stopping.is_set():
                if self._gap:
                    raise self._gap
                if app.crashed:
                    raise app.crash_reason or RuntimeError("Faust crashed without a reason")
                self._lag.set(self._lag_s(self._assignment()))
                await asyncio.sleep(LOOK_S)
        finally:
            self._app = None
            try:
                await asyncio.wait_for(app.stop(), STOP_S)
            except (TimeoutError, aiokafka.errors.KafkaError) as fault:
                log.warning("Faust did not stop in order", group=self._group, fault=str(fault))

    def _build(self, folder: str) -> Any:
        leading: dict[str, Any] = {"LeaderAssignor": _leader_of(self._cluster.real(LEADER_TOPIC))}
        app = faust.App(
            self._cluster.group(self._group),
            **_broker_settings(self._cluster),
            **(leading if self.leads else {}),
            datadir=folder,
            store="memory://",
            loop=asyncio.get_running_loop(),
            autodiscover=False,
            web_enabled=False,
            topic_allow_declare=False,
            topic_disable_leader=True,
            stream_wait_empty=False,
            producer_acks=-1,
            consumer_auto_offset_reset="latest" if self.leads else "earliest",
            broker_session_timeout=self._session_s,
            broker_heartbeat_interval=self._session_s / 3,
            broker_rebalance_timeout=self._session_s,
            broker_commit_interval=COMMIT_EVERY_S,
            # A handler may try again for hours; its partition stays with it all the same.
            broker_max_poll_interval=86_400.0,
            stream_processing_timeout=86_400.0,
        )
        for topic, handler in self.handlers.items():
            self._add_agent(app, topic, partial(self._handle, app, handler))
        if self.leads:
            self._add_agent(app, LEADER_TOPIC, _ignore)
        for name, every_s, action in self.leads:
            app.timer(every_s, on_leader=True, name=name)(partial(self._lead, name, action))
        return app

    def _add_agent(self, app: Any, topic: str, take: Callable[..., Any]) -> None:
        raw = {"key_type": bytes, "value_type": bytes,
               "key_serializer": "raw", "value_serializer": "raw"}  # fmt: skip
        channel = app.topic(self._cluster.real(topic), allow_empty=True, **raw)

        async def agent(stream: Any) -> None:
            async for event in stream.noack().events():
                if await take(topic, event):
                    event.ack()
                    crash_point("K11")

        app.agent(channel, concurrency=1, name=topic)(agent)

    async def _handle(self, app: Any, handler: Each, topic: str, event: Any) -> bool:
        """Call the handler until it returns; False when the message is not ours any more."""
        message = event.message
        if self._gap or self._is_gap(topic, message):
            return False
        record = Record(
            topic,
            message.partition,
            message.offset,
            round((message.timestamp or 0) * 1000),
            message.key or b"",
            message.value or b"",
            tuple(message.headers or ()),
        )
        while message.generation_id == app.consumer_generation_id:
            if self._stopping.is_set() or app.should_stop:
                break
            try:
                await handler(record)
            except Exception as fault:
                try:
                    await self._retry.pause("handle", fault)
                except Stopped:
                    break
            else:
                self._retry.worked("handle")
                self._next[message.tp] = (message.generation_id, message.offset + 1)
                self._time_ms = record.time_ms
                return bool(message.generation_id == app.consumer_generation_id)
        return False

    def _is_gap(self, topic: str, message: Any) -> bool:
        generation, expected = self._next.get(message.tp, (None, 0))
        compacted = TOPICS.get(topic, {}).get("cleanup") == "compact"
        if compacted or generation != message.generation_id or message.offset == expected:
            return False
        self._gap = Gap(f"{message.tp}: expected offset {expected}, got {message.offset}")
        return True

    async def _lead(self, name: str, action: Action) -> None:
        if self._stopping.is_set():
            return
        try:
            await action()
        except Exception as fault:
            self._retry.failed(name, fault)
        else:
            self._retry.worked(name)

    # -- health ----------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Whether this process takes part, and how far it is behind."""
        parts = self._assignment()
        return {
            "owned": parts is not None,
            "partitions": sorted({part.partition for part in parts or ()}),
            "lag_s": self._lag_s(parts),
            "failing": self._retry.failing,
        }

    def _assignment(self) -> Any:
        app = self._app
        if app is None or not app.started or app.rebalancing or app.unassigned is None:
            return None
        try:
            return app.consumer.assignment()
        except ConsumerNotStarted:
            return None

    def _lag_s(self, parts: Any) -> float:
        if parts is None:
            return self._clock.monotonic_s() - self._since_s
        if not self.handlers or not any(self._waits(part) for part in parts):
            return 0.0
        if not self._time_ms:
            return self._clock.monotonic_s() - self._since_s
        return (self._clock.now_ms() - self._time_ms) / 1000

    def _waits(self, part: Any) -> bool:
        end = self._app.consumer.highwater(part) or 0
        _, next_ = self._next.get(part, (None, None))
        committed = self._app.consumer._committed_offset.get(part) or 0
        return bool(end > (committed if next_ is None else next_))


async def _ignore(topic: str, event: Any) -> bool:
    return True


def _leader_of(topic: str) -> type:
    class OwnerOfPartition0(LeaderAssignor):
        async def on_start(self) -> None:
            """Nothing to make: the agent's topic is what members share."""

        def is_leader(self) -> bool:
            try:
                return TP(topic, 0) in self.app.consumer.assignment()
            except ConsumerNotStarted:
                return False

    return OwnerOfPartition0


def _broker_settings(cluster: Cluster) -> Mapping[str, Any]:
    settings = cluster.settings
    context = settings.get("ssl_context")
    made: dict[str, Any] = {
        "broker": [f"kafka://{host.strip()}" for host in cluster.bootstrap.split(",")],
        "broker_client_id": settings["client_id"],
    }
    if settings["security_protocol"].startswith("SASL_"):
        made["broker_credentials"] = SASLCredentials(
            mechanism=settings["sasl_mechanism"],
            username=settings.get("sasl_plain_username"),
            password=settings.get("sasl_plain_password"),
            ssl_context=context,
        )
    elif context is not None:
        made["broker_credentials"] = SSLCredentials(context)
    return made
