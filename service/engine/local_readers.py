"""What the local engine's readers share: one partition of one group, read from the embedded log."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from service.engine.base import Ends, EngineFault, Headers, Position, Record
from service.engine.local_access import LogAccess
from service.engine.local_batches import Stretch
from service.engine.local_log import LocalLog
from service.engine.retry import Retry


@dataclass(frozen=True)
class Share:
    """One partition of some topics, for one group."""

    group: str
    topics: Sequence[str]
    partition: int
    max_records: int


class LogReader:
    """Reads a share and commits its positions; the verbs add what a handler is given.

    Parameters
    ----------
    share : Share
    access : LogAccess
        Open.
    retry : Retry
        The group's.
    stopping : asyncio.Event
        Once set (and the bells rung), `run` ends when its handler has returned.
    """

    def __init__(
        self, share: Share, access: LogAccess, retry: Retry, stopping: asyncio.Event
    ) -> None:
        self.share = share
        self.owned = False
        """Whether its handler was given the partition."""
        self._access = access
        self._retry = retry
        self._stopping = stopping
        self._bell = access.bell(share.topics)
        self._ends: dict[str, Ends] = {}
        self._committed: dict[str, Position] = {}
        self._oldest_ms: dict[str, int] = {}

    async def run(self) -> None:
        """Serve the handler until the engine stops. Raises EngineFault."""
        raise NotImplementedError

    def lag_s(self, now_ms: int) -> float:
        """Age of the oldest message that is not taken in, in seconds; 0 when there is none."""
        oldest = min(self._oldest_ms.values(), default=now_ms)
        return max(0.0, (now_ms - oldest) / 1000)

    async def _look(self) -> None:
        """Find the topics' ends and what the group committed of them."""
        share = self.share

        def look(log: LocalLog) -> tuple[dict[str, Ends], dict[str, Position]]:
            ends = {topic: log.ends(topic, share.partition) for topic in share.topics}
            return ends, log.positions(share.group, share.partition)

        ends, found = await self._access.look(look)
        unread = {
            topic: Position(end.stream, end.first)
            for topic, end in ends.items()
            if topic not in found or found[topic].stream != end.stream
        }
        if unread:
            # What has no position could be deleted unread, also before the next line.
            await self._access.commit(share.group, share.partition, unread)
            ends, _ = await self._access.look(look)
        self._ends = ends
        self._committed = {topic: at for topic, at in found.items() if topic in ends}

    async def _fetch(
        self, wanted: Mapping[str, int], limit: int | None = None
    ) -> dict[str, Stretch] | None:
        """Read what is next of each wanted topic; None when a topic was made again."""
        share = self.share
        limit = share.max_records if limit is None else limit
        found = await self._access.fetch(share.partition, self._ends, wanted, limit)
        for topic in wanted:
            stretch = found.get(topic) if found else None
            if stretch:
                self._oldest_ms[topic] = stretch.times_ms[0]
            else:
                self._oldest_ms.pop(topic, None)
        return found

    async def _commit(self, positions: Mapping[str, Position]) -> None:
        changed = {topic: at for topic, at in positions.items() if self._committed.get(topic) != at}
        if changed:
            share = self.share
            await self._retry.insist(
                "commit", lambda: self._access.commit(share.group, share.partition, changed)
            )
            self._committed.update(changed)

    def _checked(self, wanted: Mapping[str, int]) -> dict[str, int]:
        """Bring wanted offsets into what the topics hold, or say why that would lose messages."""
        offsets = {}
        for topic, end in self._ends.items():
            offset = wanted.get(topic, end.first)
            if offset > end.next:
                raise EngineFault(
                    f"{self.share.group}: position {offset} of {topic}[{self.share.partition}] "
                    f"lies beyond its end {end.next}: the log is older than what was read of it; "
                    "restore the log, or the reader's state from the same backup"
                )
            offsets[topic] = max(offset, end.first)
        return offsets


def as_records(topic: str, partition: int, stretch: Stretch) -> list[Record]:
    """Turn columns into single records."""
    headers: Sequence[Headers] = stretch.headers or [()] * len(stretch.keys)
    columns = zip(stretch.times_ms, stretch.keys, stretch.values, headers, strict=True)
    return [
        Record(topic, partition, stretch.base + at, *column) for at, column in enumerate(columns)
    ]
