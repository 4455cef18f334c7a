"""The owner of one partition of a keyed stage: what it does with records, whatever engine they
come from.

Why. Exactness is one order of steps: take in records → append what they made, in order,
acknowledged → store changed states, cursor and epoch in one transaction. Killed anywhere, the next
owner starts at the cursor with the states that belong to it; what it says again has the same ids.

How. `claim` raises the epoch, `open` tells where to read on; in this order, so that the ends of the
topics are asked for after the claim: a process that stood still in between finds no cursor beyond
the ends it knows, and is fenced by whoever went on meanwhile. `take` hands records to the handler,
appends its messages and checkpoints: at once when the handler says *urgent*, else when the last
checkpoint is `checkpoint_every_s` old. A handler that raises may have changed half of its states,
and whatever it had to say of that half is lost with the exception; so `take` lets it through and
the engine drops this owner's memory (`drop`), pauses, and opens it again from the checkpoint.

Refused here: a hole in the offsets of a topic that is not compacted (messages were lost: a person
must know), and doing anything at all after being fenced.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import itemgetter

import structlog

from service.crash import crash_point
from service.engine.base import (
    TOPICS,
    Checkpoints,
    Claim,
    Ends,
    EngineFault,
    Keyed,
    Message,
    Position,
    Record,
)
from service.engine.retry import Retry

log = structlog.get_logger(__name__)

Append = Callable[[str, Sequence[Message]], Awaitable[None]]


class Fenced(EngineFault):
    """Another owner took this partition over; nothing was stored and nothing more may be said."""


@dataclass(frozen=True)
class Stage:
    """What all owned partitions of one keyed stage share."""

    name: str
    handler: Keyed
    checkpoints: Checkpoints
    append: Append
    retry: Retry
    checkpoint_every_s: float = 1.0
    """Longest time that an ordinary change stays unstored, in seconds: what is read again after a
    kill. Shorter costs one transaction each."""


class Owner:
    """One owned partition, from `open` to `close` or `drop`. One task at a time may use it."""

    def __init__(self, stage: Stage, partition: int) -> None:
        self._stage = stage
        self._partition = partition
        self._epoch = 0
        self._streams: dict[str, str] = {}
        self._next: dict[str, int] = {}
        self._changed: set[str] = set()
        self._saved: dict[str, Position] = {}
        self._saved_at_s = 0.0
        self._is_open = False
        self._claim = Claim(0, {}, {})

    @property
    def next(self) -> Mapping[str, int]:
        """Next offset to read of each topic."""
        return self._next

    @property
    def saved(self) -> Mapping[str, Position]:
        """The cursor as it was last stored or found."""
        return self._saved

    async def claim(self) -> None:
        """Fence whoever owned the partition. The ends for `open` are asked for after this."""
        stage = self._stage
        self._claim = await asyncio.to_thread(stage.checkpoints.claim, stage.name, self._partition)

    async def open(self, ends: Mapping[str, Ends]) -> Mapping[str, int]:
        """Hand the claimed states over; return the next offset of each topic.

        Raises
        ------
        EngineFault
            When the cursor lies outside what a topic still holds.
        """
        stage, partition, claim = self._stage, self._partition, self._claim
        self._epoch = claim.epoch
        self._streams = {topic: end.stream for topic, end in ends.items()}
        self._next = {
            topic: self._start(topic, end, claim.cursor.get(topic)) for topic, end in ends.items()
        }
        self._changed = set()
        self._saved = dict(claim.cursor)
        self._saved_at_s = asyncio.get_running_loop().time()
        self._is_open = True
        await stage.handler.open(partition, claim.epoch, claim.states)
        log.info("owns", stage=stage.name, partition=partition, epoch=claim.epoch, next=self._next)
        return self._next

    async def take(self, records: Sequence[Record]) -> None:
        """Take in records (none: a tick), append what they made, and checkpoint when it is time.

        Whatever the handler raises comes through: `drop` the owner then, and open it again.

        Raises
        ------
        EngineFault
            On a hole in the offsets.
        Fenced
            When the checkpoint was refused; the partition is dropped already.
        Stopped
            When something failed and the engine is stopping; `drop` the owner then.
        """
        records = self._without_repeats(records)
        if records:
            crash_point("K1")
        effect = await self._stage.handler.process(self._partition, records, self._streams)
        if records:
            crash_point("K2")
        if effect.messages:
            await self._say(effect.messages)
        self._changed |= effect.changed
        for record in records:
            self._next[record.topic] = record.offset + 1
        age_s = asyncio.get_running_loop().time() - self._saved_at_s
        if effect.urgent or age_s >= self._stage.checkpoint_every_s:
            await self.checkpoint()

    async def checkpoint(self) -> None:
        """Store what changed since the last time; nothing when nothing did.

        Raises
        ------
        Fenced
            When another owner took over; the partition is dropped already.
        """
        stage, partition = self._stage, self._partition
        cursor = self._cursor()
        self._saved_at_s = asyncio.get_running_loop().time()
        if not self._changed and cursor == self._saved:
            return
        states = {key: stage.handler.snapshot(partition, key) for key in self._changed}

        async def save() -> bool:
            return await asyncio.to_thread(
                stage.checkpoints.save, stage.name, partition, self._epoch, cursor, states
            )

        crash_point("K3")
        if not await stage.retry.insist("checkpoint", save):
            await self.drop()
            log.error("fenced", stage=stage.name, partition=partition, epoch=self._epoch)
            raise Fenced(
                f"{stage.name} no longer owns partition {partition}: another worker took it over; "
                "two installations must not share one storage"
            )
        crash_point("K4")
        self._saved = cursor
        self._changed = set()

    async def close(self) -> None:
        """Checkpoint and give the partition up."""
        try:
            if self._is_open:
                await self.checkpoint()
        finally:
            await self.drop()

    async def drop(self) -> None:
        """Forget the partition without storing anything; what was not stored is read again."""
        if self._is_open:
            self._is_open = False
            await self._stage.handler.close(self._partition)

    async def _say(self, messages: Sequence[tuple[str, Message]]) -> None:
        for topic, run in groupby(messages, key=itemgetter(0)):
            said = [message for _, message in run]

            async def append(topic: str = topic, said: Sequence[Message] = said) -> None:
                appending = asyncio.ensure_future(self._stage.append(topic, said))
                await asyncio.sleep(0)  # it is on its way when the next line may end the process
                crash_point("K5")
                await appending

            await self._stage.retry.insist(f"append to {topic}", append)
        crash_point("K6")

    def _cursor(self) -> dict[str, Position]:
        # Topics that this version no longer reads keep their place, for a way back.
        read = {topic: Position(self._streams[topic], at) for topic, at in self._next.items()}
        return {**self._saved, **read}

    def _start(self, topic: str, end: Ends, at: Position | None) -> int:
        if at is None or at.stream != end.stream:
            return end.first
        place = f"{self._stage.name}: cursor {at.offset} of {topic}[{self._partition}]"
        if at.offset > end.next:
            raise EngineFault(
                f"{place} lies beyond its end {end.next}: the topic lost messages; restore it, or "
                f"set that offset to {end.next} in table cursors of the storage"
            )
        if at.offset < end.first and not _is_compacted(topic):
            raise EngineFault(
                f"{place} lies before its beginning {end.first}: messages were deleted unread; "
                "raise the topic's retention, and to go on without them set that offset to "
                f"{end.first} in table cursors of the storage"
            )
        return max(at.offset, end.first)

    def _without_repeats(self, records: Sequence[Record]) -> Sequence[Record]:
        expected = dict(self._next)
        for record in records:
            at = expected[record.topic]
            if record.offset > at and not _is_compacted(record.topic):
                raise EngineFault(
                    f"{self._stage.name}: {record.topic}[{self._partition}] jumps from offset "
                    f"{at} to {record.offset}: messages are missing; restore the topic's log"
                )
            expected[record.topic] = max(at, record.offset + 1)
        if all(record.offset >= self._next[record.topic] for record in records):
            return records
        return [record for record in records if record.offset >= self._next[record.topic]]


def _is_compacted(topic: str) -> bool:
    return bool(TOPICS.get(topic, {}).get("cleanup") == "compact")
