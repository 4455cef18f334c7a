"""A Kafka engine on topics of its own, and what only tests do to a broker."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition

from service.clock import WallClock
from service.engine.base import Claim, Position, Snapshot
from service.engine.kafka import KafkaEngine
from service.telemetry import Metrics


class NoCheckpoints:
    """For engines without a keyed handler."""

    def claim(self, stage: str, partition: int) -> Claim:
        raise NotImplementedError

    def save(
        self,
        stage: str,
        partition: int,
        epoch: int,
        cursor: Mapping[str, Position],
        states: Mapping[str, Snapshot],
    ) -> bool:
        raise NotImplementedError


class Bench:
    """Topics by a prefix of their own on one broker."""

    def __init__(self, bootstrap: str, partitions: int = 2) -> None:
        self.bootstrap = bootstrap
        self.prefix = f"t{uuid.uuid4().hex[:12]}."
        self.partitions = partitions
        self.metrics: list[Metrics] = []

    def engine(self, **changes: Any) -> KafkaEngine:
        self.metrics.append(Metrics())
        wanted: dict[str, Any] = {
            "checkpoints": NoCheckpoints(),
            "prefix": self.prefix,
            "partitions": self.partitions,
            "session_timeout_ms": 6000,
        }
        return KafkaEngine(
            self.bootstrap, WallClock(), metrics=self.metrics[-1], **{**wanted, **changes}
        )

    async def make_topics(self) -> None:
        engine = self.engine()
        await engine.start()
        await engine.topics(create=True)
        await engine.stop()

    async def members(self, group: str) -> int:
        """How many members a group has that hands nothing over; 0 while it does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        (reply,) = await admin.describe_consumer_groups([self.prefix + group])
        await admin.close()
        _, _, state, _, _, members, *_ = reply.groups[0]
        return len(members) if state == "Stable" else 0

    async def delete_topic(self, topic: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        await admin.delete_topics([self.prefix + topic])
        await admin.close()

    async def delete_before(self, topic: str, partition: int, offset: int) -> None:
        """Do what retention does."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self.bootstrap)
        await admin.start()
        part = TopicPartition(self.prefix + topic, partition)
        await admin.delete_records({part: RecordsToDelete(before_offset=offset)})
        await admin.close()

    async def produce(self, topic: str, values: list[bytes], **settings: Any) -> None:
        """Write to partition 0 as a foreign producer with settings of its own."""
        producer = AIOKafkaProducer(bootstrap_servers=self.bootstrap, **settings)
        await producer.start()
        batch = producer.create_batch()
        for value in values:
            assert batch.append(key=None, value=value, timestamp=None) is not None
        batch.close()
        await (await producer.send_batch(batch, self.prefix + topic, partition=0))
        await producer.stop()


def counted(metrics: Metrics, name: str, **labels: str) -> float:
    """What a counter has come to; 0 when it was never touched."""
    return metrics.registry.get_sample_value(f"rollbackd_{name}_total", labels) or 0.0
