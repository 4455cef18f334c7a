"""Read a topic from its beginning to its present end, for people, tests and rebuilding."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaConsumer, TopicPartition

from service.engine.base import EngineFault, Record
from service.engine.kafka_client import Cluster

STALL_S = 30.0
"""Without any progress for so long reading is given up, seconds."""


async def read_topic(
    cluster: Cluster, topic: str, partitions: int, limit: int | None = None
) -> Sequence[Sequence[Record]]:
    """Read each partition in order, at most its first `limit` messages.

    Raises
    ------
    EngineFault
        When brokers give nothing for `STALL_S`.
    """
    consumer = AIOKafkaConsumer(
        **cluster.settings,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        fetch_max_wait_ms=100,
    )
    parts = [TopicPartition(cluster.real(topic), number) for number in range(partitions)]
    found: dict[TopicPartition, list[Record]] = {part: [] for part in parts}
    try:
        await consumer.start()
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        await consumer.seek_to_beginning(*parts)
        left = await _left(consumer, ends, found, limit)
        while left:
            async with asyncio.timeout(STALL_S):
                got: dict[Any, Any] = {}
                before = left
                while not got and left == before:
                    got = await consumer.getmany(*left, timeout_ms=200)
                    for part, all_ in got.items():
                        found[part] += [record_of(topic, m) for m in all_ if m.offset < ends[part]]
                    left = await _left(consumer, ends, found, limit)
    except (aiokafka.errors.KafkaError, TimeoutError) as fault:
        raise EngineFault(
            f"topic {cluster.real(topic)} cannot be read: {type(fault).__name__}: {fault}"
        ) from fault
    finally:
        await consumer.stop()
    return [records[:limit] for records in found.values()]


async def _left(consumer: Any, ends: Any, found: Any, limit: int | None) -> list[TopicPartition]:
    return [
        part
        for part, end in ends.items()
        if await consumer.position(part) < end and (limit is None or len(found[part]) < limit)
    ]


def record_of(topic: str, message: Any) -> Record:
    """A message as aiokafka gives it, under our name of its topic."""
    return Record(
        topic,
        message.partition,
        message.offset,
        message.timestamp,
        message.key or b"",
        message.value or b"",
        message.headers,
    )
