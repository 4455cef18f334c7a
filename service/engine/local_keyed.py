"""`keyed` on the embedded log: an owner of each partition, fed from its checkpoint's cursor on."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import replace

from service.engine.base import EngineFault
from service.engine.local_access import LogAccess
from service.engine.local_readers import LogReader, Share, as_records
from service.engine.owner import Owner, Stage
from service.engine.retry import Stopped

TICK_S = 0.25
"""How often a handler is called with nothing to take in, in seconds."""


class KeyedReader(LogReader):
    """Feeds the owner of one partition; opens it again from its checkpoint when a handler raises.

    The positions it commits to the log are advisory: they keep unread messages from being deleted.
    """

    def __init__(
        self, share: Share, stage: Stage, access: LogAccess, stopping: asyncio.Event
    ) -> None:
        super().__init__(share, access, stage.retry, stopping)
        self._stage = replace(stage, append=access.append)
        self._owner = Owner(self._stage, share.partition)

    async def run(self) -> None:
        """Own the partition until the engine stops.

        Raises
        ------
        EngineFault
            On a hole in the offsets, or when another installation took the partition over.
        """
        while not self._stopping.is_set():
            try:
                await self._open()
                await self._serve()
                await self._owner.close()
                await self._commit(self._owner.saved)
            except Stopped:
                return
            except EngineFault:
                raise
            except Exception as fault:
                with contextlib.suppress(Stopped):
                    await self._retry.pause("process", fault)
            finally:
                self.owned = False
                await self._owner.drop()  # what it had in memory may be half of a batch

    async def _open(self) -> None:
        await self._look()
        await self._retry.insist("open", self._claim_and_open, passes=(EngineFault,))
        self.owned = True

    async def _claim_and_open(self) -> None:
        await self._owner.claim()
        await self._owner.open(self._ends)

    async def _serve(self) -> None:
        """Return when the engine stops, or a topic was made again."""
        loop = asyncio.get_running_loop()
        tick_at_s = loop.time() + TICK_S
        while not self._stopping.is_set():
            self._bell.hush()
            found = await self._fetch(self._owner.next)
            if found is None:
                return
            if found:
                await self._owner.take(
                    [
                        record
                        for topic, stretch in found.items()
                        for record in as_records(topic, self.share.partition, stretch)
                    ]
                )
                self._retry.worked("process")
            left_s = tick_at_s - loop.time()
            if left_s <= 0:
                tick_at_s += max(TICK_S, TICK_S - left_s)
                await self._owner.take([])
            elif not found:
                await self._bell.wait(left_s)
            await self._commit(self._owner.saved)
