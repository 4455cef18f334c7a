"""A partition of the real join and the real judge, delivered to as a bad day would.

The shell of `ingest` takes windows from two logs in memory and says observations onto a third; the
book of `watch` reads that. A power cut hits `ingest` in the middle of a window, when it has said
what it had to say and stored nothing: it opens what its disk and its last commit know (or, on
another machine, builds that again from the log) and says the same rows again. The book opens what
it last stored and goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import detectors
from schemas.events import Rollout
from schemas.observations import unpack
from schemas.plugins import Registry
from schemas.policies import Policy
from service.clock import SetClock
from service.config import IngestSettings
from service.engine.base import Batch, Ends, Engine, Message, Position
from service.ingest.worker import IngestWorker
from service.telemetry import Metrics
from service.watch.step import Book

TOPICS = ("predictions", "outcomes")
STREAMS = {topic: f"stream-{topic}" for topic in TOPICS}


class Verdict(NamedTuple):
    """What a guard has come to."""

    log_e: float | None
    rows: int
    fired_ms: int | None


class PowerCut(Exception):
    """The machine of `ingest` stops."""


class Log:
    """The engine that `ingest` appends to: a list."""

    def __init__(self) -> None:
        self.said: list[bytes] = []
        self.cut = False
        """Whether the power goes once the next observations are on the log."""

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Keep observations; nobody reads the others here."""
        if topic == "observations":
            self.said += [message.value for message in messages]
            if self.cut:
                self.cut = False
                raise PowerCut

    async def partitions(self, _topic: str) -> int:
        """One of each."""
        return 1


class Delivery:
    """Both roles on one partition."""

    def __init__(self, folder: Path, policy: Policy, rollout: Rollout, now_ms: int) -> None:
        self._folder, self._policy, self._rollout = folder, policy, rollout
        self._clock = SetClock(now_ms)
        self._logs: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
        self._log = Log()
        self._next = dict.fromkeys(TOPICS, 0)
        self._committed: dict[str, Position] = {}
        self._machine = 0
        self._worker = self._new_worker()
        self._book = self._new_book()
        self._book.roll_out(rollout, now_ms)
        self._read = 0
        self._stored: tuple[int, dict[str, bytes]] = (0, {})
        self._store()
        self.windows = 0
        self.cuts = 0
        """Windows in which the power was cut."""

    def _new_worker(self) -> IngestWorker:
        folder = self._folder / str(self._machine)
        folder.mkdir(parents=True, exist_ok=True)
        return IngestWorker(cast(Engine, self._log), self._clock, Metrics(), IngestSettings(),
                            [self._policy], folder)  # fmt: skip

    def _new_book(self) -> Book:
        return Book([self._policy], Registry.of(detectors), "evidence")

    def write(self, topic: str, values: Sequence[bytes]) -> None:
        """Put messages on a topic."""
        self._logs[topic] += values

    async def open(self) -> None:
        """Assign the partition, and read what is there topic by topic, as the engine does."""
        ends = {t: Ends(STREAMS[t], 0, self._next[t]) for t in TOPICS}
        starts = await self._worker.assign(0, dict(self._committed), ends)
        for topic in TOPICS:
            end, self._next[topic] = self._next[topic], starts[topic]
            while self._next[topic] < end:
                await self._window({topic: min(500, end - self._next[topic])})

    async def take(self, counts: dict[str, int], *, store: bool = True) -> None:
        """One window of both topics; then the book reads what was said, and may store itself."""
        await self._window(counts)
        self._observe()
        if store:
            self._store()

    def _observe(self) -> None:
        for value in self._log.said[self._read :]:
            observed = unpack(value)
            self._book.observe(observed, observed.watermark_ms)
        self._read = len(self._log.said)

    def _store(self) -> None:
        keys = ["", *self._book.models]
        self._stored = (self._read, {key: self._book.save(key) for key in keys})

    async def _window(self, counts: dict[str, int]) -> None:
        batches = []
        for topic, count in counts.items():
            first = self._next[topic]
            values = self._logs[topic][first : first + count]
            if values:
                keys = [json.loads(value)["prediction_id"].encode() for value in values]
                batches.append(Batch(topic, 0, STREAMS[topic], range(first, first + len(values)),
                                     [self._clock.now_ms()] * len(values), keys,
                                     values))  # fmt: skip
                self._next[topic] = first + len(values)
        self._committed.update(await self._worker.handle(0, batches))
        self.windows += 1

    async def crash(self, counts: dict[str, int], *, other_machine: bool) -> None:
        """Lose the power in a window, and with `other_machine` also the disk; then go on."""
        self._log.cut = True
        with contextlib.suppress(PowerCut):
            await self._window(counts)
            self._log.cut = False
        self._observe()
        self.cuts += 1
        await self._worker.revoke(0)
        self._machine += other_machine
        self._worker = self._new_worker()
        read, states = self._stored
        self._book = self._new_book()
        self._book.restore(states)
        self._read = read
        await self.open()

    async def settle(self, seconds: int) -> None:
        """Let time pass until everything due was said."""
        for _ in range(seconds // 5):
            self._clock.move(5.0)
            await self.take({})

    async def close(self) -> None:
        """Close the state on disk."""
        await self._worker.revoke(0)

    def verdicts(self) -> dict[str, Verdict]:
        """What every guard of every version says."""
        found = {}
        for guards in self._book.guards.values():
            for version, own in guards.items():
                for label, guard in own.items():
                    reading = guard.detector.reading()
                    found[f"{version} {label}"] = Verdict(
                        reading.statistic, reading.n, reading.fired_ms
                    )
        return found

    def fingerprint(self) -> str:
        """Of the bits of all verdicts."""
        told: list[Any] = sorted(
            (name, v.log_e.hex() if v.log_e is not None else None, v.rows, v.fired_ms)
            for name, v in self.verdicts().items()
        )
        return hashlib.sha256(repr(told).encode()).hexdigest()[:12]


def run(journey: Any) -> Any:
    """Run one journey to its end."""
    return asyncio.run(journey)
