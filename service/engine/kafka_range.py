"""A range of several topics as one sequence, in order of arrival; for replay, offline.

Why. What happened last Tuesday lies on the topics; nobody should have to dump them first.

How. Each partition is read in its own order. Over all of them, messages are merged by the time at
which the log took them, then by topic (in the order they were named), partition and offset. Where
producers set that time and it goes back within a partition, the highest time so far is taken, so
that no message overtakes one before it. The order depends only on what the log holds. Of every
partition a few thousand messages are held at a time.

Refused here: groups, commits, and waiting for messages that are not there yet.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from heapq import heapify, heapreplace
from typing import Any, NamedTuple

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.engine.base import EngineFault, Record
from service.engine.kafka_client import Cluster
from service.engine.kafka_read import STALL_S, record_of

FETCHED = 5000
"""Most messages that are fetched at once."""

Part = tuple[str, int]
"""Topic without prefix, and partition."""


class Edge(NamedTuple):
    """Where a range begins, or ends before; nothing given is the beginning, or the present end."""

    time_ms: int | None = None
    """The first message that the log took at or after this time, epoch ms."""
    offset: int | None = None
    """This offset in every partition."""
    offsets: Mapping[Part, int] = {}
    """An offset in each of these; the others are not bounded."""


class Span(NamedTuple):
    """Offsets of one partition: the first that is read, and the first that is not."""

    begin: int
    end: int


@dataclass
class _Head:
    """One partition while it is read."""

    rank: tuple[int, int]
    """Place of its topic, and its number."""
    topic: str
    span: Span
    held: deque[Record] = field(default_factory=deque)
    time_ms: int = 0
    is_over: bool = False

    def take(self, messages: Sequence[Any], position: int) -> None:
        """Hold what was fetched."""
        self.held += [record_of(self.topic, m) for m in messages if m.offset < self.span.end]
        self.is_over = position >= self.span.end

    def key(self) -> tuple[int, tuple[int, int]]:
        """Its place among the others."""
        self.time_ms = max(self.time_ms, self.held[0].time_ms)
        return self.time_ms, self.rank


class KafkaRange:
    """Topics of one cluster between two edges; use `spans`, then `records`, once.

    Parameters
    ----------
    topics : sequence of str
        Names without prefix; messages of one time come in this order.
    """

    def __init__(self, cluster: Cluster, topics: Sequence[str], begin: Edge, end: Edge) -> None:
        self._cluster, self._topics = cluster, list(topics)
        self._begin, self._end = begin, end
        self._consumer: Any = None

    async def spans(self) -> dict[Part, Span]:
        """Connect, and find the offsets of every partition.

        Raises
        ------
        EngineFault
            When brokers do not answer, a topic is missing, or an edge names no partition.
        """
        await self._cluster.start()
        found = await self._cluster.require(self._topics)
        every = [(topic, n) for topic in self._topics for n in range(found[topic].partitions)]
        for topic, number in (*self._begin.offsets, *self._end.offsets):
            if (topic, number) not in every:
                raise EngineFault(
                    f"there is no partition {topic}/{number}; there are "
                    + ", ".join(f"{t}/0 to {found[t].partitions - 1}" for t in self._topics)
                )
        self._consumer = AIOKafkaConsumer(
            **self._cluster.settings, enable_auto_commit=False, auto_offset_reset="none",
            isolation_level="read_committed", fetch_max_wait_ms=100, max_poll_records=FETCHED,
        )  # fmt: skip
        try:
            await self._consumer.start()
            parts = {TopicPartition(self._cluster.real(t), n): (t, n) for t, n in every}
            self._consumer.assign(list(parts))
            return await self._spans(parts)
        except aiokafka.errors.KafkaError as fault:
            raise self._fault(fault) from fault

    async def _spans(self, parts: Mapping[Any, Part]) -> dict[Part, Span]:
        first = await self._consumer.beginning_offsets(list(parts))
        last = await self._consumer.end_offsets(list(parts))
        begins = await self._offsets(self._begin, parts, first)
        ends = await self._offsets(self._end, parts, last)
        spans = {}
        for part, name in parts.items():
            begin = min(max(begins[part], first[part]), last[part])
            spans[name] = Span(begin, max(begin, min(ends[part], last[part])))
        return spans

    async def _offsets(self, edge: Edge, parts: Mapping[Any, Part], default: Mapping[Any, int]
                       ) -> dict[Any, int]:  # fmt: skip
        """Where an edge lies in each partition."""
        if edge.time_ms is not None:
            found = await self._consumer.offsets_for_times(dict.fromkeys(parts, edge.time_ms))
            # No message at or after that time: the present end, whichever edge it is.
            ends = await self._consumer.end_offsets(list(parts))
            return {part: at.offset if (at := found.get(part)) else ends[part] for part in parts}
        if edge.offset is not None:
            return dict.fromkeys(parts, edge.offset)
        return {part: edge.offsets.get(name, default[part]) for part, name in parts.items()}

    async def records(self, spans: Mapping[Part, Span]) -> AsyncIterator[list[Record]]:
        """Give all messages of the spans, merged, some at a time.

        Raises
        ------
        EngineFault
            When brokers give nothing for `STALL_S`, or messages were deleted meanwhile.
        """
        heads = {
            TopicPartition(self._cluster.real(topic), number): _Head(
                (self._topics.index(topic), number), topic, span
            )
            for (topic, number), span in spans.items()
            if span.end > span.begin
        }
        try:
            for part, head in heads.items():
                self._consumer.seek(part, head.span.begin)
            while heads:
                await self._fill(heads)
                heads = {p: head for p, head in heads.items() if head.held or not head.is_over}
                if merged := _merged(list(heads.values())):
                    yield merged
        except (aiokafka.errors.KafkaError, TimeoutError) as fault:
            raise self._fault(fault) from fault

    async def _fill(self, heads: Mapping[Any, _Head]) -> None:
        """Fetch until every partition holds a message or is over."""
        async with asyncio.timeout(STALL_S) as limit:
            while empty := [p for p, head in heads.items() if not head.held and not head.is_over]:
                got = await self._consumer.getmany(*empty, timeout_ms=200)
                for part in empty:
                    # Positions pass markers and what was compacted, of which nothing is given.
                    heads[part].take(got.get(part, ()), await self._consumer.position(part))
                if got:
                    limit.reschedule(asyncio.get_running_loop().time() + STALL_S)

    async def stop(self) -> None:
        """Disconnect."""
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await consumer.stop()
        await self._cluster.stop()

    def _fault(self, fault: BaseException) -> EngineFault:
        names = ", ".join(self._cluster.real(topic) for topic in self._topics)
        return EngineFault(f"{names} cannot be read: {type(fault).__name__}: {fault}")


def _merged(heads: Sequence[_Head]) -> list[Record]:
    """Messages in order of arrival, until a partition of which more is to come has none left."""
    queue = [(head.key(), at, head) for at, head in enumerate(heads) if head.held]
    heapify(queue)
    merged: list[Record] = []
    while queue:
        _, at, head = queue[0]
        merged.append(head.held.popleft())
        if head.held:
            heapreplace(queue, (head.key(), at, head))
            continue
        if not head.is_over:
            break
        queue[0] = queue[-1]
        queue.pop()
        heapify(queue)
    return merged
