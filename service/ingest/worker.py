"""The shell of `ingest`: read, say, store, in this order.

One call of `handle` is one step: what it says is appended and acknowledged, then its changes and
positions are stored in one batch, then the positions are returned for the engine to commit. When
saying or storing fails, the step is kept and finished first at the next call; the messages that the
engine brings again are known by their offsets. A process that ends in between does the step again
from the stored state, and says the same rows under the same names.

Refused here: deciding anything. Joining, expiry and naming are pure and lie beside this file.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import structlog

from schemas.policies import Policy
from service.clock import Clock
from service.config import IngestSettings
from service.crash import crash_point
from service.engine.base import Batch, Ends, Engine, EngineFault, Message, Position
from service.engine.partitioner import crc32_partition, murmur2_partition
from service.ingest import rebuild, take
from service.ingest.measure import STAGE, measure_received, measure_step
from service.ingest.observe import Sampler, observations, tick
from service.ingest.place import Places
from service.ingest.receive import Received, class_of, receive
from service.ingest.refuse import Letter, RefusedShare, dead_letter, orphan_letter, page
from service.ingest.remember import Changes, Store, changes_of
from service.ingest.reopen import StateFault, Where, reopen
from service.ingest.state import OUTCOMES, PREDICTIONS, Partition, Taken, Window
from service.telemetry import Metrics

log = structlog.get_logger(__name__)

LONGEST_STEP_S = 5.0
"""Most that one tick moves time: a process that slept must not let predictions expire unread."""
BUSY_S = 2.0
"""A topic that brought events within so many seconds may hold more of the past."""

QUIET_TICKS = 30
"""After so many ticks without a message there is nothing left to catch up with: what is missing up
to the end of a topic are markers, not messages."""


@dataclass
class Held:
    """One partition that this process owns."""

    where: Where
    part: Partition
    store: Store
    sampler: Sampler
    last_s: float
    ticks: int = 0
    """Ticks in a row without a message."""
    unsaid: dict[str, list[Message]] = field(default_factory=dict)
    """By topic, what the last step says and has not said yet."""
    unstored: Changes | None = None
    positions: dict[str, Position] = field(default_factory=dict)
    uncommitted: bool = False
    """Whether the state was resumed from a step whose positions were never committed."""
    waiting: list[Batch] = field(default_factory=list)
    """Messages that wait for that commit."""
    broken: bool = False
    fed_s: dict[str, float] = field(default_factory=dict)
    """When each topic last brought an event that was accepted."""
    marks: deque[tuple[float, int]] = field(default_factory=deque)
    """(when, watermark), of the last moments."""

    def settled_ms(self, now_s: float) -> int:
        """The watermark as it was `BUSY_S` ago; 0 before this process knows one."""
        self.marks.append((now_s, self.part.watermark_ms))
        while len(self.marks) > 1 and self.marks[1][0] <= now_s - BUSY_S:
            self.marks.popleft()
        at_s, watermark_ms = self.marks[0]
        return watermark_ms if at_s <= now_s - BUSY_S else 0


class IngestWorker:
    """Predictions and outcomes in, observations out. Implements `service.engine.base.Bulk`."""

    def __init__(self, engine: Engine, clock: Clock, metrics: Metrics, settings: IngestSettings,
                 policies: Sequence[Policy], state_dir: Path) -> None:  # fmt: skip
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._settings = settings
        self._policies = list(policies)
        self._root = state_dir / "ingest"
        self._held: dict[int, Held] = {}
        self._share = RefusedShare(settings.refused_share, settings.refused_minimum)
        self._places = Places({"murmur2": murmur2_partition, "CRC32": crc32_partition})

    def register(self) -> None:
        """Ask the engine for predictions and outcomes."""
        self._engine.bulk([PREDICTIONS, OUTCOMES], self, group="ingest")

    async def assign(self, partition: int, committed: Mapping[str, Position],
                     ends: Mapping[str, Ends]) -> Mapping[str, int]:  # fmt: skip
        """Open the partition's state; return the next offset to read of each topic."""
        where = Where(
            partition,
            {topic: ends[topic].stream for topic in (PREDICTIONS, OUTCOMES)},
            {topic: end.first for topic, end in ends.items()},
            {topic: end.next for topic, end in ends.items()},
        )
        present = {t: at for t, at in committed.items() if at.stream == where.streams.get(t)}
        held = self._held[partition] = await self._open(where, present)
        part = held.part
        wanted = part.taken if part.fold is None else part.fold.settled
        for topic, first in where.first.items():
            if wanted[topic] < first:
                await self._page_gap(partition, topic, wanted[topic], first)
            part.taken[topic] = max(part.taken[topic], first)
        return dict(part.taken)

    async def handle(self, partition: int, batches: Sequence[Batch]) -> Mapping[str, Position]:
        """Take in one window; without batches, a tick."""
        held = self._held[partition]
        if held.uncommitted:
            held.uncommitted, held.waiting = False, list(batches)
            return dict(held.positions)
        await self._finish(held)
        if held.broken:
            held = await self._open_again(held)
        batches = [*held.waiting, *batches]
        fresh = [piece for batch in batches if (piece := _unread(held.part, batch)) is not None]
        if fresh or not batches:
            await self._check_places(partition, fresh)
            try:
                self._step(held, fresh)
                held.waiting = []
            except BaseException:
                held.broken = True
                raise
            await self._finish(held)
        return dict(held.positions)

    async def revoke(self, partition: int) -> None:
        """Close the partition's state."""
        held = self._held.pop(partition, None)
        if held is not None:
            held.store.close()

    # -- opening ---------------------------------------------------------------------------------

    async def _open(self, where: Where, committed: Mapping[str, Position]) -> Held:
        known = {t: rebuild.Committed(at.offset, at.note) for t, at in committed.items()}
        try:
            part, store = await asyncio.to_thread(reopen, self._root, where, known, self._policies)
        except StateFault as fault:
            raise EngineFault(str(fault)) from fault
        log.info("partition_opened", partition=where.partition, rows=part.pending.count,
                 rebuilding=part.fold is not None)  # fmt: skip
        sampler = Sampler(self._settings.feature_rows_per_s)
        held = Held(where, part, store, sampler, self._clock.monotonic_s())
        held.positions = dict(committed)
        if part.fold is None and part.seq:
            held.positions = _positions(part)
            held.uncommitted = not rebuild.is_committed(part, known)
        return held

    async def _open_again(self, held: Held) -> Held:
        """Drop a state that a fault of ours left half changed, and read the stored one."""
        held.store.close()
        where = held.where._replace(next=dict(held.part.until))
        again = self._held[where.partition] = await self._open(where, held.positions)
        if again.part.fold is not None:
            raise EngineFault(
                f"partition {where.partition} failed while its state was built again; restart"
            )
        again.waiting = held.waiting
        return again

    async def _page_gap(self, partition: int, topic: str, wanted: int, first: int) -> None:
        text = (
            f"{first - wanted} messages of {topic}, partition {partition}, were deleted before "
            "they were read; raise the retention of the topic"
        )
        log.error("messages_deleted_unread", topic=topic, partition=partition, wanted=wanted,
                  first=first)  # fmt: skip
        now_ms = self._clock.now_ms()
        await self._engine.append("progress", [Message(b"*", page(topic, "gap", text, now_ms))])

    # -- one step --------------------------------------------------------------------------------

    def _step(self, held: Held, batches: Sequence[Batch]) -> None:
        part, now_s = held.part, self._clock.monotonic_s()
        letters: list[Message] = []
        pages: list[Message] = []
        taken: dict[str, list[take.Batch]] = {}
        for batch in batches:
            received = receive(batch.topic, batch.values, batch.times_ms)
            measure_received(self._metrics, len(batch.values), received.unknown_fields)
            letters += [self._letter(batch, at, reason) for at, reason in received.refused]
            pages += self._pages(batch, received, now_s)
            accepted = _accepted(batch, received)
            if len(accepted.times_ms):
                held.fed_s[batch.topic] = now_s
            taken.setdefault(batch.topic, []).append(take.Batch(accepted, batch.offsets[-1] + 1))
        part.busy = frozenset(t for t, at_s in held.fed_s.items() if now_s - at_s < BUSY_S)
        part.settled_ms = held.settled_ms(now_s)
        window = take.step(part, taken, self._passed_ms(held, now_s, bool(batches)))
        letters += self._late_letters(part, window, batches)
        said = [Message(key, value) for key, value in observations(part, window, held.sampler)]
        measure_step(self._metrics, part, window, len(said))
        held.unsaid = {"dead-letters": letters, "progress": pages, "observations": said}
        if not batches and part.watermark_ms and part.fold is None:
            held.unsaid["ticks"] = [Message(b"", tick(part))]
        held.unstored = changes_of(part, window)

    async def _finish(self, held: Held) -> None:
        """Say and store what is left of the last step."""
        if held.unstored is None:
            return
        for topic in list(held.unsaid):
            await self._say(topic, held.unsaid[topic])
            del held.unsaid[topic]
        crash_point("I1")
        held.store.write(held.unstored)
        held.unstored, part = None, held.part
        if part.fold is None:
            held.positions = _positions(part)
        crash_point("I2")

    async def _say(self, topic: str, messages: Sequence[Message]) -> None:
        if topic == "ticks":
            topic, count = "observations", await self._engine.partitions("observations")
            messages = [Message(m.key, m.value, at) for at in range(count) for m in messages]
        if messages:
            await self._engine.append(topic, messages)

    def _passed_ms(self, held: Held, now_s: float, has_events: bool) -> int:
        """Time since the last event or tick, which moves the watermark when nothing came."""
        passed_s, held.last_s = now_s - held.last_s, now_s
        held.ticks = 0 if has_events else held.ticks + 1
        if held.ticks == QUIET_TICKS:
            held.part.until = dict(held.part.taken)
            if held.part.fold is not None:
                held.part.fold.settled = dict(held.part.taken)
        return 0 if has_events else round(1000 * min(max(passed_s, 0.0), LONGEST_STEP_S))

    # -- refusing --------------------------------------------------------------------------------

    def _letter(self, batch: Batch, at: int, reason: str) -> Message:
        self._metrics.rejected.labels(stage=STAGE, reason=class_of(reason)).inc()
        letter = Letter(batch.topic, batch.partition, batch.offsets[at], reason, batch.keys[at],
                        batch.values[at])  # fmt: skip
        return Message(batch.topic.encode(), dead_letter(letter, self._clock.now_ms()))

    def _late_letters(self, part: Partition, window: Window, batches: Sequence[Batch]
                      ) -> list[Message]:  # fmt: skip
        """Dead letters for what was refused or given up only while joining."""
        letters = []
        for topic, offset, reason in window.refused:
            batch = next(b for b in batches if b.topic == topic and offset <= b.offsets[-1])
            letters.append(self._letter(batch, batch.offsets.index(offset), reason))
        for key, parked in window.orphans:
            self._metrics.rejected.labels(stage=STAGE, reason="orphan").inc()
            value = orphan_letter(part.number, key, parked, self._clock.now_ms())
            letters.append(Message(OUTCOMES.encode(), value))
        return letters

    def _pages(self, batch: Batch, received: Received, now_s: float) -> list[Message]:
        refused = len(received.refused)
        share = self._share.too_many(batch.topic, len(batch.values), refused, now_s)
        if share is None:
            return []
        text = (
            f"{share:.1%} of the messages of {batch.topic} in the last minute were refused; the "
            f"last because: {received.refused[-1].reason}"
        )
        log.error("refused_above_rate", topic=batch.topic, partition=batch.partition, share=share)
        now_ms = self._clock.now_ms()
        return [Message(b"*", page(batch.topic, "refused_above_rate", text, now_ms))]

    async def _check_places(self, partition: int, batches: Sequence[Batch]) -> None:
        for batch in batches:
            if not self._places.wants(batch.topic, partition):
                continue
            received = receive(batch.topic, batch.values, batch.times_ms)
            places = range(len(batch.values)) if received.places is None else received.places
            keys = [batch.keys[at] for at in places]
            ids = [event.prediction_id.encode() for event in received.events]
            count = await self._engine.partitions(batch.topic)
            fault = self._places.fault(batch.topic, (partition, count), keys, ids)
            if fault is not None:
                raise EngineFault(fault)


def _positions(part: Partition) -> dict[str, Position]:
    note = rebuild.note_of(part)
    return {topic: Position(part.streams[topic], at, note) for topic, at in part.taken.items()}


def _unread(part: Partition, batch: Batch) -> Batch | None:
    """The part of a batch that was not taken in yet; None when nothing is left."""
    taken = part.taken[batch.topic]
    if batch.offsets[0] >= taken:
        return batch
    if batch.offsets[-1] < taken:
        return None
    at = next(at for at, offset in enumerate(batch.offsets) if offset >= taken)
    return batch._replace(
        offsets=batch.offsets[at:], times_ms=batch.times_ms[at:], keys=batch.keys[at:],
        values=batch.values[at:],
    )  # fmt: skip


def _accepted(batch: Batch, received: Received) -> Taken:
    offsets = np.array(batch.offsets, np.int64)
    if received.places is None:
        return Taken(received.events, offsets, received.times_ms, list(batch.values))
    values = [batch.values[at] for at in received.places.tolist()]
    return Taken(received.events, offsets[received.places], received.times_ms, values)
