"""What every engine promises, faults included: the suite that both engines pass.

Each test runs on real engines over a real log or broker (`engines.py`). What needs kill -9 is in
`test_every_engine_killed.py`.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping, Sequence

import pytest

from service.engine.base import Ends, Engine, EngineFault, Message, Position, Record, Snapshot
from tests.contracts.engines import EngineBench
from tests.contracts.tally import Taker, Tally, rows, running
from tests.real import wait_until_async

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")

KEYS = [f"m{number}" for number in range(8)]


async def append(bench: EngineBench, topic: str, messages: Sequence[Message]) -> None:
    """Append from outside, as a producer would."""
    engine = await bench.engine()
    await engine.start()
    await engine.append(topic, messages)
    await engine.stop()


async def keyed(bench: EngineBench, tally: Tally, *topics: str) -> Engine:
    engine = await bench.engine()
    engine.keyed(topics or ["observations"], tally, "watch")
    return engine


def sums(bench: EngineBench, group: str = "watch") -> dict[str, int]:
    """Each key's sum, from the last checkpoints, by nobody's leave but the storage's."""
    found = {}
    for partition in range(bench.partitions):
        for key, state in bench.checkpoints.claim(group, partition).states.items():
            found[key] = json.loads(state)["sum"]
    return found


async def seen(handler: Tally | Taker, count: int, bench: EngineBench) -> None:
    await wait_until_async(
        lambda: len(handler.taken) >= count, bench.settle_s, what=f"{count} records are taken in"
    )


async def called(calls: Sequence[int], last: int, bench: EngineBench) -> None:
    await wait_until_async(lambda: last in calls, bench.settle_s, what=f"call with {last}")


async def owned(tally: Tally, bench: EngineBench) -> None:
    limit_s = bench.takeover_s + bench.settle_s
    await wait_until_async(lambda: tally.owns(bench.partitions), limit_s, what="owns all")


# --- append and read


async def test_what_was_appended_is_there_for_another_process(bench: EngineBench) -> None:
    """If this breaks, an event that was acknowledged over HTTP is gone after a restart."""
    sent = [Message(b"a", b"1", headers=[("trace", b"\x00x")]), Message(b"b", b"2")]

    await append(bench, "predictions", sent)

    reader = await bench.engine()
    await reader.start()
    found = await reader.read("predictions")
    await reader.stop()
    expected = {(b"a", b"1", (("trace", b"\x00x"),)), (b"b", b"2", ())}
    assert expected == {
        (record.key, record.value, tuple((name, text) for name, text in record.headers))
        for record in found
    }


async def test_a_key_has_one_partition_and_one_order(bench: EngineBench) -> None:
    """If this breaks, an outcome misses its prediction, or a state sees rows out of order."""
    engine = await bench.engine()
    await engine.start()
    for start in range(0, 40, 4):
        mixed = [row for key in KEYS for row in rows(key, start, start + 4)]
        await engine.append("predictions", mixed)

    found = await engine.read("predictions")

    await engine.stop()
    by_key: dict[bytes, list[Record]] = {}
    for record in found:
        by_key.setdefault(record.key, []).append(record)
    assert {key.encode() for key in KEYS} == by_key.keys()
    assert bench.partitions == len({record.partition for record in found})
    for records in by_key.values():
        assert 1 == len({record.partition for record in records})
        assert [int(record.value) for record in records] == list(range(40))


async def test_a_partition_can_be_named(bench: EngineBench) -> None:
    """If this breaks, an observation goes to another partition than its prediction came from."""
    engine = await bench.engine()
    await engine.start()
    await engine.append("observations", [Message(b"m", b"1", partition=1)])
    await engine.append("observations", [Message(b"m", b"0", partition=0)])

    found = await engine.read("observations")

    await engine.stop()
    assert {(0, b"0"), (1, b"1")} == {(record.partition, record.value) for record in found}


async def test_topics_are_shown_and_made(bench: EngineBench) -> None:
    """If this breaks, `rollbackd topics` lies about what is missing."""
    engine = await bench.engine()
    await engine.start()
    await bench.delete_topic("receipts")

    gone = {state.topic: state.partitions for state in await engine.topics()}
    await engine.topics(create=True)
    made = {state.topic: state.partitions for state in await engine.topics()}

    await engine.stop()
    assert 0 == gone["receipts"]
    assert {bench.partitions} == set(made.values())


# --- each


async def test_each_takes_a_message_until_its_handler_returns(bench: EngineBench) -> None:
    """If this breaks, a command is skipped because the platform did not answer once."""
    calls: list[int] = []

    async def handler(record: Record) -> None:
        calls.append(int(record.value))
        if calls.count(3) < 3 and int(record.value) == 3:
            raise ConnectionError("the platform does not answer")

    engine = await bench.engine()
    engine.each("commands", handler, "act")
    await append(bench, "commands", rows("m", 0, 6))

    async with running(engine):
        await wait_until_async(lambda: 5 in calls, bench.settle_s)

    assert [0, 1, 2, 3, 3, 3, 4, 5] == calls


async def test_each_goes_on_where_it_stopped(bench: EngineBench) -> None:
    """If this breaks, a restart executes old commands again, or misses what came meanwhile."""
    calls: list[int] = []

    async def handler(record: Record) -> None:
        calls.append(int(record.value))

    for start in (0, 5):
        engine = await bench.engine()
        engine.each("commands", handler, "act")
        await append(bench, "commands", rows("m", start, start + 5))
        async with running(engine):
            await called(calls, start + 4, bench)

    assert list(range(10)) == calls


# --- bulk


async def test_bulk_reads_the_topics_one_after_the_other_up_to_their_ends(
    bench: EngineBench,
) -> None:
    """If this breaks, a restart joins outcomes before their predictions and parks them all."""
    taker = Taker()
    await append(bench, "outcomes", [row for key in KEYS for row in rows(key, 0, 20)])
    await append(bench, "predictions", [row for key in KEYS for row in rows(key, 0, 20)])
    engine = await bench.engine()
    engine.bulk(["predictions", "outcomes"], taker, "ingest")

    async with running(engine):
        await wait_until_async(lambda: len(taker.taken) >= 320, bench.settle_s)
        await append(bench, "outcomes", rows("later", 0, 1))
        await wait_until_async(lambda: len(taker.taken) >= 321, bench.settle_s)

    for partition in range(bench.partitions):
        order = [topic for topic, number, *_ in taker.taken if number == partition]
        behind = order[order.index("outcomes") :]
        assert "predictions" not in behind
    assert 321 == len(taker.taken)


async def test_bulk_goes_on_at_what_was_committed(bench: EngineBench) -> None:
    """If this breaks, a restart loses the place in the log, or the note beside it."""
    takers = [Taker(), Taker()]
    for at, taker in enumerate(takers):
        taker.note = "pending from 3"
        engine = await bench.engine()
        engine.bulk(["predictions", "outcomes"], taker, "ingest")
        await append(bench, "predictions", rows("a", at * 5, at * 5 + 5))
        async with running(engine):
            await seen(taker, 5, bench)

    assert [str(n).encode() for n in range(10)] == [
        value for taker in takers for value in taker.values("predictions")
    ]
    notes = {
        position.note
        for _, committed in takers[1].assigned
        for topic, position in committed.items()
        if topic == "predictions" and position.offset
    }
    assert {"pending from 3"} == notes
    assert sorted(takers[0].revoked) == sorted({number for number, _ in takers[0].assigned})


async def test_bulk_offers_the_same_batches_after_a_failure(bench: EngineBench) -> None:
    """If this breaks, a full disk under ingest's state loses the batch that was in its hands."""
    taker = Taker()
    taker.failures = 2
    engine = await bench.engine()
    engine.bulk(["predictions"], taker, "ingest")
    await append(bench, "predictions", rows("a", 0, 50))

    async with running(engine):
        await wait_until_async(lambda: len(taker.taken) >= 50, bench.settle_s)

    first, second, third = ([value for b in o for value in b.values] for o in taker.offered[:3])
    assert first == second[: len(first)] == third[: len(first)]
    assert [str(n).encode() for n in range(50)] == taker.values("predictions")


async def test_bulk_reads_nothing_ahead_of_a_slow_handler(bench: EngineBench) -> None:
    """If this breaks, memory fills when the database is slow."""
    taker = Taker()
    taker.gate.clear()
    engine = await bench.engine()
    engine.bulk(["predictions"], taker, "ingest")
    many = [Message(b"a", b"x")] * 5000

    async with running(engine):
        for _ in range(6):
            await engine.append("predictions", many)
        await wait_until_async(lambda: taker.busy, bench.settle_s)
        await asyncio.sleep(0.3)
        offered_meanwhile = len(taker.offered)
        taker.gate.set()
        await wait_until_async(lambda: len(taker.taken) == 30_000, bench.settle_s)

    assert 1 == offered_meanwhile
    assert all(len(batch.keys) <= 20_000 for batches in taker.offered for batch in batches)
    assert list(range(30_000)) == [offset for _, _, offset, _, _ in taker.taken]


async def test_bulk_ticks_when_nothing_comes(bench: EngineBench) -> None:
    """If this breaks, time stands still when traffic stops, and a silent canary looks healthy."""
    taker = Taker()
    engine = await bench.engine()
    engine.bulk(["predictions", "outcomes"], taker, "ingest")

    async with running(engine):
        await wait_until_async(lambda: taker.ticks >= bench.partitions, bench.settle_s + 2)
        started, before = time.monotonic(), taker.ticks
        await wait_until_async(lambda: taker.ticks >= before + 2 * bench.partitions, 12)
        took_s = time.monotonic() - started

    assert 1.0 < took_s < 10.0  # two ticks, on a machine that is busy with something else


# --- keyed


async def test_keyed_states_and_cursor_survive(bench: EngineBench) -> None:
    """If this breaks, a restart forgets evidence, or counts it again."""
    first, second = Tally(), Tally()
    for tally, start in ((first, 0), (second, 100)):
        engine = await keyed(bench, tally)
        await append(bench, "observations", [r for k in KEYS for r in rows(k, start, start + 100)])
        async with running(engine):
            await seen(tally, 800, bench)

    assert {key: sum(range(200)) for key in KEYS} == sums(bench)
    assert (800, 800, 0) == (len(first.taken), len(second.taken), second.repeats)
    assert sorted(first.closed) == list(range(bench.partitions))
    epochs = dict(first.opened)
    assert all(epoch > epochs[partition] for partition, epoch in second.opened)


async def test_keyed_ticks_when_nothing_comes(bench: EngineBench) -> None:
    """If this breaks, a verdict that depends on silence or on a time-out comes never."""
    tally = Tally()

    async with running(await keyed(bench, tally)):
        await wait_until_async(lambda: tally.ticks >= 4 * bench.partitions, bench.settle_s + 2)


async def test_keyed_starts_at_the_cursor(bench: EngineBench) -> None:
    """If this breaks, an owner reads on where the broker thinks it was, not at its states."""
    await append(bench, "observations", [Message(b"m", b"%d" % n, partition=0) for n in range(10)])
    claim = bench.checkpoints.claim("watch", 0)
    cursor = {"observations": Position(await stream_of(bench, "observations"), 7)}
    state = json.dumps({"sum": 1000, "n": 1}).encode()
    assert bench.checkpoints.save("watch", 0, claim.epoch, cursor, {"m": Snapshot(state)})
    tally = Tally()

    async with running(await keyed(bench, tally)):
        await seen(tally, 3, bench)

    assert [7, 8, 9] == [record.offset for record in tally.taken]
    assert {"m": 1000 + 7 + 8 + 9} == sums(bench)


async def test_keyed_gives_again_what_states_may_drop_by_position(bench: EngineBench) -> None:
    """If this breaks, rows between the cursor and what a state has absorbed count twice."""
    await append(bench, "observations", [Message(b"m", b"%d" % n, partition=0) for n in range(10)])
    stream = await stream_of(bench, "observations")
    claim = bench.checkpoints.claim("watch", 0)
    ahead = {"sum": sum(range(6)), "n": 6, f"observations/{stream}/0": 5}
    cursor = {"observations": Position(stream, 2)}
    states = {"m": Snapshot(json.dumps(ahead).encode())}
    assert bench.checkpoints.save("watch", 0, claim.epoch, cursor, states)
    tally = Tally()

    async with running(await keyed(bench, tally)):
        await seen(tally, 4, bench)

    assert ([6, 7, 8, 9], 4) == ([record.offset for record in tally.taken], tally.repeats)
    assert {"m": sum(range(10))} == sums(bench)


async def test_keyed_drops_a_partition_when_it_is_fenced(bench: EngineBench) -> None:
    """If this breaks, a worker that was paused for a minute overwrites its successor's decision."""
    tally = Tally()
    engine = await keyed(bench, tally)
    await append(bench, "observations", [Message(b"m", b"1", partition=0)])
    await engine.start()
    serving = asyncio.create_task(engine.run())
    await seen(tally, 1, bench)
    await wait_until_async(lambda: sums_view(bench, "m") == 1, bench.settle_s)

    claim = bench.checkpoints.claim("watch", 0)
    successor = Snapshot(json.dumps({"sum": -5, "n": 1}).encode())
    bench.checkpoints.save("watch", 0, claim.epoch, claim.cursor, {"m": successor})
    await append(bench, "observations", [Message(b"m", b"2", partition=0)])
    await wait_until_async(lambda: 0 in tally.closed, bench.settle_s)

    await engine.stop()
    results = await asyncio.gather(serving, return_exceptions=True)
    assert all(result is None or isinstance(result, EngineFault) for result in results)
    # An engine that may claim again counts on from its successor's state, never from its own.
    assert sums(bench)["m"] in (-5, -5 + 2)


async def test_keyed_keeps_a_large_state(bench: EngineBench) -> None:
    """If this breaks, a model with many segments stops the worker that owns it."""
    tally = Tally()
    tally.padding = 150_000
    engine = await keyed(bench, tally)
    await append(bench, "observations", [row for key in KEYS for row in rows(key, 0, 20)])

    async with running(engine):
        await seen(tally, 160, bench)

    assert {key: sum(range(20)) for key in KEYS} == sums(bench)


async def test_keyed_says_things_in_order_before_it_remembers_them(bench: EngineBench) -> None:
    """If this breaks, a command is on its topic without its breach, or a kill loses a decision."""
    tally = Tally()
    engine = await keyed(bench, tally)
    reader = await bench.engine()
    await reader.start()
    await append(bench, "observations", rows("m", 0, 100))

    async with running(engine):
        await wait_until_async(lambda: sums_view(bench, "m") is not None, bench.settle_s)
        remembered = sums_view(bench, "m")
        said = {t: await reader.read(t) for t in ("breaches", "commands")}

    await reader.stop()
    tenths = [sum(range(n)) for n in range(10, 101, 10) if sum(range(n)) <= (remembered or 0)]
    assert tenths
    for records in said.values():
        found = [json.loads(record.value)["sum"] for record in records]
        assert tenths == found[: len(tenths)]


async def test_keyed_loses_nothing_when_a_handler_raises(bench: EngineBench) -> None:
    """If this breaks, one bad row loses its batch, or the half that was taken in counts twice."""
    tally = Tally()
    tally.failures = 3
    engine = await keyed(bench, tally)
    await append(bench, "observations", [row for key in KEYS for row in rows(key, 0, 100)])

    async with running(engine):
        await wait_until_async(lambda: tally.failures == 0, bench.settle_s)
        await append(bench, "observations", rows("last", 0, 10))
        expected = {key: sum(range(100)) for key in KEYS} | {"last": sum(range(10))}
        await wait_until_async(
            lambda: {key: sums_view(bench, key) for key in expected} == expected,
            bench.settle_s,
            every_s=0.2,
        )

    assert expected == sums(bench)
    reader = await bench.engine()
    await reader.start()
    said = {json.loads(record.value)["id"] for record in await reader.read("breaches")}
    await reader.stop()
    assert {f"{key}-{n}" for key in KEYS for n in range(10, 101, 10)} | {"last-10"} == said


async def test_keyed_reads_several_topics(bench: EngineBench) -> None:
    """If this breaks, watch misses rollouts or holds while observations flow."""
    tally = Tally()
    engine = await keyed(bench, tally, "observations", "rollouts", "holds")
    for topic in ("observations", "rollouts", "holds"):
        await append(bench, topic, [row for key in KEYS for row in rows(key, 0, 10)])

    async with running(engine):
        await seen(tally, 240, bench)

    assert {key: 3 * sum(range(10)) for key in KEYS} == sums(bench)


# --- starting, stopping, taking over


async def test_a_stop_is_quick_and_leaves_nothing_to_repeat(bench: EngineBench) -> None:
    """If this breaks, every deployment of rollbackd costs seconds and repeats work."""
    tally, taker = Tally(), Taker()
    engine = await keyed(bench, tally)
    engine.bulk(["predictions"], taker, "ingest")
    await engine.start()
    serving = asyncio.create_task(engine.run())
    await engine.append("observations", [row for key in KEYS for row in rows(key, 0, 33)])
    await engine.append("predictions", rows("a", 0, 33))
    await seen(tally, 8 * 33, bench)
    await wait_until_async(lambda: len(taker.taken) == 33, bench.settle_s)

    started = time.monotonic()
    await engine.stop()
    await serving
    took_s = time.monotonic() - started

    assert took_s < 5.0  # about a tenth of a second; a time-out that strikes takes ten
    assert {key: sum(range(33)) for key in KEYS} == sums(bench)
    again = Taker()
    engine = await bench.engine()
    engine.bulk(["predictions"], again, "ingest")
    async with running(engine):
        await engine.append("predictions", rows("a", 33, 34))
        await wait_until_async(lambda: again.taken, bench.settle_s)
    assert [b"33"] == again.values("predictions")


async def test_two_workers_take_over_from_each_other(bench: EngineBench) -> None:
    """If this breaks, moving a role to another machine loses evidence or counts it twice."""
    engine = await bench.engine()
    await engine.start()
    previous: Engine | None = None
    serving: list[asyncio.Task[None]] = []
    tallies: list[Tally] = []
    for _ in range(4):
        tally = Tally()
        tallies.append(tally)
        worker = await keyed(bench, tally)
        await worker.start()
        if previous is not None and not bench.shares:
            await previous.stop()
        serving.append(asyncio.create_task(worker.run()))
        if previous is not None and bench.shares:
            await engine.append("observations", [r for k in KEYS for r in rows(k, 0, 7)])
            await previous.stop()
        await engine.append("observations", [row for key in KEYS for row in rows(key, 0, 50)])
        await owned(tally, bench)
        previous = worker
    extra = 3 if bench.shares else 0
    expected = 4 * sum(range(50)) + extra * sum(range(7))

    def done() -> bool:
        return {key: sums_view(bench, key) for key in KEYS} == dict.fromkeys(KEYS, expected)

    await wait_until_async(done, bench.settle_s, every_s=0.2)
    assert previous is not None
    await previous.stop()
    await asyncio.gather(*serving)
    await engine.stop()
    assert dict.fromkeys(KEYS, expected) == sums(bench)


async def test_a_topic_that_was_made_again_starts_at_zero(bench: EngineBench) -> None:
    """If this breaks, a rebuilt test cluster is silently ignored up to the old offsets."""
    calls: list[int] = []

    async def handler(record: Record) -> None:
        calls.append(int(record.value))

    for start in (0, 100):
        tally = Tally()
        engine = await keyed(bench, tally)
        engine.each("receipts", handler, "record")
        await append(bench, "observations", rows("m", start, start + 20))
        await append(bench, "receipts", rows("m", start, start + 5))
        async with running(engine):
            await seen(tally, 20, bench)
            await called(calls, start + 4, bench)
        if start == 0:
            for topic in ("observations", "receipts"):
                await bench.delete_topic(topic)
                await bench.make_topic(topic)

    assert [*range(5), *range(100, 105)] == calls
    assert {"m": sum(range(20)) + sum(range(100, 120))} == sums(bench)


# --- lead, health


async def test_one_leader_acts_and_another_takes_its_place(bench: EngineBench) -> None:
    """If this breaks, Prometheus is polled twice, or by nobody after a worker is gone."""
    acts: list[str] = []
    engines = {}
    serving = []
    for name in ("one", "two"):

        async def act(name: str = name) -> None:
            acts.append(name)
            if len(acts) == 2:
                raise ConnectionError("Prometheus does not answer")

        engines[name] = await bench.engine()
        engines[name].lead("poll", 0.1, act)
        await engines[name].start()
        serving.append(asyncio.create_task(engines[name].run()))

    await wait_until_async(lambda: len(acts) >= 5, bench.takeover_s + bench.settle_s)
    (leader,) = set(acts)
    await engines.pop(leader).stop()
    (other,) = engines
    await wait_until_async(lambda: other in acts, bench.takeover_s + bench.settle_s)

    await engines[other].stop()
    await asyncio.gather(*serving)


async def test_health_says_when_the_share_is_owned(bench: EngineBench) -> None:
    """If this breaks, a load balancer or an operator trusts a process that does nothing."""
    engine = await keyed(bench, Tally())
    await engine.start()
    before = engine.health()["ready"]

    async with running(engine):
        await wait_until_async(lambda: engine.health()["ready"], bench.settle_s)
        lag_s = engine.health()["lag_s"]

    assert (False, 0.0) == (before, lag_s)


async def stream_of(bench: EngineBench, topic: str) -> str:
    """The stream of a topic, as a bulk handler is told it."""
    streams: list[str] = []

    class Asker(Taker):
        async def assign(
            self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
        ) -> Mapping[str, int]:
            streams.append(ends[topic].stream)
            return {name: end.next for name, end in ends.items()}

    engine = await bench.engine()
    engine.bulk([topic], Asker(), "asker")
    async with running(engine):
        await wait_until_async(lambda: streams, bench.settle_s)
    return streams[0]


def sums_view(bench: EngineBench, key: str) -> int | None:
    """What readers may see of a key at this moment."""
    view = bench.checkpoints.view("watch", key)
    return view["sum"] if view else None
