"""Kill real workers under load, and compare what they say with what was sent.

The truth is what this module sent, never what a worker reports: every row's number is added up
here too. After the faults it waits until the checkpoints hold every row, then reads them and the
topics once more: nothing may be missing, nothing counted twice, and what has one id has one text.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import sys
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import NamedTuple

from service.crash import VARIABLE
from service.engine.base import Engine, Message
from tests.contracts.engines import EngineBench
from tests.real import Process, start_process, wait_until_async

MODELS = 12
BOOT_S = 20.0
"""Longest start of a worker process on a busy machine, in seconds."""


class Survived(NamedTuple):
    """What a run under faults came to."""

    rows: int
    kills: int
    takeovers_s: list[float]
    """From each kill of a group at rest until every partition of the killed worker was taken in
    again, ascending."""
    repeats: int
    """Rows that were said again and dropped by name."""

    @property
    def median_s(self) -> float:
        """The median takeover, the lower one of two; seconds."""
        return self.takeovers_s[(len(self.takeovers_s) - 1) // 2]

    def __str__(self) -> str:
        measured = ", ".join(f"{takeover_s:.2f}" for takeover_s in self.takeovers_s)
        return (
            f"{self.rows} rows, {self.kills} kills, takeover p50 {self.median_s:.2f} s of "
            f"[{measured}] s, {self.repeats} rows repeated and dropped"
        )


class Load:
    """Sends numbered predictions of some models until it is told to end, and adds them up."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.sums: dict[str, int] = defaultdict(int)
        self.counts: dict[str, int] = defaultdict(int)
        self._ending = asyncio.Event()
        self._sending = asyncio.create_task(self._send(at_least=600))

    async def end(self) -> None:
        self._ending.set()
        await self._sending

    def abandon(self) -> None:
        self._sending.cancel()

    async def _send(self, at_least: int) -> None:
        number = 0
        while not self._ending.is_set() or number < at_least:
            batch = []
            for _ in range(20):
                number += 1
                model = f"m{number % MODELS}"
                value = json.dumps({"model": model, "number": number}).encode()
                batch.append(Message(f"p{number}".encode(), value))
                self.sums[model] += number
                self.counts[model] += 1
            await self.engine.append("predictions", batch)
            await asyncio.sleep(0.03)


class Workers:
    """Worker processes of one bench; each start appends to a log file of its own."""

    def __init__(self, bench: EngineBench, home: Path) -> None:
        self._address = json.dumps(bench.address())
        self._home = home
        self._started = 0
        self.running: list[Process] = []

    def start(self, env: Mapping[str, str] | None = None) -> Process:
        self._started += 1
        command = [sys.executable, "-m", "tests.contracts.keyed_worker", self._address]
        process = start_process(
            command, self._home / f"worker-{self._started}.log", env, Path.cwd()
        )
        self.running.append(process)
        return process

    def kill(self, process: Process) -> None:
        self.running.remove(process)
        process.kill()

    def stop(self) -> list[int]:
        """End all as an operator would; their exit codes."""
        stopped, self.running = self.running, []
        return [process.stop() for process in stopped]

    def taken(self) -> dict[int, tuple[int, Path]]:
        """Highest epoch of each partition of which a worker took in a record, and its log."""
        found: dict[int, tuple[int, Path]] = {}
        for log in self._home.glob("worker-*.log"):
            for number, text in re.findall(r"^took (\d+) (\d+)$", log.read_text(), re.MULTILINE):
                found[int(number)] = max(found.get(int(number), (0, log)), (int(text), log))
        return found

    def last_words(self) -> str:
        logs = sorted(self._home.glob("worker-*.log"))
        return "\n".join(f"{log.name}: {log.read_text()[-1500:]}" for log in logs[-3:])


async def kill_under_load(bench: EngineBench, home: Path, seed: int, kills: int = 10) -> Survived:
    """Kill a random worker `kills` times, start another each time, verify.

    Every other kill comes at a random moment, also while a group is joining: then only what is
    counted matters. The others wait until the groups are at rest, and the takeover is measured.

    Raises
    ------
    AssertionError
        When a row is missing or counted twice, or a worker took too long to take over.
    """
    chance = random.Random(seed)
    workers = Workers(bench, home)
    takeovers_s: list[float] = []
    async with loading(bench, workers) as load:
        for count in range(1, 3 if bench.shares else 2):
            workers.start()
            await _all_share(bench, workers, count)
        for number in range(kills):
            measured = number % 2 == 0
            if measured:
                await at_rest(bench, workers)
            await asyncio.sleep(chance.uniform(0.05, 0.8))
            victim = chance.choice(workers.running)
            before = {
                number: epoch
                for number, (epoch, log) in workers.taken().items()
                if log == victim.log
            }
            workers.kill(victim)
            killed_at_s = time.monotonic()
            workers.start()
            await _all_taken(bench, workers, before)
            if before and measured:
                takeovers_s.append(time.monotonic() - killed_at_s)
        return await _verify(bench, workers, load, kills, takeovers_s)


async def crash_under_load(bench: EngineBench, home: Path, point: str, passage: int) -> Survived:
    """Let one worker end itself at a kill point (service/crash.py), start another, verify."""
    workers = Workers(bench, home)
    async with loading(bench, workers) as load:
        doomed = workers.start({VARIABLE: f"{point}:{passage}"})
        await wait_until_async(
            lambda: not doomed.alive, BOOT_S, what=f"it ends itself at {point}:{passage}"
        )
        assert -9 == doomed.child.returncode, doomed.output()
        workers.running.remove(doomed)
        ended_at_s = time.monotonic()
        before = {number: epoch for number, (epoch, _) in workers.taken().items()}
        workers.start()
        await _all_taken(bench, workers, before)
        takeover_s = time.monotonic() - ended_at_s
        return await _verify(bench, workers, load, 1, [takeover_s])


@contextlib.asynccontextmanager
async def loading(bench: EngineBench, workers: Workers) -> AsyncIterator[Load]:
    """Send load while the block lasts; end whatever worker is left after it."""
    engine = await bench.engine()
    await engine.start()
    load = Load(engine)
    try:
        yield load
    except (AssertionError, TimeoutError) as fault:
        fault.add_note(workers.last_words())
        raise
    finally:
        load.abandon()
        await engine.stop()
        for process in list(workers.running):
            workers.kill(process)


async def at_rest(bench: EngineBench, workers: Workers) -> None:
    """Wait until the broker says that every group has its members and hands nothing over."""

    async def resting() -> bool:
        return await bench.at_rest(len(workers.running))

    # What was killed while it joined is counted for two sessions.
    limit_s = BOOT_S + 2 * bench.takeover_max_s
    await wait_until_async(resting, limit_s, every_s=0.2, what="all groups are at rest")


async def _all_share(bench: EngineBench, workers: Workers, count: int) -> None:
    """Wait until all partitions are taken in, by `count` workers."""

    def shared() -> bool:
        found = workers.taken()
        owners = {log for _, log in found.values()}
        return len(found) == bench.partitions and len(owners) == count

    await wait_until_async(shared, 2 * BOOT_S, what=f"{count} workers share all partitions")


async def _all_taken(bench: EngineBench, workers: Workers, before: Mapping[int, int]) -> None:
    """Wait until every partition (of those in `before`, if any) has a record-taking new owner."""

    def taken() -> bool:
        now = workers.taken()
        wanted = before or dict.fromkeys(range(bench.partitions), 0)
        return all(number in now and now[number][0] > wanted[number] for number in wanted)

    await wait_until_async(
        taken, BOOT_S + bench.takeover_max_s, what="all partitions are taken over"
    )


async def _verify(
    bench: EngineBench, workers: Workers, load: Load, kills: int, takeovers_s: list[float]
) -> Survived:
    await load.end()
    await wait_until_async(
        lambda: _counts(bench) == load.counts,
        BOOT_S + bench.takeover_max_s,
        every_s=0.2,
        what="every row is in a checkpoint",
    )
    breaches = await _texts(load.engine, "breaches")
    ids = {f"{key}-{n}" for key, count in load.counts.items() for n in range(10, count + 1, 10)}
    assert ids == breaches.keys()
    assert all(len(texts) == 1 for texts in breaches.values()), "one id, two decisions"

    async def acted() -> bool:
        return ids == (await _texts(load.engine, "receipts")).keys()

    # An app that does not take part any more is noticed after three sessions.
    limit_s = BOOT_S + 3 * bench.takeover_s
    try:
        await wait_until_async(acted, limit_s, every_s=0.2, what="every breach was acted on")
    except TimeoutError as fault:
        fault.add_note(f"not acted on: {await _unanswered(load.engine)}")
        raise
    assert set(workers.stop()) == {0}, workers.last_words()
    states = [
        json.loads(state)
        for partition in range(bench.partitions)
        for state in bench.checkpoints.claim("watch", partition).states.values()
    ]
    assert dict(load.sums) == {state["key"]: state["sum"] for state in states}
    assert dict(load.counts) == {state["key"]: state["n"] for state in states}
    repeats = sum(state["repeats"] for state in states)
    return Survived(sum(load.counts.values()), kills, sorted(takeovers_s), repeats)


def _counts(bench: EngineBench) -> dict[str, int]:
    return {view["key"]: view["n"] for view in bench.checkpoints.views("watch")}


async def _unanswered(engine: Engine) -> list[str]:
    """Place and name of each breach without a receipt."""
    answered = await _texts(engine, "receipts")
    said = {
        (record.partition, record.offset): json.loads(record.value)["id"]
        for record in await engine.read("breaches")
    }
    return [
        f"{partition}/{offset} {name}"
        for (partition, offset), name in sorted(said.items())
        if name not in answered
    ]


async def _texts(engine: Engine, topic: str) -> dict[str, set[bytes]]:
    found: dict[str, set[bytes]] = defaultdict(set)
    for record in await engine.read(topic):
        found[json.loads(record.value)["id"]].add(record.value)
    return found
