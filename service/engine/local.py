"""The local engine: the whole port on one machine, without a broker.

Why. A small team should not run Kafka to watch one model, and a test should not need one. The
messages lie in an embedded log (`local_log.py`); every process on the machine may append and read,
so `rollbackd send` works beside the daemon and roles may run apart.

How. One reader per group and partition runs as a task (`local_bulk`, `local_keyed`, `local_each`).
A group belongs to the one process that holds its lock file: a second daemon refuses to start. What
only one leader does is done by whoever holds that lock. Here nobody operates topics, so `start`
makes those that are missing.

Refused here: machines. Files on a network share have no locks to trust; that is what Kafka is for.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Callable, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import structlog

from service.clock import Clock
from service.engine.base import (
    TOPICS,
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
from service.engine.local_access import LogAccess
from service.engine.local_bulk import BulkReader
from service.engine.local_duties import Lead, keep_log, pause
from service.engine.local_each import EachReader
from service.engine.local_keyed import KeyedReader
from service.engine.local_locks import GroupLock
from service.engine.local_log import LocalLog
from service.engine.local_readers import LogReader, Share, as_records
from service.engine.owner import Stage
from service.engine.retry import Retry
from service.telemetry import Metrics

READY_LAG_S = 10.0
"""Up to this lag the process is ready, in seconds."""
STOP_WITHIN_S = 10.0
"""How long a handler may take to return before `stop` cancels it, in seconds."""

log = structlog.get_logger(__name__)

Build = Callable[[Share, Retry], LogReader]


class LocalEngine:
    """`service.engine.base.Engine` on a folder.

    Parameters
    ----------
    path : Path
        Folder of the log and the locks; made with mode 0700.
    clock : Clock
        Stamps messages and measures lag.
    checkpoints : Checkpoints
        Where `keyed` keeps states.
    metrics : Metrics
        `errors` and `lag_s` are set here, by group.
    partitions : int
        Of the topics that `start` makes, >= 1. Existing ones keep theirs.
    max_records : int
        Most messages of a topic partition that a handler is given at once.
    checkpoint_every_s : float
        See `service.engine.owner.Stage`.
    """

    def __init__(
        self,
        path: Path,
        clock: Clock,
        checkpoints: Checkpoints,
        metrics: Metrics,
        partitions: int = 1,
        *,
        max_records: int = 5000,
        checkpoint_every_s: float = 1.0,
    ) -> None:
        self._path = path.expanduser()
        self._clock = clock
        self._checkpoints = checkpoints
        self._metrics = metrics
        self._partitions = partitions
        self._max_records = max_records
        self._checkpoint_every_s = checkpoint_every_s
        self._access = LogAccess(self._path, clock)
        self._registered: list[tuple[str, Sequence[str], Build]] = []
        self._leads: list[Lead] = []
        self._locks: dict[str, GroupLock] = {}
        self._retries: dict[str, Retry] = {}
        self._readers: list[LogReader] = []
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()
        self._tasks: list[asyncio.Task[None]] = []

    def bulk(self, topics: Sequence[str], handler: Bulk, group: str) -> None:
        """Register a handler of whole batches; the topics must be partitioned alike."""

        def build(share: Share, retry: Retry) -> LogReader:
            return BulkReader(share, handler, self._access, retry, self._stopping)

        self._register(group, topics, build)

    def keyed(self, topics: Sequence[str], handler: Keyed, group: str) -> None:
        """Register the owner of keys over topics that are partitioned alike."""

        def build(share: Share, retry: Retry) -> LogReader:
            append, every_s = self._access.append, self._checkpoint_every_s
            stage = Stage(group, handler, self._checkpoints, append, retry, every_s)
            return KeyedReader(share, stage, self._access, self._stopping)

        self._register(group, topics, build)

    def each(self, topic: str, handler: Each, group: str) -> None:
        """Register a handler of single messages."""

        def build(share: Share, retry: Retry) -> LogReader:
            return EachReader(share, handler, self._access, retry, self._stopping)

        self._register(group, [topic], build)

    def lead(self, name: str, every_s: float, action: Action) -> None:
        """Register what only one process on this folder may do, every so often."""
        lock = GroupLock(self._path / "locks", f"lead-{name}")
        self._leads.append(Lead(lock, every_s, action, self._retry(name), self._stopping))

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Write messages; durable on return. Works without `run`."""
        await self._access.append(topic, messages)

    async def start(self) -> None:
        """Open the log and make missing topics. Raises EngineFault."""
        if not self._access.is_open:
            await self._access.open()
            await self.topics(create=True)

    async def run(self) -> None:
        """Serve the registered handlers until `stop`.

        Raises
        ------
        EngineFault
            When another process serves one of the groups, or something cannot go on.
        """
        await self.start()
        self._ended.clear()
        try:
            for group, _, _ in self._registered:
                lock = self._locks.setdefault(group, GroupLock(self._path / "locks", group))
                lock.acquire()
            self._readers = [
                reader
                for registered in self._registered
                for reader in await self._build(registered)
            ]
            await self._run_tasks()
        finally:
            for lock in self._locks.values():
                lock.release()
            self._ended.set()

    async def stop(self) -> None:
        """Let handlers finish, commit, checkpoint, close. Call it once; then the engine is gone."""
        self._stopping.set()
        self._access.ring()
        try:
            await asyncio.wait_for(self._ended.wait(), STOP_WITHIN_S)
        except TimeoutError:
            log.error("a handler did not return in time and is cancelled", after_s=STOP_WITHIN_S)
            for task in self._tasks:
                task.cancel()
            await self._ended.wait()
        await self._access.close()

    async def topics(self, create: bool = False) -> Sequence[TopicState]:
        """Show all topics, or make those that are missing."""
        if create:
            await self._access.change(lambda log: log.make_topics(TOPICS, self._partitions))
        found = await self._access.look(LocalLog.topics)
        return [TopicState(topic, topic, found.get(topic, 0), self._partitions) for topic in TOPICS]

    async def delete_topic(self, topic: str) -> None:
        """Delete a topic with all it holds."""
        await self._access.change(lambda log: log.delete_topic(topic))

    async def read(self, topic: str, limit: int | None = None) -> Sequence[Record]:
        """Read a topic to its present end, at most its first `limit` messages, in order of time."""

        def read(log: LocalLog) -> Sequence[Record]:
            with log.snapshot():
                parts = [
                    _beginning(log, topic, partition, limit)
                    for partition in range(log.topics().get(topic, 0))
                ]
            return list(heapq.merge(*parts, key=attrgetter("time_ms")))[:limit]

        return await self._access.look(read)

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has; 0 when it does not exist."""
        return (await self._access.look(LocalLog.topics)).get(topic, 0)

    def health(self) -> Mapping[str, Any]:
        """Whether every group owns its partitions and is up to date."""
        detail = {group: self._group_health(group) for group, _, _ in self._registered}
        lag_s = max((group["lag_s"] for group in detail.values()), default=0.0)
        owned = all(group["owned"] for group in detail.values())
        ready = self._access.is_open and owned and lag_s < READY_LAG_S
        return {"ready": ready, "lag_s": lag_s, "detail": detail}

    def _group_health(self, group: str) -> dict[str, Any]:
        readers = [reader for reader in self._readers if reader.share.group == group]
        now_ms = self._clock.now_ms()
        return {
            "owned": bool(readers) and all(reader.owned for reader in readers),
            "partitions": sorted({reader.share.partition for reader in readers if reader.owned}),
            "lag_s": max((reader.lag_s(now_ms) for reader in readers), default=0.0),
            "failing": self._retries[group].failing if group in self._retries else [],
        }

    def _register(self, group: str, topics: Sequence[str], build: Build) -> None:
        for other, others, _ in self._registered:
            if other == group and (both := set(topics) & set(others)):
                raise EngineFault(f"group {group} reads {min(both)} twice: name them apart")
        self._registered.append((group, topics, build))

    async def _build(self, registered: tuple[str, Sequence[str], Build]) -> list[LogReader]:
        group, topics, build = registered
        counts = {topic: await self.partitions(topic) for topic in topics}
        if len(set(counts.values())) != 1:
            raise EngineFault(f"{group} needs topics with as many partitions each, got {counts}")
        retry = self._retry(group)
        shares = [
            Share(group, topics, partition, self._max_records)
            for partition in range(counts[topics[0]])
        ]
        return [build(share, retry) for share in shares]

    def _retry(self, name: str) -> Retry:
        return self._retries.setdefault(name, Retry(name, self._metrics.errors, self._stopping))

    async def _run_tasks(self) -> None:
        work = [reader.run() for reader in self._readers]
        work += [lead.run() for lead in self._leads]
        work += [keep_log(self._access, self._clock, self._retry("retention"), self._stopping)]
        work += [self._publish_lag()]
        self._tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_EXCEPTION)
        except asyncio.CancelledError:
            for task in self._tasks:
                task.cancel()
            raise
        finally:
            self._stopping.set()
            self._access.ring()
            results = await asyncio.gather(*self._tasks, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result

    async def _publish_lag(self) -> None:
        while not self._stopping.is_set():
            for group, _, _ in self._registered:
                lag_s = self._group_health(group)["lag_s"]
                self._metrics.lag_s.labels(stage=group).set(lag_s)
            await pause(self._stopping, 1.0)


def _beginning(log: LocalLog, topic: str, partition: int, limit: int | None) -> list[Record]:
    end = log.ends(topic, partition)
    there = end.next - end.first
    stretch = log.read(topic, partition, end.first, there if limit is None else min(limit, there))
    return as_records(topic, partition, stretch) if stretch else []
