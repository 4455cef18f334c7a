"""`bulk` on Kafka: whole fetches as columns, committed after each with the stream's name."""

from __future__ import annotations

from collections.abc import Mapping
from operator import attrgetter
from typing import cast

from aiokafka import TopicPartition

from service.crash import crash_point
from service.engine.base import Batch, Bulk, Position
from service.engine.kafka_client import Cluster
from service.engine.kafka_share import Fetched, Share

_offset, _timestamp = attrgetter("offset"), attrgetter("timestamp")
_key, _value = attrgetter("key"), attrgetter("value")


def _filled(column: list[bytes | None]) -> list[bytes]:
    """Empty bytes in place of none."""
    if None in column:
        return [item or b"" for item in column]
    return cast(list[bytes], column)


class BulkWorker:
    """Gives one handler the batches of every share."""

    tick_s = 1.0
    one_after_the_other = True
    keeps = True
    failing = ()

    def __init__(self, handler: Bulk, cluster: Cluster, group: str) -> None:
        self._handler = handler
        self._cluster = cluster
        self._group = group
        self._found: dict[int, dict[str, Position]] = {}

    async def claim(self, share: Share) -> None:
        """Ask what was committed."""
        parts = {TopicPartition(self._cluster.real(t), share.partition): t for t in share.topics}
        found = await self._cluster.committed(self._group, list(parts))
        self._found[share.partition] = {parts[part]: at for part, at in found.items()}

    async def open(self, share: Share) -> Mapping[str, int]:
        """Tell the handler what was committed of these streams, and where they begin and end."""
        committed = {}
        for topic, at in self._found.pop(share.partition).items():
            stream = share.ends[topic].stream
            if at.stream in (stream, ""):  # none: an operator moved it with Kafka's own tools
                committed[topic] = at._replace(stream=stream)
        return await self._handler.assign(share.partition, committed, dict(share.ends))

    async def take(self, share: Share, fetched: Fetched) -> None:
        """Hand over one batch per topic, in the order the topics were named."""
        batches = [
            Batch(
                topic,
                share.partition,
                share.ends[topic].stream,
                list(map(_offset, fetched[topic])),
                list(map(_timestamp, fetched[topic])),
                _filled(list(map(_key, fetched[topic]))),
                _filled(list(map(_value, fetched[topic]))),
            )
            for topic in share.topics
            if topic in fetched
        ]
        if batches:
            crash_point("K1")
        positions = await self._handler.handle(share.partition, batches)
        if batches:
            crash_point("K2")
            crash_point("K3")
        share.commits.update(positions)

    async def close(self, share: Share, lost: bool) -> None:
        """Let the handler close; what it took in is committed by the group."""
        await self._handler.revoke(share.partition)

    def committed(self) -> None:
        """Pass the kill point behind the commit."""
        crash_point("K4")

    def interrupt(self, stop: bool) -> None:
        """Nothing waits here: a handler that fails is called again by the group's next turns."""
