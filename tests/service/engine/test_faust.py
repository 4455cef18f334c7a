"""`each` and `lead` on a real broker: nothing is acknowledged before it is done; one leader."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from service.clock import WallClock
from service.engine.base import Message, Record
from tests.contracts.tally import running
from tests.real import Process, run_process, wait_until, wait_until_async
from tests.service.engine.kafka_bench import Bench, counted

LIMIT_S = 30.0
TAKEOVER_S = 16.0
"""A session of 6 s, a heartbeat of 2 s by which the others hear of it, the joining; and as much
again on a machine that is busy."""


async def test_a_record_is_whole(kafka: str) -> None:
    """If this breaks, a signature in a header is gone, or an empty message is not seen."""
    bench = Bench(kafka)
    await bench.make_topics()
    seen: list[Record] = []

    async def handler(record: Record) -> None:
        seen.append(record)

    engine = bench.engine()
    engine.each("orders", handler, "act")
    sent = [
        Message(b"m", b"\x00\xff not text", headers=[("sig", b"\x01"), ("sig", b"\x02")]),
        Message(b"m", b""),
    ]
    before_ms = WallClock().now_ms()
    async with running(engine):
        await engine.append("orders", sent)
        await bench.produce("orders", [b"without a key"])
        await wait_until_async(lambda: len(seen) == 3, LIMIT_S)

    by_value = {record.value: record for record in seen}
    first = by_value[b"\x00\xff not text"]
    assert ("orders", b"m", (("sig", b"\x01"), ("sig", b"\x02"))) == (
        first.topic,
        first.key,
        tuple(first.headers),
    )
    assert 0 <= first.time_ms - before_ms < 10_000
    assert (1, b"m") == (by_value[b""].offset - first.offset, by_value[b""].key)
    assert b"" == by_value[b"without a key"].key


async def test_what_was_not_done_at_a_stop_comes_again(kafka: str) -> None:
    """If this breaks, a deployment of rollbackd in the middle of a rollback forgets it."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    refusing = True

    async def handler(record: Record) -> None:
        calls.append(record.value)
        if refusing and record.value == b"2":
            raise ConnectionError("the platform does not answer")

    for round_ in range(2):
        refusing = round_ == 0
        engine = bench.engine()
        engine.each("commands", handler, "act")
        async with running(engine):
            if round_ == 0:
                sent = [Message(b"m", b"%d" % n, partition=0) for n in range(6)]
                await engine.append("commands", sent)
                await wait_until_async(lambda: calls.count(b"2") >= 2, LIMIT_S)
            else:
                await wait_until_async(lambda: b"5" in calls, LIMIT_S)

    assert [b"0", b"1", b"2", b"3", b"4", b"5"] == list(dict.fromkeys(calls))
    assert 1 == calls.count(b"0") == calls.count(b"1")
    assert b"2" == calls[-4]


@pytest.mark.e2e
async def test_a_handler_that_fails_for_long_keeps_its_partition(kafka: str) -> None:
    """If this breaks, a platform that is down for a minute makes commands jump between workers."""
    bench = Bench(kafka)
    await bench.make_topics()
    calls: list[bytes] = []
    until_s = time.monotonic() + 9  # longer than the session

    async def handler(record: Record) -> None:
        calls.append(record.value)
        if time.monotonic() < until_s:
            raise ConnectionError("the platform does not answer")

    engine = bench.engine()
    engine.each("commands", handler, "act")
    async with running(engine):
        await engine.append("commands", [Message(b"m", b"%d" % n, partition=0) for n in range(3)])
        await wait_until_async(lambda: calls, LIMIT_S)
        failing = await wait_until_async(
            lambda: engine.health()["detail"]["act"]["failing"], LIMIT_S
        )
        await wait_until_async(lambda: b"2" in calls, LIMIT_S)

    assert ["handle"] == failing
    assert [b"0", b"1", b"2"] == list(dict.fromkeys(calls))
    assert counted(bench.metrics[-1], "errors", stage="act") >= 3


async def test_two_groups_both_get_every_message(kafka: str) -> None:
    """If this breaks, either the incident log or the platform misses a command."""
    bench = Bench(kafka)
    await bench.make_topics()
    seen: dict[str, list[bytes]] = {"act": [], "record": [], "record-receipts": []}
    engine = bench.engine()
    for topic, group, name in (
        ("commands", "act", "act"),
        ("commands", "record", "record"),
        ("receipts", "record", "record-receipts"),
    ):

        async def handler(record: Record, name: str = name) -> None:
            seen[name].append(record.value)

        engine.each(topic, handler, group)

    async with running(engine):
        await engine.append("commands", [Message(b"m", b"%d" % n) for n in range(5)])
        await engine.append("receipts", [Message(b"m", b"r")])
        await wait_until_async(lambda: sum(map(len, seen.values())) >= 11, LIMIT_S)
        await wait_until_async(lambda: engine.health()["ready"], LIMIT_S)

    five = [b"%d" % n for n in range(5)]
    assert {"act": five, "record": five, "record-receipts": [b"r"]} == seen


class Workers:
    """Worker processes with the same groups."""

    def __init__(self, stack: ExitStack, bench: Bench, home: Path) -> None:
        self._stack, self._bench, self._home = stack, bench, home
        self.processes: dict[str, Process] = {}

    def start(self, name: str) -> Process:
        module = "tests.service.engine.faust_worker"
        command = [sys.executable, "-m", module, self._bench.bootstrap, self._bench.prefix, name]
        started = run_process(command, self._home / f"{name}.log", cwd=Path.cwd())
        self.processes[name] = self._stack.enter_context(started)
        return self.processes[name]

    def led(self, name: str) -> int:
        return self.processes[name].output().count(f"led {name}")

    def acted(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for name, process in self.processes.items():
            for line in process.output().splitlines():
                if line.startswith("acted "):
                    found.setdefault(line.split()[2], []).append(name)
        return found


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as running_:
        yield running_


@pytest.mark.e2e
async def test_one_process_leads_and_another_follows_after_kill_9(
    kafka: str, tmp_path: Path, stack: ExitStack
) -> None:
    """If this breaks, two processes poll Prometheus, or none does after a machine is gone."""
    bench = Bench(kafka)
    await bench.make_topics()
    workers = Workers(stack, bench, tmp_path)
    for name in ("a", "b"):
        workers.start(name)

    async def both() -> bool:
        return await bench.members("lead-poll") == 2

    await wait_until_async(lambda: workers.led("a") + workers.led("b") >= 3, LIMIT_S)
    await wait_until_async(both, 2 * LIMIT_S, every_s=0.5, what="both have joined")
    await asyncio.sleep(2)  # what the one that led alone was still about to do
    before = {name: workers.led(name) for name in ("a", "b")}
    await wait_until_async(
        lambda: sum(workers.led(name) for name in ("a", "b")) >= sum(before.values()) + 10, LIMIT_S
    )
    grown = {name for name in ("a", "b") if workers.led(name) > before[name]}

    assert 1 == len(grown)
    (leader,) = grown
    (other,) = {"a", "b"} - grown
    had = workers.led(other)
    workers.processes[leader].kill()
    killed_s = time.monotonic()
    await wait_until_async(lambda: workers.led(other) > had, 2 * TAKEOVER_S)
    took_s = time.monotonic() - killed_s
    print(f"leader taken over after {took_s:.2f} s")
    assert took_s <= TAKEOVER_S


@pytest.mark.e2e
async def test_commands_survive_kills_in_order(
    kafka: str, tmp_path: Path, stack: ExitStack
) -> None:
    """If this breaks, a rollback that was ordered is never executed, since a process died."""
    bench = Bench(kafka)
    await bench.make_topics()
    chance = random.Random(7)
    workers = Workers(stack, bench, tmp_path)
    workers.start("w0")
    workers.start("w1")
    engine = bench.engine()
    await engine.start()
    sent = 0

    async def all_done() -> bool:
        return {int(r.value) for r in await engine.read("receipts")} == set(range(sent))

    for round_ in range(6):
        for _ in range(40):
            await engine.append(
                "commands", [Message(b"m%d" % (sent % 5), b"%d" % sent, partition=sent % 2)]
            )
            sent += 1
            await asyncio.sleep(chance.uniform(0, 0.05))
        alive = [name for name, process in workers.processes.items() if process.alive]
        workers.processes[chance.choice(alive)].kill()
        fresh = workers.start(f"w{round_ + 2}")
        await wait_until_async(lambda fresh=fresh: "ready" in fresh.output(), LIMIT_S)
        if round_ % 2:
            await wait_until_async(all_done, 60, every_s=0.5, what="every command is answered")
    await engine.stop()
    repeats = sum(len(names) - 1 for names in workers.acted().values())
    print(f"{sent} commands, 6 kills, {repeats} acted on again")
    for process in workers.processes.values():
        if process.alive:
            process.send(signal.SIGTERM)
            wait_until(lambda process=process: not process.alive, 15)
            assert 0 == process.child.returncode, process.output()[-2000:]
