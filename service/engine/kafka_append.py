"""Writing to Kafka: durable on return, within a deadline.

Why. A message counts as said when every replica in sync has it (`acks=all`). An idempotent producer
never gives a batch up: what we stopped waiting for is still delivered when the broker returns. So a
missed deadline means *unknown*, never *not written*, and callers say the same again under the same
derived ids.

How. Messages of one call are packed into batches by hand, which costs a tenth of one future per
message. Batches of one partition go out in order. While batches of an earlier call are still
unacknowledged after their deadline, later calls wait for those first and add nothing: memory stays
bounded however long the broker is away, and the order stays.

Refused here: topics that do not exist (they would be made in silence, or waited for), and messages
that a consumer could not fetch.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import aiokafka.errors
from aiokafka import AIOKafkaProducer

from service.crash import crash_point
from service.engine.base import EngineFault, Message
from service.engine.kafka_client import MAX_MESSAGE_BYTES, Cluster
from service.engine.partitioner import murmur2_partition

BATCH_BYTES = 256 * 1024
"""Size at which a batch is closed. Larger batches compress better and answer later."""
MARGIN_BYTES = 1024
"""What a batch adds around one message: its header, lengths, offsets."""

# Models are few and said often; the hash is pure Python.
_partition_of = lru_cache(maxsize=65_536)(murmur2_partition)


class Unacknowledged(ConnectionError):
    """What became of messages is unknown: some, all or none are on the log. Say them again."""


class Appender:
    """One idempotent producer, made at the first append and again after it failed for good."""

    def __init__(self, cluster: Cluster, deadline_s: float = 30.0) -> None:
        self._cluster = cluster
        self._deadline_s = deadline_s
        self._producer: Any = None
        self._starting = asyncio.Lock()
        self._partitions: dict[str, int] = {}
        self._overdue: set[asyncio.Future[Any]] = set()

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Write messages in order per partition; durable on return.

        Raises
        ------
        EngineFault
            The topic is missing, or a message is too large: nothing was written.
        Unacknowledged
            No acknowledgement within the deadline: nothing is known.
        """
        if not messages:
            return
        try:
            async with asyncio.timeout(self._deadline_s):
                await self._append(topic, messages)
        except TimeoutError:
            raise Unacknowledged(
                f"Kafka at {self._cluster.bootstrap} did not acknowledge {len(messages)} messages "
                f"for {self._cluster.real(topic)} within {self._deadline_s:g} s; whether they are "
                "written is unknown"
            ) from None

    async def stop(self) -> None:
        """Deliver what is under way for a moment, then close."""
        producer, self._producer = self._producer, None
        if producer is None:
            return
        with contextlib.suppress(TimeoutError, aiokafka.errors.KafkaError):
            await asyncio.wait_for(producer.stop(), 5.0)
        # With brokers away stop() waits for ever; these two end its tasks and sockets.
        with contextlib.suppress(Exception):
            await producer._sender.close()
            await producer.client.close()

    async def _append(self, topic: str, messages: Sequence[Message]) -> None:
        if self._overdue:
            await asyncio.wait(self._overdue)
            for future in self._overdue:
                future.exception()  # or asyncio complains that nobody asked
            self._overdue.clear()
        count = self._partitions.get(topic) or await self._count(topic)
        producer = await self._ready()
        sent: list[asyncio.Future[Any]] = []
        try:
            if len(messages) == 1:
                sent.append(await self._send_one(producer, topic, messages[0], count))
            else:
                await self._send_many(producer, topic, messages, count, sent)
            crash_point("K5")
            await asyncio.wait(sent)  # gather would cancel what we have to wait for later
        except asyncio.CancelledError:
            self._overdue.update(sent)
            raise
        for fault in [future.exception() for future in sent]:
            if fault is not None:
                await self._failed(topic, fault)

    async def _send_one(self, producer: Any, topic: str, message: Message, count: int) -> Any:
        self._check_size(topic, message)
        return await producer.send(
            self._cluster.real(topic),
            key=message.key,
            value=message.value,
            partition=_place(message, count),
            headers=list(message.headers),
        )

    async def _send_many(
        self,
        producer: Any,
        topic: str,
        messages: Sequence[Message],
        count: int,
        sent: list[asyncio.Future[Any]],
    ) -> None:
        by_partition: dict[int, list[Message]] = {}
        for message in messages:
            by_partition.setdefault(_place(message, count), []).append(message)
            self._check_size(topic, message)
        packed = [
            (partition, batch)
            for partition, group in by_partition.items()
            for batch in _pack(producer, group)
        ]
        real = self._cluster.real(topic)

        async def send_in_order(mine: int) -> None:
            for partition, batch in packed:
                if partition == mine:
                    sent.append(await producer.send_batch(batch, real, partition=partition))

        # A partition takes one waiting batch at a time, so partitions must not wait for each other.
        await asyncio.gather(*(send_in_order(partition) for partition in by_partition))

    def _check_size(self, topic: str, message: Message) -> None:
        size = len(message.key) + len(message.value) + MARGIN_BYTES
        if message.headers:
            size += sum(len(name) + len(value) + 16 for name, value in message.headers)
        if size > MAX_MESSAGE_BYTES:
            raise EngineFault(
                f"a message of {size} bytes for {self._cluster.real(topic)} is above the limit of "
                f"{MAX_MESSAGE_BYTES} bytes; nothing of this append was written"
            )

    async def _count(self, topic: str) -> int:
        found = await self._cluster.require([topic])
        self._partitions[topic] = found[topic].partitions
        return found[topic].partitions

    async def _ready(self) -> Any:
        async with self._starting:
            if self._producer is None:
                producer = AIOKafkaProducer(
                    **self._cluster.settings,
                    acks="all",
                    enable_idempotence=True,
                    linger_ms=2,
                    max_batch_size=BATCH_BYTES,
                    max_request_size=MAX_MESSAGE_BYTES,
                    request_timeout_ms=10_000,
                )
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
        return self._producer

    async def _failed(self, topic: str, fault: BaseException) -> None:
        self._partitions.pop(topic, None)  # it may have been deleted, or grown
        if not getattr(fault, "retriable", False):
            await self.stop()  # a producer that was fenced or lost its sequence never works again
        raise Unacknowledged(
            f"Kafka refused messages for {self._cluster.real(topic)}: "
            f"{type(fault).__name__}: {fault}"
        ) from fault


def _place(message: Message, count: int) -> int:
    if message.partition is not None:
        return message.partition
    return _partition_of(message.key, count)


def _pack(producer: Any, messages: Sequence[Message]) -> list[Any]:
    batch = producer.create_batch()
    packed = [batch]
    for key, value, _, headers in messages:
        what = {"key": key, "value": value, "timestamp": None, "headers": list(headers)}
        if batch.append(**what) is None:
            batch = producer.create_batch()
            packed.append(batch)
            if batch.append(**what) is None:  # an empty batch takes any size
                raise EngineFault("aiokafka did not take a message into an empty batch")
    for batch in packed:
        batch.close()  # or a single send could slip into it and read another one's outcome
    return packed
