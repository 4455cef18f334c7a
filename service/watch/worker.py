"""The shell of `watch`: owns partitions, asks the clock and the holds, appends what was said.

Order matters in what it hands to the engine: breaches before commands, each topic acknowledged
before the next, all of it before the checkpoint that remembers it. The kill switch and the holds
are read immediately before a command is handed over; when they cannot be read they count as set.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec
import structlog

from schemas.commands import Command, Hold, Order
from schemas.events import Rollout
from schemas.facts import Breach, Progress, Receipt
from schemas.observations import unpack
from schemas.plugins import Registry
from schemas.policies import Policy
from schemas.verdicts import Verdict
from schemas.wire import InvalidEvent, decode_one
from service.clock import Clock
from service.engine.base import Effect, Engine, Headers, Message, Record, Snapshot
from service.telemetry import Metrics
from service.watch.order import Said, Wall
from service.watch.step import Book, Wanting
from service.watch.stops import Memory, Seen, Stops, look
from service.watch.view import view_of

log = structlog.get_logger()

TOPICS = ("observations", "rollouts", "receipts", "orders")
STAGE = "watch"
SAID_ON = {Verdict: "verdicts", Breach: "breaches", Progress: "progress", Command: "commands"}
ORDER_OF_TOPICS = ("breaches", "progress", "commands", "verdicts")
"""A breach is durable before its command; verdicts are for readers and come last."""

_receipts = msgspec.json.Decoder(Receipt)
_orders = msgspec.json.Decoder(Order)
_encode = msgspec.json.Encoder().encode
UNREADABLE = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError, InvalidEvent)


class Signer(Protocol):
    """Signs commands."""

    def sign(self, data: bytes) -> Headers:
        """Headers that prove who wrote exactly these bytes."""
        ...


class WatchWorker:
    """Owner of models: `keyed` over observations, rollouts, receipts and orders."""

    def __init__(
        self, engine: Engine, clock: Clock, metrics: Metrics, policies: list[Policy],
        registry: Registry, stops: Stops, signer: Signer, digest: str,
    ) -> None:  # fmt: skip
        self._engine, self._clock, self._metrics = engine, clock, metrics
        self._policies, self._registry, self._digest = policies, registry, digest
        self._stops, self._signer = stops, signer
        self._memory = Memory()
        self._books: dict[int, Book] = {}
        self._epochs: dict[int, int] = {}
        self._lag_s: dict[int, float] = {}

    def register(self) -> None:
        """Take part in the engine."""
        self._engine.keyed(TOPICS, self, STAGE)

    async def open(self, partition: int, epoch: int, states: Mapping[str, bytes]) -> None:
        """Take over a partition."""
        book = Book(self._policies, self._registry, self._digest, self._stops.freezes)
        await asyncio.to_thread(book.restore, states)
        self._books[partition], self._epochs[partition] = book, epoch
        self._lag_s[partition] = 0.0

    async def close(self, partition: int) -> None:
        """Forget a partition."""
        self._books.pop(partition, None)
        self._epochs.pop(partition, None)

    async def process(
        self, partition: int, records: Sequence[Record], streams: Mapping[str, str]
    ) -> Effect:
        """Take in records, then send what is wanted and permitted."""
        book = self._books[partition]
        book.changed = set()
        said: list[Said] = []
        started_s = self._clock.monotonic_s()
        # Plans first: a rollout logged with its first predictions must not come after them.
        for record in sorted(records, key=lambda r: r.topic != "rollouts"):
            said += self._take(book, partition, record)
        if records:
            self._metrics.received.labels(STAGE).inc(len(records))
            lag_s = (self._clock.now_ms() - records[-1].time_ms) / 1000
            self._lag_s[partition] = max(0.0, lag_s)
            self._metrics.lag_s.labels(STAGE).set(self._lag_s[partition])
        now_ms = self._clock.now_ms()
        doubt = await asyncio.to_thread(self._memory.note, self._stops, book, said, now_ms)
        held_all: list[Hold] = []
        for wanting in list(book.wanting()):
            said += await self._send(book, wanting, self._wall(partition), doubt, held_all)
        messages = self._messages(said)
        messages += [("holds", Message(h.model.encode(), _encode(h))) for h in held_all]
        if said:
            self._metrics.sent.labels(STAGE).inc(len(said))
            self._metrics.decision_s.observe(self._clock.monotonic_s() - started_s)
        urgent = any(not isinstance(fact, Verdict) for fact in said)
        return Effect(messages, frozenset(book.changed), urgent)

    def snapshot(self, partition: int, key: str) -> Snapshot:
        """Give one state and what readers may see of it."""
        book = self._books[partition]
        state = book.save(key)
        if key == "":
            return Snapshot(state)
        view = view_of(book.models[key], self._lag_s[partition], self._clock.now_ms())
        return Snapshot(state, _encode(view))

    def _wall(self, partition: int) -> Wall:
        return Wall(self._clock.now_ms(), self._epochs[partition], self._digest)

    def _take(self, book: Book, partition: int, record: Record) -> Sequence[Said]:
        if not record.value:
            return ()
        try:
            if record.topic == "observations":
                return book.observe(unpack(record.value), record.time_ms)
            if record.topic == "rollouts":
                event: Rollout = decode_one("rollout", record.value)
                return book.roll_out(event, record.time_ms)
            if record.topic == "receipts":
                return book.receive(_receipts.decode(record.value))
            return book.obey(_orders.decode(record.value), self._wall(partition))
        except UNREADABLE as fault:
            self._metrics.rejected.labels(STAGE, record.topic).inc()
            log.error("message_refused", topic=record.topic, partition=record.partition,
                      offset=record.offset, reason=str(fault))  # fmt: skip
            return ()

    async def _send(
        self, book: Book, wanting: Wanting, wall: Wall, doubt: str | None, held_all: list[Hold]
    ) -> list[Said]:  # fmt: skip
        """Send, propose or withhold one command, with holds and fleet read right before."""
        # They cost queries, and matter only to what nothing else forbids.
        if book.refused(wanting, wall) is not None:
            return book.act(wanting, wall, None)
        seen = Seen(held=doubt)
        if doubt is None:
            within_ms = self._stops.limits.together_within.ms
            now_ms, turning = self._clock.now_ms(), book.turning(within_ms)
            seen = await asyncio.to_thread(look, self._stops, wanting, now_ms, turning)
        if seen.hold is not None:
            held_all.append(seen.hold)
        said = book.act(wanting, wall, seen.held, seen.fleet)
        sent = any(isinstance(fact, Command) and fact.action == "rollback" for fact in said)
        if seen.reserved and not sent:
            release = self._stops.fleet.release
            await asyncio.to_thread(release, wanting.model.name, wanting.case.incident_id)
        return said

    def _messages(self, said: Sequence[Said]) -> list[tuple[str, Message]]:
        """Encode what was said, in the order in which it must be durable."""
        by_topic: dict[str, list[tuple[str, Message]]] = {topic: [] for topic in ORDER_OF_TOPICS}
        for fact in said:
            topic = SAID_ON[type(fact)]
            data = _encode(fact)
            headers = self._signer.sign(data) if isinstance(fact, Command) else ()
            by_topic[topic].append((topic, Message(fact.model.encode(), data, headers=headers)))
            self._count(fact)
        return [pair for topic in ORDER_OF_TOPICS for pair in by_topic[topic]]

    def _count(self, fact: Said) -> None:
        if isinstance(fact, Verdict):
            self._metrics.verdicts.labels(fact.verdict).inc()
        elif isinstance(fact, Breach):
            self._metrics.breaches.labels(fact.signal).inc()
            log.warning("breach", model=fact.model, version=fact.version, guard=fact.guard,
                        incident=fact.incident_id, text=fact.text)  # fmt: skip
        elif isinstance(fact, Command):
            self._metrics.commands.labels(fact.action).inc()
            log.warning("command", model=fact.model, action=fact.action, hop=fact.hop,
                        from_version=fact.from_version, to_version=fact.to_version,
                        incident=fact.incident_id)  # fmt: skip
        else:
            if fact.kind == "withheld":
                self._metrics.refusals.labels(str(fact.evidence.get("rule", fact.reason))).inc()
            if fact.kind in ("verified", "unverified"):
                self._metrics.verified.labels(fact.kind).inc()
            log.info("progress", model=fact.model, kind=fact.kind, incident=fact.incident_id,
                     text=fact.text)  # fmt: skip
