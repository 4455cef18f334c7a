"""One partition number of all topics of a group, while this process owns it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from service.engine.base import Ends, Position

Fetched = dict[str, list[Any]]
"""Messages of one partition number by our topic names, as aiokafka gives them."""


class Share:
    """What the group knows of a partition number it owns; the handler's own memory is elsewhere."""

    def __init__(self, partition: int, topics: Sequence[str], now_s: float) -> None:
        self.partition = partition
        self.topics = list(topics)
        """Our names, in the order they were named."""
        self.ends: dict[str, Ends] = {}
        self.next: dict[str, int] = {}
        """Our own positions: the next offset of each topic that was not handed over yet."""
        self.opened = False
        self.behind: list[str] = []
        """Topics that are still to be read up to their ends, one after the other."""
        self.kept: Fetched = {}
        """What was fetched and is not taken in yet."""
        self.commits: dict[str, Position] = {}
        """What is to be committed at the end of this turn."""
        self.failing = False
        self.waits_until_s = 0.0
        self.ticked_s = now_s
        self.since_s = now_s
        self.time_ms = 0
        """Broker time of the last message that was taken in, epoch ms."""

    def due(self, now_s: float, tick_s: float) -> bool:
        """Whether there is something to do for it."""
        if now_s < self.waits_until_s:
            return False
        return bool(self.kept) or not self.opened or self.tick_due(now_s, tick_s)

    def tick_due(self, now_s: float, tick_s: float) -> bool:
        """Whether its handler is to be called with nothing; never while it catches up."""
        return self.opened and not self.behind and now_s - self.ticked_s >= tick_s


class Worker(Protocol):
    """What `bulk` and `keyed` do differently."""

    tick_s: float
    """How often a handler is called with nothing, seconds."""
    one_after_the_other: bool
    """At assignment, read each topic up to its end before the next one."""
    keeps: bool
    """A failed share keeps its messages and tries again; else it is opened again from the start."""

    @property
    def failing(self) -> Sequence[str]:
        """What does not work at the moment, beyond what the group itself tries again."""
        ...

    async def claim(self, share: Share) -> None:
        """Find out what the last owner left, before the ends are asked for.

        In this order, since a process that stands still in between must not find positions beyond
        the ends it knows, and take that for lost messages.
        """
        ...

    async def open(self, share: Share) -> Mapping[str, int]:
        """Open the partition's state; return the next offset to read of each topic."""
        ...

    async def take(self, share: Share, fetched: Fetched) -> None:
        """Take in messages; none is the tick."""
        ...

    async def close(self, share: Share, lost: bool) -> None:
        """Close the partition's state; `lost`: without storing anything."""
        ...

    def committed(self) -> None:
        """Take note that the group committed positions."""
        ...

    def interrupt(self, stop: bool) -> None:
        """Make waiting for storage or brokers end (True), since the shares are to be given up."""
        ...
