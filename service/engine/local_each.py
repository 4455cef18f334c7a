"""`each` on the embedded log: one message after the other, committed after each."""

from __future__ import annotations

import asyncio

from service.engine.base import Each, Position, Record
from service.engine.local_access import LogAccess
from service.engine.local_readers import LogReader, Share, as_records
from service.engine.retry import Retry, Stopped

LOOK_S = 1.0
"""Longest wait for a bell, in seconds."""


class EachReader(LogReader):
    """Calls a handler with every message of one partition until it returns."""

    def __init__(
        self,
        share: Share,
        handler: Each,
        access: LogAccess,
        retry: Retry,
        stopping: asyncio.Event,
    ) -> None:
        super().__init__(share, access, retry, stopping)
        self._handler = handler
        (self._topic,) = share.topics

    async def run(self) -> None:
        """Read on from what the group committed, or from the beginning."""
        while not self._stopping.is_set():
            try:
                await self._look()
                await self._serve()
            except Stopped:
                return
            finally:
                self.owned = False

    async def _serve(self) -> None:
        """Return when the engine stops, or the topic was made again."""
        topic, end = self._topic, self._ends[self._topic]
        committed = self._committed.get(topic)
        known = committed is not None and committed.stream == end.stream
        start = committed.offset if committed and known else end.first
        offset = self._checked({topic: start})[topic]
        self.owned = True
        while not self._stopping.is_set():
            self._bell.hush()
            found = await self._fetch({topic: offset})
            if found is None:
                return
            if not found:
                await self._bell.wait(LOOK_S)
                continue
            for record in as_records(topic, self.share.partition, found[topic]):
                if self._stopping.is_set():
                    return
                await self._handle(record)
                offset = record.offset + 1
                await self._commit({topic: Position(end.stream, offset)})

    async def _handle(self, record: Record) -> None:
        self._oldest_ms[self._topic] = record.time_ms
        await self._retry.insist("handle", lambda: self._handler(record))
