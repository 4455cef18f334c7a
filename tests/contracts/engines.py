"""Benches: one real engine each, opened as often as a test likes, for the contract suite.

A bench stands for one log or broker. Every `engine()` is a new instance over it, as a second
process would be. To put another engine under the whole suite, kill -9 included: write a class with
the fields and verbs of `EngineBench`, a function that opens an engine from its address in a child
process, and enter both in `BENCHES` and `OPENERS`.
"""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Protocol

import pytest
from aiokafka.admin import AIOKafkaAdminClient

from service.clock import WallClock
from service.engine.base import Checkpoints, Engine
from service.engine.kafka import KafkaEngine
from service.engine.local import LocalEngine
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.telemetry import Metrics
from tests.real import wait_until_async


class EngineBench(Protocol):
    """One log or broker with all topics of `TOPICS` made, each with `partitions` partitions."""

    name: str
    checkpoints: CheckpointStore
    partitions: int
    shares: bool
    """Whether two engines in one group share its partitions; else the second one is refused."""
    settle_s: float
    """Longest wait for whatever needs no fail-over: joining a group, reading, stopping."""
    takeover_s: float
    """Promised: from an owner's kill -9 until another one takes in its first record; the median of
    kills of a group at rest."""
    takeover_max_s: float
    """The longest single one, on a busy machine too: a member that is lost while it joins holds its
    group up for a second session, and one that is frozen keeps its database session besides."""

    async def engine(self) -> Engine:
        """A new engine, not started; the test stops it."""
        ...

    async def make_topic(self, name: str) -> None:
        """Make a topic (named without prefix), as an operator would."""
        ...

    async def delete_topic(self, name: str) -> None:
        """Delete a topic with all it holds; it is gone on return."""
        ...

    async def at_rest(self, workers: int) -> bool:
        """Whether nothing is being handed over, and exactly so many workers take part."""
        ...

    def address(self) -> dict[str, Any]:
        """What `open_engine` needs in another process: plain JSON; `kind` is the bench's name."""
        ...


class LocalBench:
    """The embedded log in a folder."""

    name = "local"
    partitions = 2
    shares = False
    settle_s = 15.0
    takeover_s = 5.0
    takeover_max_s = 10.0

    def __init__(self, path: Path) -> None:
        self._path = path
        self.checkpoints = open_checkpoints(self.address())

    async def engine(self) -> Engine:
        return open_local(self.address(), self.checkpoints)

    async def make_topic(self, name: str) -> None:
        engine = open_local(self.address(), self.checkpoints)
        await engine.start()  # it makes every topic that is missing
        await engine.stop()

    async def delete_topic(self, name: str) -> None:
        engine = open_local(self.address(), self.checkpoints)
        await engine.start()
        await engine.delete_topic(name)
        await engine.stop()

    async def at_rest(self, workers: int) -> bool:
        return True

    def address(self) -> dict[str, Any]:
        storage = f"sqlite:///{self._path / 'storage.db'}"
        return {
            "kind": "local",
            "path": str(self._path / "log"),
            "partitions": self.partitions,
            "storage": storage,
        }


def open_checkpoints(address: dict[str, Any]) -> CheckpointStore:
    """Open the checkpoints of a bench from its address."""
    return CheckpointStore(open_database(address["storage"]))


def open_local(address: dict[str, Any], checkpoints: Checkpoints) -> LocalEngine:
    """Open the local engine from a bench's address."""
    return LocalEngine(
        Path(address["path"]), WallClock(), checkpoints, Metrics(), address["partitions"]
    )


class KafkaBench:
    """Topics and groups of their own, by prefix, on a real broker."""

    name = "kafka"
    partitions = 4
    shares = True
    settle_s = 30.0
    takeover_s = 8.0
    takeover_max_s = 16.0

    def __init__(self, bootstrap: str, path: Path, storage: str | None = None) -> None:
        self._bootstrap = bootstrap
        self._prefix = f"t{uuid.uuid4().hex[:12]}."
        self._storage = storage or f"sqlite:///{path / 'storage.db'}"
        self.checkpoints = open_checkpoints(self.address())

    async def engine(self) -> Engine:
        return open_kafka(self.address(), self.checkpoints)

    async def make_topic(self, name: str) -> None:
        engine = open_kafka(self.address(), self.checkpoints)
        await engine.start()
        await engine.topics(create=True)
        await engine.stop()

    async def delete_topic(self, name: str) -> None:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        await admin.delete_topics([self._prefix + name])
        await admin.close()
        engine = open_kafka(self.address(), self.checkpoints)
        await engine.start()

        async def gone() -> bool:
            return await engine.partitions(name) == 0

        await wait_until_async(gone, 10, what=f"topic {name} is gone")
        await engine.stop()

    async def at_rest(self, workers: int) -> bool:
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        names = [name for name, _ in await admin.list_consumer_groups() if self._prefix in name]
        # One at a time: aiokafka reads an answer about several as if it were of an older version.
        groups = [
            reply.groups[0]
            for name in names
            for reply in await admin.describe_consumer_groups([name])
        ]
        await admin.close()
        return bool(groups) and all(
            state == "Stable" and len(members) == workers
            for _, _, state, _, _, members, *_ in groups
        )

    async def delete_all(self) -> None:
        """Take the load off a broker that the whole session shares."""
        admin = AIOKafkaAdminClient(bootstrap_servers=self._bootstrap)
        await admin.start()
        names = [name for name in await admin.list_topics() if name.startswith(self._prefix)]
        await admin.delete_topics(names)
        await admin.close()

    def address(self) -> dict[str, Any]:
        return {
            "kind": "kafka",
            "bootstrap": self._bootstrap,
            "prefix": self._prefix,
            "partitions": self.partitions,
            "storage": self._storage,
        }


def open_kafka(address: dict[str, Any], checkpoints: Checkpoints) -> KafkaEngine:
    """Open the Kafka engine from a bench's address."""
    return KafkaEngine(
        address["bootstrap"],
        WallClock(),
        checkpoints,
        Metrics(),
        prefix=address["prefix"],
        partitions=address["partitions"],
    )


OPENERS: dict[str, Callable[[dict[str, Any], Checkpoints], Engine]] = {
    "local": open_local,
    "kafka": open_kafka,
}
"""How a child process opens an engine, by the `kind` of its bench's address."""


def open_engine(text: str) -> tuple[Engine, CheckpointStore]:
    """Open engine and checkpoints from a bench's address as JSON, in another process."""
    address = json.loads(text)
    checkpoints = open_checkpoints(address)
    return OPENERS[address["kind"]](address, checkpoints), checkpoints


@contextlib.asynccontextmanager
async def local_bench(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[EngineBench]:
    """Make a log in `path` with all topics."""
    bench = LocalBench(path)
    await bench.make_topic("predictions")
    yield bench


@contextlib.asynccontextmanager
async def kafka_bench(request: pytest.FixtureRequest, path: Path) -> AsyncIterator[EngineBench]:
    """Make all topics on the session's broker, and delete them afterwards."""
    bench = KafkaBench(request.getfixturevalue("kafka"), path)
    await bench.make_topic("predictions")
    yield bench
    await bench.delete_all()


Opener = Callable[[pytest.FixtureRequest, Path], AbstractAsyncContextManager[EngineBench]]
BENCHES: dict[str, Opener] = {"local": local_bench, "kafka": kafka_bench}
"""Every bench by its name, which is also its pytest marker if there is one (`kafka`)."""
