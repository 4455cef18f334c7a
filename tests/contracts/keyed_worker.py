"""A worker process for the kill tests: all three verbs on one engine, `python -m … ADDRESS`.

`predictions` → bulk → `observations` (rows with names) → keyed → `breaches` → each → `receipts`.
It prints `took PARTITION EPOCH` when it takes in the first record of a partition it owns, `acts on
PARTITION OFFSET` for each breach, and ends cleanly on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Mapping, Sequence

from service.engine.base import (
    Batch,
    Effect,
    Ends,
    Engine,
    Message,
    Position,
    Record,
    Snapshot,
)
from service.telemetry import configure_logs
from tests.contracts.engines import open_engine


class Ingest:
    """Says one named row for each prediction; remembers nothing but its position."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    async def assign(
        self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
    ) -> Mapping[str, int]:
        return {
            topic: committed[topic].offset if topic in committed else end.first
            for topic, end in ends.items()
        }

    async def handle(self, partition: int, batches: Sequence[Batch]) -> Mapping[str, Position]:
        for batch in batches:
            said = []
            for offset, value in zip(batch.offsets, batch.values, strict=True):
                event = json.loads(value)
                row = {"row": [partition, offset], "number": event["number"]}
                said.append(Message(event["model"].encode(), json.dumps(row).encode()))
            await self._engine.append("observations", said)
        return {batch.topic: Position(batch.stream, batch.offsets[-1] + 1) for batch in batches}

    async def revoke(self, partition: int) -> None:
        pass


class Watch:
    """Sums each model's rows, once per name, says so at every tenth, urgently at every fiftieth."""

    def __init__(self) -> None:
        self._states: dict[int, dict[str, dict[str, int]]] = {}
        self._epochs: dict[int, int] = {}
        self._fresh: set[int] = set()

    async def open(self, partition: int, epoch: int, states: Mapping[str, bytes]) -> None:
        self._epochs[partition] = epoch
        self._fresh.add(partition)
        self._states[partition] = {key: json.loads(state) for key, state in states.items()}

    async def process(
        self, partition: int, records: Sequence[Record], streams: Mapping[str, str]
    ) -> Effect:
        if records and partition in self._fresh:
            self._fresh.discard(partition)
            print("took", partition, self._epochs[partition], flush=True)
        said: list[tuple[str, Message]] = []
        changed: set[str] = set()
        urgent = False
        for record in records:
            key, row = record.key.decode(), json.loads(record.value)
            state = self._states[partition].setdefault(key, {"sum": 0, "n": 0, "repeats": 0})
            source, offset = row["row"]
            changed.add(key)
            if offset <= state.get(f"p{source}", -1):
                state["repeats"] += 1
                continue
            state[f"p{source}"] = offset
            state["sum"] += row["number"]
            state["n"] += 1
            if state["n"] % 10 == 0:
                breach = {"id": f"{key}-{state['n']}", "sum": state["sum"]}
                said.append(("breaches", Message(record.key, json.dumps(breach).encode())))
                urgent = urgent or state["n"] % 50 == 0
        return Effect(said, changed, urgent)

    def snapshot(self, partition: int, key: str) -> Snapshot:
        text = json.dumps({"key": key, **self._states[partition][key]}).encode()
        return Snapshot(text, text)

    async def close(self, partition: int) -> None:
        self._states.pop(partition, None)


async def work(address: str) -> None:
    """Run until SIGTERM."""
    engine, _ = open_engine(address)

    async def act(record: Record) -> None:
        print("acts on", record.partition, record.offset, flush=True)
        await engine.append("receipts", [Message(record.key, record.value)])

    engine.bulk(["predictions"], Ingest(engine), "ingest")
    engine.keyed(["observations"], Watch(), "watch")
    engine.each("breaches", act, "act")
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await engine.start()
    serving = asyncio.create_task(engine.run())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    await engine.stop()
    await serving


if __name__ == "__main__":
    configure_logs(pretty=False)
    asyncio.run(work(sys.argv[1]))
