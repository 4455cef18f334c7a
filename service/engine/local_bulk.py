"""`bulk` on the embedded log: whole batches, one after the other, committed after each."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from service.crash import crash_point
from service.engine.base import Batch, Bulk
from service.engine.local_access import LogAccess
from service.engine.local_batches import Stretch
from service.engine.local_readers import LogReader, Share
from service.engine.retry import Retry, Stopped

TICK_S = 1.0
"""How often a handler is called with nothing to take in, in seconds."""


class BulkReader(LogReader):
    """Gives a handler the batches of one partition; nothing is read ahead of what it took in."""

    def __init__(
        self,
        share: Share,
        handler: Bulk,
        access: LogAccess,
        retry: Retry,
        stopping: asyncio.Event,
    ) -> None:
        super().__init__(share, access, retry, stopping)
        self._handler = handler
        self._next: dict[str, int] = {}
        self._tick_at_s = 0.0

    async def run(self) -> None:
        """Open the partition, read up to the present topic by topic, then all together."""
        while not self._stopping.is_set():
            try:
                await self._assign()
                await self._serve()
            except Stopped:
                return
            finally:
                if self.owned:
                    self.owned = False
                    await self._handler.revoke(self.share.partition)

    async def _assign(self) -> None:
        await self._look()
        share, committed, ends = self.share, dict(self._committed), dict(self._ends)
        wanted = await self._retry.insist(
            "assign", lambda: self._handler.assign(share.partition, committed, ends)
        )
        self.owned = True
        self._next = self._checked(wanted)
        await self._fetch(self._next, limit=1)  # how far behind it is
        self._tick_at_s = asyncio.get_running_loop().time() + TICK_S

    async def _serve(self) -> None:
        """Return when the engine stops, or a topic was made again."""
        for topic, end in self._ends.items():
            while (left := end.next - self._next[topic]) > 0 and not self._stopping.is_set():
                wanted = {topic: self._next[topic]}
                found = await self._fetch(wanted, min(left, self.share.max_records))
                if not found:
                    return
                await self._take(found)
        while not self._stopping.is_set():
            self._bell.hush()
            found = await self._fetch(self._next)
            if found is None:
                return
            if found:
                await self._take(found)
            left_s = self._tick_at_s - asyncio.get_running_loop().time()
            if left_s <= 0:
                self._tick_at_s += max(TICK_S, TICK_S - left_s)
                await self._handle([])
            elif not found:
                await self._bell.wait(left_s)

    async def _take(self, found: Mapping[str, Stretch]) -> None:
        batches = [
            Batch(
                topic,
                self.share.partition,
                stretch.stream,
                range(stretch.base, stretch.base + len(stretch.keys)),
                stretch.times_ms,
                stretch.keys,
                stretch.values,
            )
            for topic, stretch in found.items()
        ]
        crash_point("K1")
        await self._handle(batches)
        for batch in batches:
            self._next[batch.topic] = batch.offsets[-1] + 1

    async def _handle(self, batches: Sequence[Batch]) -> None:
        positions = await self._retry.insist(
            "handle", lambda: self._handler.handle(self.share.partition, batches)
        )
        if batches:
            crash_point("K2")
            crash_point("K3")
        await self._commit(positions)
        if batches:
            crash_point("K4")
