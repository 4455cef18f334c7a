"""Whether a Faust app that runs still takes part, judged by facts and by nothing it says itself.

Why. A process that was frozen (SIGSTOP, a suspended machine) loses its place in the group. Faust
then does not always take part again: it neither crashes nor handles anything, for ever. What others
know is asked for instead: the cluster, who the members are and what was committed; the clock,
whether this process stood still.

How. `Doubts.look` is a pure function of what was seen and when. Standing still for a session is
reason enough: the group went on without us. Everything else must last for three sessions, more than
any rebalance takes, and twice as long after each time that a new app did not help. While handlers
of a topic are at work, however long, nothing is held against it.

Refused here: acting on an answer that did not come. A cluster that is away is no fault of the app.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple

from aiokafka import TopicPartition
from aiokafka.protocol.offset import OffsetRequest

from service.engine.kafka_client import Cluster

PATIENCE_SESSIONS = 3
MOST_DOUBLINGS = 6


class Stuck(RuntimeError):
    """The app does not take part in its group any more, and is made anew."""


class Seen(NamedTuple):
    """What is known of an app at one moment."""

    assigned: bool
    """Whether it says that it has its share, be it empty."""
    member: bool | None = None
    """Whether the cluster counts it as a member of the group; None: no answer."""
    waiting: frozenset[tuple[str, int, int]] = frozenset()
    """(topic, partition, committed offset) of what is its share and holds messages after that."""
    busy: frozenset[str] = frozenset()
    """Topics of which a handler was at work since the last look."""


class Doubts:
    """Since when something is wrong with an app; it outlives the app.

    Parameters
    ----------
    session_s : float
        Session of the group, seconds, > 0.
    """

    def __init__(self, session_s: float) -> None:
        self._session_s = session_s
        self._since_s: dict[Hashable, float] = {}
        self._looked: tuple[float, float] | None = None
        self._calm_since_s: float | None = None
        self._tries = 0

    def begin(self) -> None:
        """Forget what was seen of the app before."""
        self._since_s, self._looked, self._calm_since_s = {}, None, None

    def look(self, seen: Seen, now_s: float, wall_s: float) -> str | None:
        """Say why the app is to be made anew, if it is.

        Parameters
        ----------
        now_s, wall_s : float
            Monotonic and wall time, seconds; the former stands still on a suspended machine.
        """
        if still := self._stood_still(now_s, wall_s):
            return still
        found = _wrong(seen)
        self._since_s = {what: self._since_s.get(what, now_s) for what in found}
        if not found:
            if self._calm_since_s is None:
                self._calm_since_s = now_s
            if now_s - self._calm_since_s > self._patience_s:
                self._tries = 0
            return None
        self._calm_since_s = None
        for what, since_s in self._since_s.items():
            if now_s - since_s > self._patience_s:
                self._tries = min(self._tries + 1, MOST_DOUBLINGS)
                return f"{found[what]} for {now_s - since_s:.0f} s"
        return None

    @property
    def _patience_s(self) -> float:
        return float(PATIENCE_SESSIONS * self._session_s * 2**self._tries)

    def _stood_still(self, now_s: float, wall_s: float) -> str | None:
        before, self._looked = self._looked, (now_s, wall_s)
        if before is None:
            return None
        still_s = max(now_s - before[0], wall_s - before[1])
        return (
            f"this process stood still for {still_s:.0f} s" if still_s > self._session_s else None
        )


def _wrong(seen: Seen) -> dict[Hashable, str]:
    if not seen.assigned:
        return {"assigned": "no share was assigned"}
    found: dict[Hashable, str] = {}
    if seen.member is False:
        found["member"] = "the group does not count it as a member"
    for topic, partition, committed in seen.waiting:
        if topic not in seen.busy:
            said = f"nothing of {topic}[{partition}] from offset {committed} was handled"
            found[topic, partition, committed] = said
    return found


async def members(cluster: Cluster, group: str) -> frozenset[str] | None:
    """Ask for the ids of a group's members; None when the cluster does not say.

    Raises
    ------
    EngineFault
        When there is no answer.
    """
    found: set[str] = set()
    for reply in await cluster.group_members(group):
        for error, _, _, _, _, all_, *_ in reply.groups:
            if error:
                return None
            found |= {member[0] for member in all_}
    return frozenset(found)


async def waiting(
    cluster: Cluster, group: str, parts: Sequence[TopicPartition]
) -> frozenset[tuple[str, int, int]]:
    """Ask which of these hold messages after the place where the group goes on, and that place.

    Raises
    ------
    EngineFault
        When there is no answer.
    """
    places = await goes_on(cluster, group, parts)
    ends = {part: await _edge(cluster, part, -1) for part in places}
    return frozenset(
        (part.topic, part.partition, place) for part, place in places.items() if ends[part] > place
    )


async def goes_on(
    cluster: Cluster, group: str, parts: Sequence[TopicPartition]
) -> dict[TopicPartition, int]:
    """Ask at which offsets a group goes on: what it committed, but never before the beginning.

    Raises
    ------
    EngineFault
        When there is no answer.
    """
    committed = await cluster.committed(group, list(parts))
    found = {}
    for part in parts:
        first, at = await _edge(cluster, part, -2), committed.get(part)
        found[part] = first if at is None else max(first, at.offset)
    return found


async def _edge(cluster: Cluster, part: TopicPartition, which: int) -> int:
    asked = OffsetRequest(-1, 0, [(part.topic, [(part.partition, which)])])
    reply: Any = await cluster.ask_leader(part, asked)
    ends: Mapping[int, int] = {
        number: place[-1] for _, all_ in reply.topics for number, _, *place in all_
    }
    return ends[part.partition]
