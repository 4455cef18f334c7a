"""The Kafka engine: the port on a cluster, for more than one machine.

Why. Kafka's consumer groups share partitions over processes and fail over; this only adds what the
port promises beyond that. `bulk` and `keyed` are plain aiokafka consumers (`kafka_group.py`), since
they carry the load and must be exact; `each` and `lead` are Faust (`faust.py`): a few messages an
hour, where agents and a leader are worth more than throughput.

How. One connection describes and makes topics, one idempotent producer appends, one consumer per
registered group reads. Everything registered runs in this loop until `stop`.

Refused here: making topics but by `topics(create=True)`, and starting with topics that are missing
or partitioned unlike. Brokers should run with `auto.create.topics.enable=false`.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Coroutine, Mapping, Sequence
from operator import attrgetter
from typing import Any

import structlog

from service.clock import Clock
from service.engine.base import (
    Action,
    Bulk,
    Checkpoints,
    Each,
    EngineFault,
    Keyed,
    Message,
    Record,
    TopicState,
)
from service.engine.faust import FaustHost
from service.engine.kafka_append import Appender
from service.engine.kafka_bulk import BulkWorker
from service.engine.kafka_client import Cluster
from service.engine.kafka_group import Group, Plan
from service.engine.kafka_keyed import KeyedWorker
from service.engine.kafka_poison import bound_decompression
from service.engine.kafka_read import read_topic
from service.engine.kafka_share import Worker
from service.engine.owner import Stage
from service.engine.retry import Retry
from service.telemetry import Metrics

READY_LAG_S = 10.0
"""Up to this lag the process is ready, seconds."""
STOP_WITHIN_S = 20.0
"""How long handlers may take to return before `stop` cancels them, seconds."""

log = structlog.get_logger(__name__)


class KafkaEngine:
    """`service.engine.base.Engine` on a Kafka cluster (2.8 or later).

    Parameters
    ----------
    bootstrap : str
        `host:port`, comma-separated.
    clock : Clock
        Measures lag and pauses.
    checkpoints : Checkpoints
        Where `keyed` keeps states; all processes of an installation share it.
    metrics : Metrics
        `errors`, `rejected` and `lag_s` are set here, by group.
    prefix : str
        Of topics and groups.
    names : Mapping
        Real names of topics that are not prefix + name.
    partitions : int
        Of the topics that `topics(create=True)` makes, >= 1. Existing ones keep theirs.
    security : Mapping
        See `service.engine.kafka_client.SECURITY`.
    session_timeout_ms : int
        A process that is silent for so long loses its partitions. Below 6000 brokers refuse it,
        unless their group.min.session.timeout.ms is lower.
    instance : str, optional
        Client id, shown in the brokers' logs and metrics.
    checkpoint_every_s : float
        See `service.engine.owner.Stage`.
    """

    def __init__(
        self,
        bootstrap: str,
        clock: Clock,
        checkpoints: Checkpoints,
        metrics: Metrics,
        prefix: str = "rollbackd.",
        names: Mapping[str, str] | None = None,
        partitions: int = 4,
        security: Mapping[str, Any] | None = None,
        session_timeout_ms: int = 6000,
        instance: str | None = None,
        checkpoint_every_s: float = 1.0,
    ) -> None:
        self._cluster = Cluster(bootstrap, prefix, names, security, instance)
        self._clock = clock
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._partitions = partitions
        self._session_s = session_timeout_ms / 1000
        self._checkpoint_every_s = checkpoint_every_s
        self._appender = Appender(self._cluster)
        self._groups: list[Group] = []
        self._stopping = asyncio.Event()
        self._faust = FaustHost(self._cluster, clock, metrics, self._session_s, self._stopping)
        self._tasks: list[asyncio.Task[None]] = []
        self._running: asyncio.Task[None] | None = None
        self._started = False

    def bulk(self, topics: Sequence[str], handler: Bulk, group: str) -> None:
        """Register a handler of whole batches; the topics must be partitioned alike."""
        self._join(topics, group, BulkWorker(handler, self._cluster, group))

    def keyed(self, topics: Sequence[str], handler: Keyed, group: str) -> None:
        """Register the owner of keys over topics that are partitioned alike."""
        retry = Retry(group, self._metrics.errors, self._stopping)
        stage = Stage(
            group, handler, self._checkpoints, self.append, retry, self._checkpoint_every_s
        )
        self._join(topics, group, KeyedWorker(stage, self._metrics))

    def each(self, topic: str, handler: Each, group: str) -> None:
        """Register a handler of single messages."""
        self._faust.each(topic, handler, group)

    def lead(self, name: str, every_s: float, action: Action) -> None:
        """Register what only one process of the installation may do, every so often.

        Around a fail-over two may do it once at the same time: one that was stopped does not know.
        """
        self._faust.lead(name, every_s, action)

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Write messages; durable on return. Works without `run`.

        Raises
        ------
        service.engine.kafka_append.Unacknowledged
            Within the deadline nothing is known; the messages may be on the log, or come on it yet.
        EngineFault
            The topic is missing, or a message too large: nothing was written.
        """
        await self._appender.append(topic, messages)

    async def start(self) -> None:
        """Connect. Raises EngineFault."""
        if not self._started:
            bound_decompression()
            await self._cluster.start()
            self._started = True

    async def run(self) -> None:
        """Serve the registered handlers until `stop`. Raises EngineFault on what cannot go on."""
        await self.start()
        self._running = asyncio.current_task()
        work: list[Coroutine[Any, Any, None]] = [group.run() for group in self._groups]
        work += [self._faust.run(), self._stop_groups()]
        self._tasks = [asyncio.ensure_future(one) for one in work]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            self._stopping.set()
            await self._end_tasks()
            self._running = None
        for task in self._tasks:
            if not task.cancelled() and (fault := task.exception()):
                raise fault

    async def stop(self) -> None:
        """Let handlers finish, commit, checkpoint, close. Call it once; then the engine is gone."""
        self._stopping.set()
        if self._running is not None and self._running is not asyncio.current_task():
            await asyncio.wait((self._running,), timeout=STOP_WITHIN_S + 5)
        await self._appender.stop()
        await self._cluster.stop()
        self._started = False

    async def topics(self, create: bool = False) -> Sequence[TopicState]:
        """Show all topics, or make those that are missing."""
        states = await self._cluster.states(self._partitions)
        missing = [state.topic for state in states if not state.partitions]
        if create and missing:
            await self._cluster.create(missing, self._partitions)
            states = await self._cluster.states(self._partitions)
        return states

    async def read(self, topic: str, limit: int | None = None) -> Sequence[Record]:
        """Read a topic to its present end, at most its first `limit` messages, in order of time."""
        found = await self._cluster.require([topic])
        parts = await read_topic(self._cluster, topic, found[topic].partitions, limit)
        return list(heapq.merge(*parts, key=attrgetter("time_ms")))[:limit]

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        return (await self._cluster.describe([topic]))[topic].partitions

    def health(self) -> Mapping[str, Any]:
        """Whether every group serves its share and is up to date."""
        detail = {group.name: group.health() for group in self._groups} | self._faust.health()
        lag_s = max((group["lag_s"] for group in detail.values()), default=0.0)
        owned = all(group["owned"] for group in detail.values())
        return {
            "ready": self._started and owned and lag_s < READY_LAG_S,
            "lag_s": lag_s,
            "detail": detail,
        }

    def _join(self, topics: Sequence[str], group: str, worker: Worker) -> None:
        if any(other.name == group for other in self._groups):
            raise EngineFault(f"group {group} is registered twice: name them apart")
        plan = Plan(group, topics, worker)
        self._groups.append(Group(plan, self._cluster, self._clock, self._metrics, self._session_s))

    async def _stop_groups(self) -> None:
        await self._stopping.wait()
        for group in self._groups:
            group.stop()

    async def _end_tasks(self) -> None:
        _, late = await asyncio.wait(self._tasks, timeout=STOP_WITHIN_S)
        if late:
            log.error("a handler did not return in time and is cancelled", after_s=STOP_WITHIN_S)
        for task in late:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
