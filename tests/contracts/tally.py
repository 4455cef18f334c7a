"""Handlers that count, for the contract suite: what they say can be compared with what was sent."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence

from service.engine.base import Batch, Effect, Ends, Engine, Message, Position, Record, Snapshot


def rows(key: str, start: int, stop: int) -> list[Message]:
    """Numbered rows of one key."""
    return [Message(key.encode(), str(number).encode()) for number in range(start, stop)]


@contextlib.asynccontextmanager
async def running(engine: Engine) -> AsyncIterator[asyncio.Task[None]]:
    """Run an engine while the block lasts, then stop it; what `run` raised comes out at the end."""
    await engine.start()
    serving = asyncio.create_task(engine.run())
    try:
        yield serving
    finally:
        await engine.stop()
        await serving


class Tally:
    """A `Keyed` handler: sums each key's numbers, once each, and says the sum at every tenth.

    A state carries the positions it has absorbed, so a record that is read again changes nothing.
    """

    def __init__(self) -> None:
        self.opened: list[tuple[int, int]] = []
        self.closed: list[int] = []
        self.taken: list[Record] = []
        self.repeats = 0
        self.ticks = 0
        self.failures = 0
        """How many calls with records are still to raise, after half of the states changed."""
        self.padding = 0
        """Bytes added to every state."""
        self._states: dict[int, dict[str, dict[str, int]]] = {}
        self._epochs: dict[int, int] = {}

    def owns(self, partitions: int) -> bool:
        return len(self._states) == partitions

    async def open(self, partition: int, epoch: int, states: Mapping[str, bytes]) -> None:
        self.opened.append((partition, epoch))
        self._epochs[partition] = epoch
        self._states[partition] = {key: json.loads(state) for key, state in states.items()}

    async def process(
        self, partition: int, records: Sequence[Record], streams: Mapping[str, str]
    ) -> Effect:
        said: list[tuple[str, Message]] = []
        changed: set[str] = set()
        urgent = False
        self.ticks += not records
        for at, record in enumerate(records):
            if self.failures and at == len(records) // 2:
                self.failures -= 1
                raise ValueError("this handler was told to fail")
            key, number = record.key.decode(), int(record.value)
            state = self._states[partition].setdefault(key, {"sum": 0, "n": 0})
            # The stream makes it another position when a topic was deleted and made again.
            place = f"{record.topic}/{streams[record.topic]}/{record.partition}"
            if record.offset <= state.get(place, -1):
                self.repeats += 1
                continue
            state[place] = record.offset
            state["sum"] += number
            state["n"] += 1
            changed.add(key)
            self.taken.append(record)
            if state["n"] % 10 == 0:
                text = {"id": f"{key}-{state['n']}", "sum": state["sum"]}
                said.append(("breaches", Message(record.key, json.dumps(text).encode())))
                said.append(("commands", Message(record.key, json.dumps(text).encode())))
                urgent = state["n"] % 50 == 0 or urgent
        return Effect(said, changed, urgent)

    def snapshot(self, partition: int, key: str) -> Snapshot:
        state = self._states[partition][key]
        view = {"key": key, "sum": state["sum"], "n": state["n"]}
        text = json.dumps(state) + " " * self.padding
        return Snapshot(text.encode(), json.dumps(view).encode())

    async def close(self, partition: int) -> None:
        self._states.pop(partition, None)
        self.closed.append(partition)


class Taker:
    """A `Bulk` handler that keeps all it is given, and resumes at what was committed."""

    def __init__(self) -> None:
        self.assigned: list[tuple[int, dict[str, Position]]] = []
        self.revoked: list[int] = []
        self.taken: list[tuple[str, int, int, bytes, bytes]] = []
        """(topic, partition, offset, key, value) of what `handle` returned for."""
        self.offered: list[Sequence[Batch]] = []
        """The batches of every call but ticks, also of those that raised."""
        self.ticks = 0
        self.failures = 0
        self.note = ""
        self.busy: set[int] = set()
        self.gate = asyncio.Event()
        """Cleared: `handle` does not return."""
        self.gate.set()

    def values(self, topic: str) -> list[bytes]:
        return [value for name, _, _, _, value in self.taken if name == topic]

    async def assign(
        self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
    ) -> Mapping[str, int]:
        self.assigned.append((partition, dict(committed)))
        return {
            topic: committed[topic].offset
            if topic in committed and committed[topic].stream == end.stream
            else end.first
            for topic, end in ends.items()
        }

    async def handle(self, partition: int, batches: Sequence[Batch]) -> Mapping[str, Position]:
        assert partition not in self.busy, "handle was called while it was at work"
        if not batches:
            self.ticks += 1
            return {}
        self.busy.add(partition)
        self.offered.append(batches)
        try:
            await self.gate.wait()
            if self.failures:
                self.failures -= 1
                raise ValueError("this handler was told to fail")
        finally:
            self.busy.discard(partition)
        for topic, number, _, offsets, _, keys, values in batches:
            for offset, key, value in zip(offsets, keys, values, strict=True):
                self.taken.append((topic, number, offset, key, value))
        return {
            batch.topic: Position(batch.stream, batch.offsets[-1] + 1, self.note)
            for batch in batches
        }

    async def revoke(self, partition: int) -> None:
        self.revoked.append(partition)
