"""What only the local engine promises: one process per group, other processes beside it, lag."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from service.clock import Clock, SetClock, WallClock
from service.engine.base import TOPICS, Ends, EngineFault, Message, Position, Record
from service.engine.local import LocalEngine
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.telemetry import Metrics
from tests.contracts.tally import Taker, Tally, rows, running
from tests.real import wait_until_async


def an_engine(path: Path, clock: Clock | None = None, partitions: int = 1) -> LocalEngine:
    store = CheckpointStore(open_database(f"sqlite:///{path / 'storage.db'}"))
    return LocalEngine(path / "log", clock or WallClock(), store, Metrics(), partitions)


async def ignore(record: Record) -> None:
    pass


async def test_a_second_daemon_refuses_to_start(tmp_path: Path) -> None:
    """If this breaks, two daemons on one machine decide about the same models."""
    first, second, other = (an_engine(tmp_path) for _ in range(3))
    first.keyed(["observations"], Tally(), "watch")
    second.keyed(["observations"], Tally(), "watch")
    other.each("commands", ignore, "act")

    async with running(first), running(other):
        await wait_until_async(lambda: first.health()["ready"], 5)
        await second.start()
        with pytest.raises(EngineFault, match=f"process {os.getpid()} already serves watch"):
            await second.run()
        await second.stop()
        await wait_until_async(lambda: other.health()["ready"], 5)

    again = an_engine(tmp_path)
    again.keyed(["observations"], Tally(), "watch")
    async with running(again):
        await wait_until_async(lambda: again.health()["ready"], 5)


SEND = """
import asyncio, sys
from pathlib import Path
from service.clock import WallClock
from service.engine.base import Message
from service.engine.local import LocalEngine
from service.telemetry import Metrics

async def main():
    engine = LocalEngine(Path(sys.argv[1]), WallClock(), None, Metrics())
    await engine.start()
    for number in range(100):
        await engine.append("commands", [Message(b"m", f"{sys.argv[2]} {number}".encode())])
    await engine.stop()

asyncio.run(main())
"""


async def test_other_processes_append_while_it_runs(tmp_path: Path) -> None:
    """If this breaks, `rollbackd send` beside the daemon fails, or is noticed late."""
    taken: list[bytes] = []

    async def take(record: Record) -> None:
        taken.append(record.value)

    engine = an_engine(tmp_path)
    engine.each("commands", take, "act")
    async with running(engine):
        senders = [
            await asyncio.create_subprocess_exec(sys.executable, "-c", SEND, tmp_path / "log", name)
            for name in ("a", "b")
        ]
        for number in range(100):
            await engine.append("commands", [Message(b"m", b"own %d" % number)])
        await wait_until_async(lambda: len(taken) == 300, 20)
        assert [0, 0] == [await sender.wait() for sender in senders]

    for name in (b"a", b"b", b"own"):
        assert [b"%s %d" % (name, n) for n in range(100)] == [
            value for value in taken if value.startswith(name + b" ")
        ]


async def test_what_another_process_wrote_is_noticed_soon(tmp_path: Path) -> None:
    """If this breaks, the second from event to verdict is spent on waiting for the log."""
    arrived_s: list[float] = []

    async def take(record: Record) -> None:
        arrived_s.append(time.monotonic())

    engine, other = an_engine(tmp_path), an_engine(tmp_path)
    engine.each("commands", take, "act")
    async with running(engine):
        await other.start()
        await wait_until_async(lambda: engine.health()["ready"], 5)
        waits_s = []
        for number in range(10):
            await asyncio.sleep(0.03)
            await other.append("commands", [Message(b"m", b"x")])
            started_s = time.monotonic()
            await wait_until_async(lambda: len(arrived_s) > number, 5, every_s=0.005)  # noqa: B023
            waits_s.append(arrived_s[-1] - started_s)
        await other.stop()

    assert sorted(waits_s)[5] < 0.2


async def test_many_small_appends_at_once_are_few_commits_in_order(tmp_path: Path) -> None:
    """If this breaks, a busy HTTP API waits for the disk once for each event."""
    engine = an_engine(tmp_path)
    await engine.start()

    await asyncio.gather(*(engine.append("commands", rows("m", n, n + 1)) for n in range(500)))

    found = await engine.read("commands")
    await engine.stop()
    assert list(range(500)) == [int(record.value) for record in found]
    with sqlite3.connect(tmp_path / "log" / "log.db") as database:
        times = database.execute("SELECT count(DISTINCT time_ms) FROM batches").fetchone()[0]
    assert times < 250


async def test_one_bad_append_does_not_fail_its_neighbours(tmp_path: Path) -> None:
    """If this breaks, a misnamed topic in one role makes another role's append fail."""
    engine = an_engine(tmp_path)
    await engine.start()

    results = await asyncio.gather(
        engine.append("commands", rows("m", 0, 1)),
        engine.append("nonsense", rows("m", 0, 1)),
        engine.append("commands", rows("m", 1, 2)),
        return_exceptions=True,
    )

    found = await engine.read("commands")
    await engine.stop()
    assert [None, EngineFault, None] == [result and type(result) for result in results]
    assert [b"0", b"1"] == [record.value for record in found]


async def test_lag_is_the_age_of_the_oldest_message_not_taken_in(tmp_path: Path) -> None:
    """If this breaks, a stuck role is reported ready, and its verdicts pass for fresh ones."""
    clock, taker = SetClock(), Taker()
    taker.gate.clear()
    engine = an_engine(tmp_path, clock)
    engine.bulk(["predictions", "outcomes"], taker, "ingest")
    await engine.start()
    await engine.append("outcomes", rows("a", 0, 1))
    clock.move(5)
    await engine.append("predictions", rows("a", 0, 1))

    async with running(engine):
        await wait_until_async(lambda: taker.busy, 5)
        clock.move(4.5)
        behind = engine.health()
        clock.move(1)
        too_far_behind = engine.health()
        taker.gate.set()
        await wait_until_async(lambda: engine.health()["ready"], 5)
        caught_up = engine.health()

    assert (True, 9.5) == (behind["ready"], behind["lag_s"])
    assert (False, 10.5) == (too_far_behind["ready"], too_far_behind["lag_s"])
    assert (True, 0.0) == (caught_up["ready"], caught_up["lag_s"])


async def test_health_names_what_fails(tmp_path: Path) -> None:
    """If this breaks, nobody sees why a role makes no progress."""

    async def refuse(record: Record) -> None:
        raise ConnectionError("the platform does not answer")

    engine = an_engine(tmp_path)
    engine.each("commands", refuse, "act")
    async with running(engine):
        await engine.append("commands", rows("m", 0, 1))
        await wait_until_async(lambda: engine.health()["detail"]["act"]["failing"], 5)

    assert ["handle"] == engine.health()["detail"]["act"]["failing"]


async def test_a_topic_made_again_under_a_running_engine_is_read_from_zero(
    tmp_path: Path,
) -> None:
    """If this breaks, whoever cleans up a test installation must also restart the daemon."""
    tally, taker = Tally(), Taker()
    calls: list[bytes] = []

    async def take(record: Record) -> None:
        calls.append(record.value)

    engine = an_engine(tmp_path)
    engine.keyed(["observations"], tally, "watch")
    engine.bulk(["predictions"], taker, "ingest")
    engine.each("receipts", take, "record")
    topics = ("observations", "predictions", "receipts")

    async def go(start: int, done: int) -> None:
        for topic in topics:
            await engine.append(topic, rows("m", start, start + 5))
        await wait_until_async(
            lambda: [done] * 3 == [len(tally.taken), len(taker.taken), len(calls)], 5
        )

    async with running(engine):
        await go(0, done=5)
        for topic in topics:
            await engine.delete_topic(topic)
        await asyncio.sleep(0.1)
        await engine.topics(create=True)
        await go(10, done=10)

    assert 2 == len(taker.assigned) == len(tally.opened)
    assert [b"%d" % n for n in (*range(5), *range(10, 15))] == calls


async def test_topics_with_unlike_partitions_are_refused(tmp_path: Path) -> None:
    """If this breaks, predictions and outcomes of other partitions are joined, and none match."""
    engine = an_engine(tmp_path)
    await engine.start()
    await engine.delete_topic("outcomes")
    await engine.stop()
    engine = an_engine(tmp_path, partitions=2)
    engine.bulk(["predictions", "outcomes"], Taker(), "ingest")
    await engine.start()

    with pytest.raises(EngineFault, match="'predictions': 1, 'outcomes': 2"):
        await engine.run()

    await engine.stop()


async def test_a_position_beyond_the_log_is_refused(tmp_path: Path) -> None:
    """If this breaks, a log restored from an old backup is silently not read."""

    class Ahead(Taker):
        async def assign(
            self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
        ) -> Mapping[str, int]:
            return {"predictions": 7}

    engine = an_engine(tmp_path)
    engine.bulk(["predictions"], Ahead(), "ingest")
    await engine.start()

    with pytest.raises(EngineFault, match=r"position 7 of predictions\[0\] lies beyond its end 0"):
        await engine.run()

    await engine.stop()


async def test_old_messages_are_deleted_while_it_runs(tmp_path: Path) -> None:
    """If this breaks, the disk of a small machine fills within weeks."""
    clock = SetClock()
    engine = an_engine(tmp_path, clock)
    await engine.start()
    await engine.append("observations", rows("m", 0, 3))
    clock.move(TOPICS["observations"]["retention_s"] + 1)
    await engine.append("observations", rows("m", 3, 5))

    async with running(engine):
        for _ in range(100):
            found = await engine.read("observations")
            if len(found) == 2:
                break
            await asyncio.sleep(0.02)

    assert [b"3", b"4"] == [record.value for record in found]


async def test_reading_is_cut_and_in_order_of_time(tmp_path: Path) -> None:
    """If this breaks, what people see of a topic is in no order."""
    clock = SetClock()
    engine = an_engine(tmp_path, clock, partitions=3)
    await engine.start()
    for number in range(9):
        clock.move(1)
        await engine.append("commands", [Message(b"m", b"%d" % number, partition=number % 3)])

    found, cut = await engine.read("commands"), await engine.read("commands", limit=4)

    await engine.stop()
    assert [b"%d" % n for n in range(9)] == [record.value for record in found]
    assert [b"%d" % n for n in range(4)] == [record.value for record in cut]


async def test_a_group_may_read_a_topic_once(tmp_path: Path) -> None:
    """If this breaks, two handlers of one role share one position and each misses messages."""
    engine = an_engine(tmp_path)
    engine.each("commands", ignore, "record")
    engine.each("receipts", ignore, "record")

    with pytest.raises(EngineFault, match="record reads commands twice"):
        engine.each("commands", ignore, "record")


async def test_it_must_be_started_before_it_is_used(tmp_path: Path) -> None:
    """If this breaks, an append before the start waits for ever."""
    engine = an_engine(tmp_path)

    with pytest.raises(EngineFault, match="call start first"):
        await engine.append("commands", rows("m", 0, 1))


async def test_a_handler_that_hangs_does_not_hold_up_a_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, the supervisor must kill the daemon, and others' checkpoints are lost."""
    monkeypatch.setattr("service.engine.local.STOP_WITHIN_S", 0.3)
    taker, tally = Taker(), Tally()
    taker.gate.clear()
    engine = an_engine(tmp_path)
    engine.bulk(["predictions"], taker, "ingest")
    engine.keyed(["observations"], tally, "watch")

    async with running(engine):
        await engine.append("predictions", rows("a", 0, 5))
        await engine.append("observations", rows("m", 0, 5))
        await wait_until_async(lambda: taker.busy and len(tally.taken) == 5, 5)
        started_s = time.monotonic()
    took_s = time.monotonic() - started_s

    assert took_s < 5.0  # a time-out that strikes takes longer
    assert ([0], [0]) == (taker.revoked, tally.closed)
    with sqlite3.connect(tmp_path / "storage.db") as database:
        found = database.execute("SELECT json_extract(CAST(view AS TEXT), '$.n') FROM checkpoints")
        assert [(5,)] == found.fetchall()
