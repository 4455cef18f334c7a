"""Appending: durable, in order, placed as Java clients place, unknown rather than failed."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from aiokafka.partitioner import DefaultPartitioner

from service.engine.base import EngineFault, Message
from service.engine.kafka_append import Appender, Unacknowledged
from service.engine.kafka_client import Cluster
from tests.broker import Broker, JavaBroker
from tests.real import wait_until_async
from tests.service.engine.kafka_bench import Bench


async def test_keys_lie_where_other_clients_put_them(kafka: str) -> None:
    """If this breaks, outcomes that a Java service writes never meet their predictions."""
    bench = Bench(kafka, partitions=5)
    await bench.make_topics()
    engine = bench.engine()
    await engine.start()
    keys = [b"", b"a", b"req-0001", b"21", "modèle".encode()] + [b"k%d" % n for n in range(50)]

    await engine.append("predictions", [Message(key, b"v") for key in keys])
    await engine.append("predictions", [Message(b"alone", b"v")])

    found = {record.key: record.partition for record in await engine.read("predictions")}
    await engine.stop()
    place = DefaultPartitioner()
    assert {key: place(key, list(range(5)), []) for key in [*keys, b"alone"]} == found


async def test_thousands_keep_their_order(kafka: str) -> None:
    """If this breaks, large appends come apart: a later row is read before an earlier one."""
    bench = Bench(kafka)
    await bench.make_topics()
    engine = bench.engine()
    await engine.start()
    rows = [Message(b"m%d" % (n % 7), b"%d" % n + b" " * 200) for n in range(10_000)]

    await engine.append("observations", rows)

    found = await engine.read("observations")
    await engine.stop()
    by_key: dict[bytes, list[int]] = {}
    for record in found:
        by_key.setdefault(record.key, []).append(int(record.value))
    assert {b"m%d" % k: list(range(k, 10_000, 7)) for k in range(7)} == by_key


async def test_what_cannot_be_written_is_said_before_anything_is(kafka: str) -> None:
    """If this breaks, half of an append is on the log, or a topic appears by a typing error."""
    bench = Bench(kafka)
    await bench.make_topics()
    engine = bench.engine()
    await engine.start()

    with pytest.raises(EngineFault, match="above the limit of 1048576 bytes; nothing"):
        await engine.append("commands", [Message(b"a", b"1"), Message(b"b", b"x" * (1 << 20))])
    with pytest.raises(EngineFault, match=r"lacks .*comands"):
        await engine.append("comands", [Message(b"a", b"1")])
    await engine.append("commands", [])
    await engine.append("commands", [Message(b"b", b"x" * ((1 << 20) - 1100))])

    assert 1 == len(await engine.read("commands"))
    assert 0 == await engine.partitions("comands")
    await engine.stop()


@pytest.mark.e2e
async def test_no_answer_is_unknown_and_memory_stays_bounded(broker: Broker) -> None:
    """If this breaks, a broker that is away for an hour is taken for a refusal, or fills memory."""
    if not isinstance(broker, JavaBroker) or broker._process is None:
        pytest.skip("needs a broker process that can be stopped")
    bench = Bench(broker.bootstrap)
    await bench.make_topics()
    cluster = Cluster(broker.bootstrap, prefix=bench.prefix)
    await cluster.start()
    appender: Any = Appender(cluster, deadline_s=1.0)
    await appender.append("commands", [Message(b"m", b"0")])

    os.killpg(broker._process.child.pid, signal.SIGSTOP)
    await wait_until_async(lambda: _stands_still(broker._process.child.pid), 5)
    for _ in range(3):
        with pytest.raises(Unacknowledged, match=r"1 messages for .*commands within 1 s; whether"):
            await appender.append("commands", [Message(b"m", b"1")])
    waiting = len(appender._overdue)
    os.killpg(broker._process.child.pid, signal.SIGCONT)

    async def written() -> bool:
        try:
            await appender.append("commands", [Message(b"m", b"2")])
        except Unacknowledged:
            return False
        return True

    await wait_until_async(written, 30, what="appends work again")
    engine = bench.engine()
    await engine.start()
    values = [record.value for record in await engine.read("commands")]
    await engine.stop()
    await appender.stop()
    await cluster.stop()
    assert 1 == waiting
    # What was given up was delivered all the same, once, before what was said later.
    assert [b"0", b"1", b"2"] == list(dict.fromkeys(values))
    assert 1 == values.count(b"1")


def _stands_still(pid: int) -> bool:
    threads = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(thread.read_text().rpartition(") ")[2].startswith("T") for thread in threads)


async def test_a_cancelled_append_leaves_the_next_one_whole(kafka: str) -> None:
    """If this breaks, a request that a client gave up makes the next one fail."""
    bench = Bench(kafka)
    await bench.make_topics()
    engine = bench.engine()
    await engine.start()
    await engine.append("commands", [Message(b"m", b"0")])

    cancelled = asyncio.create_task(engine.append("commands", [Message(b"m", b"1")]))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await engine.append("commands", [Message(b"m", b"2")])

    values = [record.value for record in await engine.read("commands")]
    await engine.stop()
    assert values in ([b"0", b"1", b"2"], [b"0", b"2"])
