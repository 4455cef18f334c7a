"""What the local engine does every so often: the work of a leader, and deleting what is old."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from service.clock import Clock
from service.engine.base import TOPICS, Action, EngineFault
from service.engine.local_access import LogAccess
from service.engine.local_locks import GroupLock
from service.engine.local_log import LocalLog
from service.engine.retry import Retry

RETAIN_EVERY_S = 60.0
"""How often old batches are deleted, in seconds."""


@dataclass(frozen=True)
class Lead:
    """What only the holder of a lock does; the others ask for it each time, in case it is gone."""

    lock: GroupLock
    every_s: float
    action: Action
    retry: Retry
    stopping: asyncio.Event

    async def run(self) -> None:
        """Act every `every_s` seconds until the engine stops; a failure is logged and counted."""
        loop = asyncio.get_running_loop()
        try:
            while not self.stopping.is_set():
                due_s = loop.time() + self.every_s
                if self.lock.try_acquire():
                    await self._act()
                await pause(self.stopping, due_s - loop.time())
        finally:
            self.lock.release()

    async def _act(self) -> None:
        try:
            await self.action()
        except Exception as fault:
            self.retry.failed("lead", fault)
        else:
            self.retry.worked("lead")


async def keep_log(access: LogAccess, clock: Clock, retry: Retry, stopping: asyncio.Event) -> None:
    """Delete what is older than its topic keeps it and was read by all; until the engine stops."""
    while not stopping.is_set():
        for topic, wanted in TOPICS.items():
            if "retention_s" not in wanted:
                continue
            before_ms = clock.now_ms() - wanted["retention_s"] * 1000

            def retain(log: LocalLog, topic: str = topic, before_ms: int = before_ms) -> int:
                return log.retain(topic, before_ms)

            try:
                await access.change(retain)
            except EngineFault as fault:
                retry.failed(topic, fault)
            else:
                retry.worked(topic)
        await pause(stopping, RETAIN_EVERY_S)


async def pause(stopping: asyncio.Event, seconds: float) -> None:
    """Wait, but not beyond the engine's stop."""
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stopping.wait(), max(seconds, 0.0))
