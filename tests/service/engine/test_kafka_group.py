"""One consumer group on a real broker: faults of brokers, topics and batches."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from service.engine.base import Claim, EngineFault, Message, Position
from service.engine.kafka import KafkaEngine
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from tests.broker import Broker, JavaBroker
from tests.contracts.tally import Taker, Tally, running
from tests.real import wait_until_async
from tests.service.engine.kafka_bench import Bench, counted

LIMIT_S = 20.0


@contextlib.asynccontextmanager
async def bulk(bench: Bench, taker: Taker, *topics: str) -> AsyncIterator[KafkaEngine]:
    """Run one worker of the group `ingest`."""
    engine = bench.engine()
    engine.bulk(topics or ["predictions"], taker, "ingest")
    async with running(engine):
        yield engine


def numbers(count: int, start: int = 0) -> list[Message]:
    return [Message(b"m", b"%d" % n, partition=0) for n in range(start, start + count)]


async def taken(taker: Taker, *values: bytes) -> None:
    await wait_until_async(
        lambda: {value for *_, value in taker.taken} >= set(values), LIMIT_S, what="is taken in"
    )


async def test_topics_that_are_partitioned_unlike_are_refused(kafka: str) -> None:
    """If this breaks, half of the outcomes look for their prediction in another process."""
    bench = Bench(kafka)
    await bench.make_topics()
    engine = bench.engine()
    await engine.start()
    await bench.delete_topic("outcomes")
    await wait_until_async(lambda: _gone(engine, "outcomes"), LIMIT_S)
    await engine._cluster.create(["outcomes"], 3)
    engine.bulk(["predictions", "outcomes"], Taker(), "ingest")

    with pytest.raises(EngineFault, match=r"predictions has 2, .*outcomes has 3; their keys"):
        await engine.run()
    await engine.stop()


async def _gone(engine: KafkaEngine, topic: str) -> bool:
    return await engine.partitions(topic) == 0


async def test_missing_topics_are_refused_at_start(kafka: str) -> None:
    """If this breaks, a daemon with a misspelt topic waits in silence for events."""
    engine = Bench(kafka).engine()
    engine.bulk(["predictions"], Taker(), "ingest")

    with pytest.raises(EngineFault, match=r"lacks .*predictions"):
        await engine.run()
    await engine.stop()


async def test_three_workers_keep_topics_together(kafka: str) -> None:
    """If this breaks, a prediction and its outcome are read by two processes and never meet."""
    bench = Bench(kafka, partitions=4)
    await bench.make_topics()
    takers = [Taker() for _ in range(3)]
    async with contextlib.AsyncExitStack() as stack:
        engines = [
            await stack.enter_async_context(bulk(bench, taker, "predictions", "outcomes"))
            for taker in takers
        ]

        def shared() -> bool:
            owned = [engine.health()["detail"]["ingest"]["partitions"] for engine in engines]
            return [1, 1, 2] == sorted(map(len, owned)) and all(
                engine.health()["ready"] for engine in engines
            )

        await wait_until_async(shared, LIMIT_S, what="three workers share four partitions")
        for taker in takers:
            taker.taken.clear()
        keys = [b"p%d" % n for n in range(200)]
        for topic in ("predictions", "outcomes"):
            await engines[0].append(topic, [Message(key, key) for key in keys])
        await wait_until_async(lambda: sum(len(t.taken) for t in takers) >= 400, LIMIT_S)

    for taker in takers:
        seen = {topic: {v for t, _, _, _, v in taker.taken if t == topic}
                for topic in ("predictions", "outcomes")}  # fmt: skip
        assert seen["predictions"] == seen["outcomes"]


async def test_a_topic_made_again_while_it_is_read_is_read_from_its_start(kafka: str) -> None:
    """If this breaks, a rebuilt topic is read from the middle, under the old one's name."""
    bench = Bench(kafka)
    await bench.make_topics()
    taker = Taker()
    async with bulk(bench, taker) as engine:
        await engine.append("predictions", numbers(5))
        await taken(taker, b"4")
        await bench.delete_topic("predictions")
        await wait_until_async(lambda: _gone(engine, "predictions"), LIMIT_S)
        await engine.topics(create=True)
        other = bench.engine()
        await other.start()
        await other.append("predictions", numbers(9, start=100))
        await other.stop()
        await taken(taker, *(b"%d" % n for n in range(100, 109)))

    offsets = [offset for _, _, offset, _, value in taker.taken if int(value) >= 100]
    streams = {batch.stream for batches in taker.offered for batch in batches}
    assert list(range(9)) == sorted(set(offsets))
    assert 2 == len(streams)


async def test_messages_that_retention_took_are_passed_loudly(kafka: str) -> None:
    """If this breaks, a weekend without the daemon stops it for good, or hides what is lost."""
    bench = Bench(kafka)
    await bench.make_topics()
    first = Taker()
    async with bulk(bench, first) as engine:
        await engine.append("predictions", numbers(5))
        await taken(first, b"4")
    writer = bench.engine()
    await writer.start()
    await writer.append("predictions", numbers(10, start=5))
    await bench.delete_before("predictions", 0, 12)

    second = Taker()
    async with bulk(bench, second):
        await taken(second, b"14")
    await writer.stop()

    assert [b"12", b"13", b"14"] == second.values("predictions")
    assert 1 <= counted(bench.metrics[-1], "errors", stage="ingest")


async def test_retention_overtakes_a_reader(kafka: str) -> None:
    """If this breaks, a slow worker hangs at an offset that is gone."""
    bench = Bench(kafka)
    await bench.make_topics()
    taker = Taker()
    async with bulk(bench, taker) as engine:
        await engine.append("predictions", numbers(5))
        await taken(taker, b"4")
        taker.gate.clear()
        await engine.append("predictions", numbers(1, start=5))
        await wait_until_async(lambda: taker.busy, LIMIT_S)
        # Enough that the consumer cannot hold it all ahead of the handler.
        big = [Message(b"m", b"6" + b" " * 900_000, partition=0)] * 40
        await engine.append("predictions", big)
        await engine.append("predictions", [Message(b"m", b"7", partition=0)])
        await bench.delete_before("predictions", 0, 46)
        taker.gate.set()
        await taken(taker, b"7")

    assert b"7" == taker.values("predictions")[-1]


async def test_aborted_transactions_are_no_holes(kafka: str) -> None:
    """If this breaks, a transactional producer of predictions stops ingest."""
    bench = Bench(kafka)
    await bench.make_topics()
    taker = Taker()
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(bootstrap_servers=kafka, transactional_id=bench.prefix)
    await producer.start()
    for round_ in range(4):
        await producer.begin_transaction()
        await producer.send(bench.prefix + "predictions", b"%d" % round_, partition=0)
        await (producer.abort_transaction() if round_ % 2 else producer.commit_transaction())
    await producer.stop()

    async with bulk(bench, taker) as engine:
        await engine.append("predictions", numbers(1, start=9))
        await taken(taker, b"9")

    assert [b"0", b"2", b"9"] == taker.values("predictions")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(kafka: str, codec: str) -> None:
    """If this breaks, a producer's choice of compression makes its events unreadable."""
    bench = Bench(kafka)
    await bench.make_topics()
    taker = Taker()
    await bench.produce("predictions", [b"%d" % n for n in range(50)], compression_type=codec)

    async with bulk(bench, taker):
        await taken(taker, b"49")

    assert [b"%d" % n for n in range(50)] == taker.values("predictions")


@pytest.mark.e2e
async def test_a_torn_batch_is_skipped_alone(broker: Broker) -> None:
    """If this breaks, one bad sector stops a partition for ever, or takes good events with it."""
    if not isinstance(broker, JavaBroker):
        pytest.skip("needs the broker's own files")
    bench = Bench(broker.bootstrap)
    await bench.make_topics()
    for values in ([b"0", b"1"], [b"tear-me", b"3", b"4"], [b"5"]):
        await bench.produce("predictions", values)
    _tear(broker._home / "data" / f"{bench.prefix}predictions-0", b"tear-me")
    taker = Taker()

    async with bulk(bench, taker) as engine:
        await engine.append("predictions", [Message(b"m", b"other", partition=1)])
        await taken(taker, b"5", b"other")
        await engine.append("predictions", numbers(3, start=6))
        await taken(taker, b"8")

    values = [value for _, partition, *_, value in taker.taken if partition == 0]
    assert [b"0", b"1", b"5", b"6", b"7", b"8"] == values
    metrics = bench.metrics[-1]
    assert 1 == counted(metrics, "rejected", stage="engine", reason="undecodable_batch")


def _tear(folder: Path, text: bytes) -> None:
    (log,) = folder.glob("*.log")
    data = log.read_bytes()
    at = data.index(text)
    with log.open("r+b") as file:
        file.seek(at)
        file.write(bytes([data[at] ^ 0xFF]))


@pytest.mark.e2e
async def test_a_broker_that_dies_is_waited_for(broker: Broker) -> None:
    """If this breaks, a restart of Kafka needs a restart of rollbackd, or loses events."""
    bench = Bench(broker.bootstrap)
    await bench.make_topics()
    taker, acts = Taker(), list[bytes]()

    async def act(record: object) -> None:
        acts.append(getattr(record, "value", b""))

    engine = bench.engine()
    engine.bulk(["predictions"], taker, "ingest")
    engine.each("commands", act, "act")
    async with running(engine):
        for round_ in range(2):
            mine = [b"%d" % n for n in range(round_ * 10, round_ * 10 + 10)]
            messages = [Message(b"m", value, partition=0) for value in mine]
            await engine.append("predictions", messages)
            await engine.append("commands", messages)
            await taken(taker, *mine)
            await wait_until_async(lambda mine=mine: set(acts) >= set(mine), LIMIT_S)
            if round_ == 0:
                broker.kill()
                await asyncio.sleep(1)
                broker.resume()

    values = taker.values("predictions")
    assert [b"%d" % n for n in range(20)] == list(dict.fromkeys(values))
    assert [b"%d" % n for n in range(20)] == list(dict.fromkeys(acts))


class OvertakenOnce(CheckpointStore):
    """What a process finds that stood still just before its claim: another owner went on."""

    def __init__(self, path: Path, meanwhile: Callable[[], None]) -> None:
        super().__init__(open_database(f"sqlite:///{path / 'storage.db'}"))
        self._meanwhile: list[Callable[[], None]] = [meanwhile]

    def claim(self, stage: str, partition: int) -> Claim:
        while partition == 0 and self._meanwhile:
            self._meanwhile.pop()()
        return super().claim(stage, partition)


async def test_a_cursor_that_moved_on_while_it_stood_still_is_no_loss(
    kafka: str, tmp_path: Path
) -> None:
    """If this breaks, a machine that slept while it took over a partition says that Kafka lost
    messages, and ends.
    """
    bench = Bench(kafka)
    await bench.make_topics()
    loop = asyncio.get_running_loop()
    other = bench.engine()
    await other.start()
    await other.append("observations", numbers(3))
    streams = await other._cluster.describe(["observations"])

    def meanwhile() -> None:
        asyncio.run_coroutine_threadsafe(
            other.append("observations", numbers(10, start=3)), loop
        ).result(LIMIT_S)
        owner = CheckpointStore.claim(store, "watch", 0)
        cursor = {"observations": Position(streams["observations"].stream, 13)}
        assert store.save("watch", 0, owner.epoch, cursor, {})

    store = OvertakenOnce(tmp_path, meanwhile)
    tally = Tally()
    engine = bench.engine(checkpoints=store)
    engine.keyed(["observations"], tally, "watch")
    async with running(engine):
        await wait_until_async(lambda: tally.owns(2), LIMIT_S)
        await engine.append("observations", numbers(1, start=13))
        await wait_until_async(lambda: tally.taken, LIMIT_S)
    await other.stop()

    assert [13] == [record.offset for record in tally.taken]


async def test_an_owner_that_is_fenced_while_it_closes_is_no_failure(
    kafka: str, tmp_path: Path
) -> None:
    """If this breaks, every machine that wakes up counts errors that nobody can mend."""
    bench = Bench(kafka)
    await bench.make_topics()
    store = CheckpointStore(open_database(f"sqlite:///{tmp_path / 'storage.db'}"))
    tally = Tally()
    engine = bench.engine(checkpoints=store, checkpoint_every_s=600.0)
    engine.keyed(["observations"], tally, "watch")
    async with running(engine):
        await engine.append("observations", numbers(3))
        await wait_until_async(lambda: len(tally.taken) == 3, LIMIT_S)
        store.claim("watch", 0)

    assert 0 == counted(bench.metrics[-1], "errors", stage="watch")
    assert {} == store.cursors("watch")[0].positions
    assert [0, 1] == sorted(tally.closed)
