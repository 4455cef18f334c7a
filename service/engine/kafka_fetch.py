"""Fetching for the shares of one consumer: in order, without loss, past what cannot be decoded.

Why. aiokafka moves its positions when it collects messages, not when it hands them over: when one
partition raises (a bad checksum, a codec), what it had collected from the others is gone. So
positions are our own (`Share.next`). After any error the consumer is set back to them, and messages
that do not begin there are not handed over.

How. A hole can be the log's own (compaction, transaction markers). It is believed when a second
fetch, begun at our position, begins at the same message. When a fetch raises, every partition is
suspect and is read message by message until it has given `SUSPECT_RECORDS` or all it has; so the
one batch that cannot be decoded ends up alone. It is skipped, loudly, after `POISON_TRIES`: its
partition must not stall for ever, and what it held is on the broker's disk, at the offsets the
error names.

Refused here: skipping where a codec is missing on this machine, which is no fault of the batch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import aiokafka.errors
import structlog
from aiokafka import TopicPartition

from service.engine.base import EngineFault
from service.engine.kafka_client import Cluster
from service.engine.kafka_poison import batch_end
from service.engine.kafka_share import Share
from service.engine.retry import Retry
from service.telemetry import Metrics

log = structlog.get_logger(__name__)

SUSPECT_RECORDS = 5000
"""How many good messages a suspect partition has to give to be trusted again."""
POLL_RECORDS = 20_000
"""Most messages that are handed over at once."""
POISON_TRIES = 3
"""How often a batch that cannot be decoded is fetched again before it is skipped."""
PAUSE_S = 0.1
SUSPECT_WAIT_MS = 50
"""Longest wait for one message of a suspect partition, milliseconds."""

_OF_A_BATCH = (
    aiokafka.errors.CorruptRecordException,
    aiokafka.errors.RecordTooLargeError,
    aiokafka.errors.UnsupportedCodecError,
)


class OffTheLog(Exception):
    """Positions of these partition numbers are not on the log: deleted, or made again."""

    def __init__(self, partitions: set[int]) -> None:
        super().__init__(f"offsets of partitions {sorted(partitions)} are not on the log")
        self.partitions = partitions


class Fetching:
    """What one consumer fetches, sorted into its shares."""

    def __init__(self, consumer: Any, cluster: Cluster, retry: Retry, metrics: Metrics) -> None:
        self._consumer = consumer
        self._cluster = cluster
        self._retry = retry
        self._metrics = metrics
        self._suspects: dict[TopicPartition, int] = {}
        """How many messages each still has to give to be trusted again."""
        self._tries: dict[TopicPartition, int] = {}
        self._holes: dict[TopicPartition, tuple[int, int]] = {}

    async def fetch(self, shares: Mapping[int, Share], wait_ms: int) -> None:
        """Fetch once and leave the messages in the shares; nothing new after `wait_ms` is fine.

        Raises
        ------
        OffTheLog
            When positions are out of range; the shares must be opened again.
        EngineFault
            When messages need a codec that this machine lacks.
        aiokafka.errors.KafkaError
            When the consumer cannot go on.
        """
        try:
            for part in sorted(self._suspects):
                await self._fetch_suspect(shares, part)
            await self._fetch_trusted(shares, wait_ms)
        except aiokafka.errors.OffsetOutOfRangeError as fault:
            self.back_to_ours(shares)
            raise OffTheLog({part.partition for part in fault.args[0]}) from fault

    async def _fetch_trusted(self, shares: Mapping[int, Share], wait_ms: int) -> None:
        flowing = self._consumer.assignment() - self._consumer.paused()
        trusted = flowing.difference(self._suspects) if self._suspects else ()
        if self._suspects and not trusted:
            return
        try:
            got = await self._consumer.getmany(
                *trusted, timeout_ms=wait_ms, max_records=POLL_RECORDS
            )
        except Exception as fault:
            if not _is_of_a_batch(fault):
                raise
            self._retry.failed("fetch", fault)
            self._suspects = dict.fromkeys(flowing, SUSPECT_RECORDS)
            self.back_to_ours(shares)
            return
        if not self._suspects:
            self._retry.worked("fetch")
        for part, messages in got.items():
            self._sort(shares, part, messages)

    def back_to_ours(self, shares: Mapping[int, Share]) -> None:
        """Set the consumer to our own positions."""
        assigned = self._consumer.assignment()
        for share in shares.values():
            for topic, offset in share.next.items() if share.opened else ():
                part = TopicPartition(self._cluster.real(topic), share.partition)
                if part in assigned:
                    self._consumer.seek(part, offset)

    def _sort(self, shares: Mapping[int, Share], part: TopicPartition, messages: list[Any]) -> None:
        share, topic = shares.get(part.partition), self._cluster.logical(part.topic)
        if share is None or not share.opened or not messages:
            return
        expected, got = share.next[topic], messages[0].offset
        if got != expected and not self._is_of_the_log(part, (expected, got)):
            return
        share.next[topic] = messages[-1].offset + 1
        share.kept.setdefault(topic, []).extend(messages)

    def _is_of_the_log(self, part: TopicPartition, hole: tuple[int, int]) -> bool:
        if hole[0] < hole[1] and self._holes.pop(part, None) == hole:
            return True
        self._holes[part] = hole
        self._consumer.seek(part, hole[0])
        return False

    async def _fetch_suspect(self, shares: Mapping[int, Share], part: TopicPartition) -> None:
        share = shares.get(part.partition)
        if share is None or not share.opened or part not in self._consumer.assignment():
            self._suspects.pop(part)
            return
        if part in self._consumer.paused():
            return
        while self._suspects.get(part, 0) > 0:
            try:
                got = await self._consumer.getmany(part, timeout_ms=SUSPECT_WAIT_MS, max_records=1)
            except Exception as fault:
                if not _is_of_a_batch(fault):
                    raise
                await self._undecodable(share, part, fault)
                return
            if not got:
                break
            self._tries.pop(part, None)
            self._suspects[part] -= 1
            for messages in got.values():
                self._sort(shares, part, messages)
        highwater = self._consumer.highwater(part)
        at = share.next[self._cluster.logical(part.topic)]
        if self._suspects[part] <= 0 or (highwater is not None and at >= highwater):
            self._suspects.pop(part)

    async def _undecodable(self, share: Share, part: TopicPartition, fault: Exception) -> None:
        if isinstance(fault, aiokafka.errors.UnsupportedCodecError):
            raise EngineFault(
                f"{part.topic} is compressed by a codec that is missing here: {fault}; "
                "install cramjam"
            ) from fault
        topic = self._cluster.logical(part.topic)
        at = share.next[topic]
        tries = self._tries[part] = self._tries.get(part, 0) + 1
        if tries >= POISON_TRIES:
            end = await batch_end(self._cluster, part, at)
            share.next[topic] = end
            self._tries.pop(part)
            self._suspects.pop(part)
            self._metrics.rejected.labels(stage="engine", reason="undecodable_batch").inc()
            log.error(
                "a batch that cannot be decoded is skipped",
                topic=part.topic,
                partition=part.partition,
                first=at,
                last=end - 1,
                exc_info=fault,
            )
        else:
            await asyncio.sleep(PAUSE_S)
        self._consumer.seek(part, share.next[topic])


def _is_of_a_batch(fault: Exception) -> bool:
    """Whether messages are at fault and not the cluster, the group or a codec of ours."""
    if isinstance(fault, aiokafka.errors.KafkaError):
        return isinstance(fault, _OF_A_BATCH)
    return not isinstance(fault, (OSError, EngineFault, OffTheLog))
