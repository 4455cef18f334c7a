"""The embedded log as awaitable verbs: one thread writes, one reads, the event loop never waits.

Why. A commit waits for the disk; on the event loop it would stop every role of the process. And
many small appends at once should cost one commit, not one each.

How. The writer thread takes everything that is asked for at the moment and writes it in one
transaction (*group commit*). The reader thread serves reads, and every 20 ms asks SQLite whether
another connection has written; a `Bell` wakes whoever reads a topic that grew. Inside the process
the bell rings as soon as a commit is durable.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from service.clock import Clock
from service.engine.base import Ends, EngineFault, Message, Position
from service.engine.local_batches import Append, Stretch
from service.engine.local_log import Commit, LocalLog

T = TypeVar("T")

LOOK_EVERY_S = 0.02
"""How often the reader looks for what other processes wrote: their messages wait that long."""
GROUP_JOBS = 256
"""Most appends and commits that share one transaction."""
GROUP_MESSAGES = 50_000
"""A transaction takes no further append once it holds this many messages."""


class Bell:
    """Rings when one of its topics grew, or the engine stops."""

    def __init__(self, topics: Collection[str]) -> None:
        self.topics = frozenset(topics)
        self._rung = asyncio.Event()

    def ring(self) -> None:
        """Wake whoever waits, now or next."""
        self._rung.set()

    def hush(self) -> None:
        """Forget earlier rings; call it before reading, so that none is missed."""
        self._rung.clear()

    async def wait(self, timeout_s: float) -> None:
        """Return when it rang, at the latest after `timeout_s` seconds."""
        if timeout_s > 0 and not self._rung.is_set():
            try:
                await asyncio.wait_for(self._rung.wait(), timeout_s)
            except TimeoutError:
                return


class _Job(NamedTuple):
    done: asyncio.Future[Any]
    work: Callable[[LocalLog], Any] | tuple[str, Sequence[Message]] | Commit


class LogAccess:
    """The log in a folder, for one event loop. Every verb raises EngineFault as `LocalLog` does."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._writes: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._reads: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []
        self._bells: list[Bell] = []

    @property
    def is_open(self) -> bool:
        """Whether `open` succeeded and `close` was not called."""
        return bool(self._threads)

    async def open(self) -> None:
        """Open both connections and start both threads."""
        self._loop = asyncio.get_running_loop()
        writer, reader = await asyncio.to_thread(
            lambda: (LocalLog(self._folder), LocalLog(self._folder))
        )
        for name, target, log in (
            ("log-writer", self._write_on, writer),
            ("log-reader", self._read_on, reader),
        ):
            thread = threading.Thread(target=target, args=(log,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    async def close(self) -> None:
        """Finish what was asked for, then end both threads."""
        threads, self._threads = self._threads, []
        if threads:
            self._writes.put(None)
            self._reads.put(None)
        for thread in threads:
            await asyncio.to_thread(thread.join)

    def bell(self, topics: Collection[str]) -> Bell:
        """Make a bell for these topics."""
        bell = Bell(topics)
        self._bells.append(bell)
        return bell

    def ring(self, topics: Collection[str] | None = None) -> None:
        """Ring the bells of these topics; of all, by default."""
        for bell in self._bells:
            if topics is None or not bell.topics.isdisjoint(topics):
                bell.ring()

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Write messages; durable on return."""
        if messages:
            await self._ask(self._writes, (topic, messages))

    async def commit(self, reader: str, partition: int, positions: Mapping[str, Position]) -> None:
        """Store positions of a group; durable on return."""
        await self._ask(self._writes, Commit(reader, partition, positions))

    async def fetch(
        self, partition: int, ends: Mapping[str, Ends], wanted: Mapping[str, int], limit: int
    ) -> dict[str, Stretch] | None:
        """Read up to `limit` messages of each topic from its wanted offset on.

        Parameters
        ----------
        ends : mapping of str to Ends
            The streams as they were at assignment.
        wanted : mapping of str to int
            Offset to read from, by topic.

        Returns
        -------
        dict of str to Stretch, or None
            Topics with nothing new are left out. None: one of them was made again.
        """

        def read(log: LocalLog) -> dict[str, Stretch] | None:
            found = {}
            for topic, offset in wanted.items():
                stream = log.stream(topic)
                if stream is None:
                    continue  # deleted; it may be made again
                if stream != ends[topic].stream:
                    return None
                if stretch := log.read(topic, partition, offset, limit):
                    found[topic] = stretch
            return found

        return await self.look(read)

    async def look(self, work: Callable[[LocalLog], T]) -> T:
        """Call `work` in the reader thread."""
        answer: T = await self._ask(self._reads, work)
        return answer

    async def change(self, work: Callable[[LocalLog], T]) -> T:
        """Call `work` in the writer thread, in turn with appends."""
        answer: T = await self._ask(self._writes, work)
        return answer

    async def _ask(self, jobs: queue.SimpleQueue[_Job | None], work: Any) -> Any:
        if not self._threads:
            raise EngineFault("the local engine is not running: call start first")
        done = self._loop.create_future()
        jobs.put(_Job(done, work))
        return await done

    def _write_on(self, log: LocalLog) -> None:
        job: _Job | None
        while (job := self._writes.get()) is not None:
            group: list[tuple[_Job, Append | Commit]] = []
            size = 0
            while job is not None:
                if callable(job.work):
                    self._write(log, group)
                    group, size = [], 0
                    self._answer(log, job, job.work)
                elif isinstance(job.work, Commit):
                    group.append((job, job.work))
                elif append := self._encoded(log, job, job.work):
                    group.append((job, append))
                    size += sum(blob.length for blob in append.blobs)
                if len(group) >= GROUP_JOBS or size >= GROUP_MESSAGES:
                    break
                try:
                    job = self._writes.get_nowait()
                except queue.Empty:
                    break
            self._write(log, group)
            if job is None:
                break
        log.close()

    def _encoded(
        self, log: LocalLog, job: _Job, work: tuple[str, Sequence[Message]]
    ) -> Append | None:
        try:
            return log.encode(*work)
        except Exception as fault:
            self._tell(_fail, [job], _as_fault(fault))
            return None

    def _write(self, log: LocalLog, group: Sequence[tuple[_Job, Append | Commit]]) -> None:
        if not group:
            return
        jobs = [job for job, _ in group]
        appends = [work for _, work in group if isinstance(work, Append)]
        commits = [work for _, work in group if isinstance(work, Commit)]
        try:
            log.write(appends, commits, self._clock.now_ms())
        except Exception as fault:
            self._tell(_fail, jobs, _as_fault(fault))
        else:
            self._tell(self._written, jobs, {append.topic for append in appends})

    def _read_on(self, log: LocalLog) -> None:
        version, grown, looked_s = -1, log.grown(), 0.0
        while True:
            try:
                job = self._reads.get(timeout=LOOK_EVERY_S)
            except queue.Empty:
                pass
            else:
                if job is None:
                    break
                self._answer(log, job, job.work)
            now_s = time.monotonic()
            if now_s - looked_s < LOOK_EVERY_S:
                continue
            looked_s = now_s
            with contextlib.suppress(sqlite3.Error):  # whoever reads next is told
                if (now := log.version()) != version:
                    version, before, grown = now, grown, log.grown()
                    if changed := {name for name, at in grown.items() if before.get(name) != at}:
                        self._tell(self.ring, changed)
        log.close()

    def _answer(self, log: LocalLog, job: _Job, work: Any) -> None:
        try:
            answer = work(log)
        except Exception as fault:
            self._tell(_fail, [job], _as_fault(fault))
        else:
            self._tell(_finish, [job], answer)

    def _written(self, jobs: Sequence[_Job], topics: Collection[str]) -> None:
        _finish(jobs, None)
        self.ring(topics)

    def _tell(self, what: Callable[..., None], *arguments: Any) -> None:
        try:
            self._loop.call_soon_threadsafe(what, *arguments)
        except RuntimeError:
            return  # the loop is closed: nobody waits for an answer any more


def _finish(jobs: Sequence[_Job], answer: Any) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_result(answer)


def _fail(jobs: Sequence[_Job], fault: Exception) -> None:
    for job in jobs:
        if not job.done.done():
            job.done.set_exception(fault)


def _as_fault(fault: Exception) -> Exception:
    if isinstance(fault, sqlite3.Error):
        return EngineFault(
            f"the log could not be used ({fault}); check free space and the file's health"
        )
    return fault
