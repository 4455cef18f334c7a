"""A Faust app that runs and does not take part: when it is doubted, and that a new one helps."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition

from service.engine import faust_app
from service.engine.base import Message, Record
from service.engine.faust_app import assignment
from service.engine.faust_stuck import Doubts, Seen, members
from service.engine.kafka import KafkaEngine
from tests.contracts.tally import running
from tests.real import wait_until_async
from tests.service.engine.kafka_bench import Bench, counted

LIMIT_S = 40.0
SESSION_MS = 2000
FINE = Seen(assigned=True, member=True)
BEHIND = frozenset({("orders", 0, 7)})


def looks(doubts: Doubts, seen: Seen, start_s: float, stop_s: float) -> str | None:
    """Look once a second until something is said."""
    second = start_s
    while second <= stop_s:
        if said := doubts.look(seen, second, second):
            return f"{second:.0f}: {said}"
        second += 1
    return None


def begun() -> Doubts:
    """Doubts with a session of 6 s, of an app that took part until second 0."""
    doubts = Doubts(6.0)
    doubts.begin()
    assert doubts.look(FINE, 0.0, 0.0) is None
    return doubts


@pytest.mark.parametrize(
    ("seen", "expected"),
    [
        (FINE, None),
        (Seen(assigned=False), "20: no share was assigned for 19 s"),
        (FINE._replace(member=False), "20: the group does not count it as a member for 19 s"),
        (FINE._replace(member=None), None),
        (
            FINE._replace(waiting=BEHIND),
            "20: nothing of orders[0] from offset 7 was handled for 19 s",
        ),
        (FINE._replace(waiting=BEHIND, busy=frozenset({"orders"})), None),
        (
            FINE._replace(waiting=BEHIND, busy=frozenset({"commands"})),
            "20: nothing of orders[0] from offset 7 was handled for 19 s",
        ),
    ],
)
def test_what_lasts_for_three_sessions_is_doubted(seen: Seen, expected: str | None) -> None:
    """If this breaks, commands wait for ever, or a platform that is slow looks like a fault."""
    assert expected == looks(begun(), seen, 1, 60)


@pytest.mark.parametrize(
    ("now_s", "wall_s", "expected"),
    [
        (6.0, 6.0, None),
        (7.0, 7.0, "this process stood still for 7 s"),
        (0.1, 60.0, "this process stood still for 60 s"),
        (0.1, -3600.0, None),
    ],
)
def test_standing_still_for_a_session_is_enough(
    now_s: float, wall_s: float, expected: str | None
) -> None:
    """If this breaks, a process that was frozen, or its machine suspended, relies on Faust."""
    assert expected == begun().look(FINE, now_s, wall_s)


def test_what_goes_on_is_not_doubted() -> None:
    """If this breaks, a backlog or a rebalance that takes its time makes the app start over."""
    doubts = begun()
    for second in range(1, 100):
        waits = frozenset({("orders", 0, second // 15)})
        seen = FINE._replace(assigned=second % 15 != 0, waiting=waits)
        assert doubts.look(seen, second, second) is None


def test_each_time_that_did_not_help_doubles_the_patience() -> None:
    """If this breaks, what no new app mends makes one three times a minute."""
    doubts = begun()
    behind = FINE._replace(waiting=BEHIND)
    assert (
        looks(doubts, behind, 1, 100)
        == "20: nothing of orders[0] from offset 7 was handled for 19 s"
    )
    doubts.begin()
    assert (looks(doubts, behind, 21, 1000) or "").startswith("58: ")
    doubts.begin()
    assert looks(doubts, FINE, 59, 200) is None
    assert (looks(doubts, behind, 201, 1000) or "").startswith("220: ")


# --- on a real broker


def serving(bench: Bench, calls: list[bytes]) -> KafkaEngine:
    engine = bench.engine(session_timeout_ms=SESSION_MS)

    async def handler(record: Record) -> None:
        calls.append(record.value)

    engine.each("commands", handler, "act")
    return engine


def app_of(engine: KafkaEngine) -> Any:
    return engine._faust._served["act"]._app


async def send(engine: KafkaEngine, *values: bytes) -> None:
    await engine.append("commands", [Message(b"m", value, partition=0) for value in values])


async def test_an_app_that_delivers_nothing_is_made_anew(kafka: str) -> None:
    """If this breaks, rollbacks are ordered and nobody executes them until a restart."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    engine = serving(bench, calls)
    async with running(engine):
        await send(engine, b"0")
        await wait_until_async(lambda: calls, LIMIT_S)
        app = app_of(engine)
        app.consumer.pause_partitions(app.consumer.assignment())
        await asyncio.sleep(1.0)  # a fetch that was under way
        await send(engine, b"1", b"2")
        await wait_until_async(lambda: b"2" in calls, LIMIT_S)

    assert [b"0", b"1", b"2"] == calls
    assert 1 == counted(bench.metrics[-1], "errors", stage="act")


async def test_an_app_that_the_group_has_forgotten_is_made_anew(kafka: str) -> None:
    """If this breaks, a worker that lost its place in silence never takes part again."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    engine = serving(bench, calls)
    async with running(engine):
        await send(engine, b"0")
        await wait_until_async(lambda: calls, LIMIT_S)
        app = app_of(engine)
        thread = app.consumer._thread
        coordinator = thread._consumer._coordinator
        for task in (coordinator._coordination_task, coordinator._heartbeat_task):
            thread.thread_loop.call_soon_threadsafe(task.cancel)
        await wait_until_async(lambda: app_of(engine) not in (app, None), LIMIT_S)
        await wait_until_async(lambda: assignment(app_of(engine)), LIMIT_S)
        await send(engine, b"1")
        await wait_until_async(lambda: b"1" in calls, LIMIT_S)
        found = await members(engine._cluster, "act")

    assert b"1" == calls[-1]
    assert found is not None
    assert 1 == len(found)


async def test_a_handler_that_works_for_long_is_left_alone(kafka: str) -> None:
    """If this breaks, a rollback that takes a minute is begun again and again."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    engine = bench.engine(session_timeout_ms=SESSION_MS)

    async def handler(record: Record) -> None:
        calls.append(record.value)
        if record.value == b"0":
            await asyncio.sleep(5 * SESSION_MS / 1000)

    engine.each("commands", handler, "act")
    async with running(engine):
        await send(engine, b"0", b"1")
        await wait_until_async(lambda: b"1" in calls, LIMIT_S)

    assert [b"0", b"1"] == calls
    assert 0 == counted(bench.metrics[-1], "errors", stage="act")


@pytest.mark.parametrize(("offset", "handled"), [(2, True), (3, True), (4, False)])
async def test_a_generation_begins_at_what_was_committed(
    kafka: str, offset: int, handled: bool
) -> None:
    """If this breaks, commands that Faust dropped in a rebalance are committed and never executed.

    What was committed is 3 of 6. Less is a repeat, more a gap.
    """
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    engine = serving(bench, calls)
    async with running(engine):
        await send(engine, b"0", b"1", b"2")
        await wait_until_async(lambda: b"2" in calls, LIMIT_S)
    other = serving(bench, calls)
    await other.start()
    await send(other, b"3", b"4", b"5")
    served, taken = other._faust._served["act"], len(calls)
    tp = TopicPartition(bench.prefix + "commands", 0)
    message = SimpleNamespace(
        topic=tp.topic, partition=0, tp=tp, offset=offset, generation_id=9,
        timestamp=0.0, key=b"m", value=b"%d" % offset, headers=(),
    )  # fmt: skip
    app = SimpleNamespace(consumer_generation_id=9, should_stop=False)

    acknowledged = await served._handle(
        app, served.handlers["commands"], "commands", SimpleNamespace(message=message)
    )
    await other.stop()

    assert (handled, [b"%d" % offset] * handled) == (acknowledged, calls[taken:])
    assert handled == (served._anew is None)


async def test_an_app_that_does_not_stop_leaves_its_group(
    kafka: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, an app that was given up keeps its partitions and handles nothing."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    engine = serving(bench, calls)
    monkeypatch.setattr(faust_app, "STOP_S", 1.0)
    async with running(engine):
        await send(engine, b"0")
        await wait_until_async(lambda: calls, LIMIT_S)
        app = app_of(engine)
        stop, held = app.stop, asyncio.Event()
        monkeypatch.setattr(app, "stop", held.wait)
        engine._faust._served["act"]._anew = ConnectionError("made up")
        await wait_until_async(lambda: assignment(app_of(engine)), LIMIT_S)
        await send(engine, b"1")
        await wait_until_async(lambda: b"1" in calls, LIMIT_S)
        found = await members(engine._cluster, "act")
        held.set()
        await asyncio.wait_for(stop(), LIMIT_S)

    assert [b"0", b"1"] == calls
    assert found is not None
    assert 1 == len(found)
