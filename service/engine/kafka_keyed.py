"""`keyed` on Kafka: an owner of each partition number, fed from the cursor of its checkpoint.

The group's committed offsets are advisory (lag tools read them); the cursor is in the database,
beside the states, under the owner's epoch. A failed owner is dropped and opened again from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import replace

from service.engine.base import Position, Record
from service.engine.kafka_share import Fetched, Share
from service.engine.owner import Owner, Stage
from service.engine.retry import Retry
from service.telemetry import Metrics


class KeyedWorker:
    """One `Owner` for every open share."""

    tick_s = 0.25
    one_after_the_other = False
    keeps = False

    def __init__(self, stage: Stage, metrics: Metrics) -> None:
        # Waiting for storage or brokers ends when the shares are to be given up, not only at stop.
        self._interrupted = asyncio.Event()
        self._retry = Retry(stage.name, metrics.errors, self._interrupted)
        self._stage = replace(stage, retry=self._retry)
        self._owners: dict[int, Owner] = {}

    @property
    def failing(self) -> Sequence[str]:
        """What owners are trying again: storage, or appending."""
        return self._retry.failing

    async def claim(self, share: Share) -> None:
        """Claim the partition."""
        owner = self._owners[share.partition] = Owner(self._stage, share.partition)
        await owner.claim()

    async def open(self, share: Share) -> Mapping[str, int]:
        """Read on at the cursor that was stored with the states."""
        wanted = await self._owners[share.partition].open(share.ends)
        share.commits.update(
            {topic: Position(share.ends[topic].stream, at) for topic, at in wanted.items()}
        )
        return wanted

    async def take(self, share: Share, fetched: Fetched) -> None:
        """Let the owner take in records, topic after topic."""
        partition, owner = share.partition, self._owners[share.partition]
        records = [
            Record(
                topic,
                partition,
                message.offset,
                message.timestamp,
                message.key or b"",
                message.value or b"",
                message.headers,
            )
            for topic in share.topics
            for message in fetched.get(topic, ())
        ]
        before = owner.saved
        await owner.take(records)
        if owner.saved is not before:
            self._commit(share, owner)

    async def close(self, share: Share, lost: bool) -> None:
        """Checkpoint and forget; only forget when this owner was fenced or has failed."""
        owner = self._owners.pop(share.partition, None)
        if owner is None:
            return
        if lost:
            await owner.drop()
        else:
            await owner.close()
            self._commit(share, owner)

    def committed(self) -> None:
        """Nothing: the cursor is in the database."""

    def interrupt(self, stop: bool) -> None:
        """End waiting for storage or brokers; what was not stored is read again."""
        if stop:
            self._interrupted.set()
        else:
            self._interrupted.clear()

    def _commit(self, share: Share, owner: Owner) -> None:
        share.commits.update({t: at for t, at in owner.saved.items() if t in share.topics})
