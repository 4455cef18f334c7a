"""Who owns which partition of topics that are read together.

Why. A joined or keyed stage needs partition p of all its topics in one process. aiokafka's sticky
assignor deals out each (topic, partition) by itself and splits p over two members as soon as the
counts are odd; its range assignor keeps p together but moves nearly everything when a member goes.

How. Members share *partition numbers*: each keeps what it owned as far as its fair share goes, and
what is free goes to whoever has least. A member says what it owns when it joins, so the leader
needs no memory. A number that two members say they own (one was away) goes to the first by name:
ownership is fenced elsewhere, this only saves moves.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from aiokafka.coordinator.assignors.abstract import AbstractPartitionAssignor
from aiokafka.coordinator.protocol import (
    ConsumerProtocolMemberAssignment,
    ConsumerProtocolMemberMetadata,
)


def share_out(count: int, owned: Mapping[str, Iterable[int]]) -> dict[str, list[int]]:
    """Deal partition numbers 0 … count-1 to members; loads differ by one at most.

    Parameters
    ----------
    owned : Mapping
        What each member owned before, by member id; numbers out of range are ignored.

    Examples
    --------
    >>> share_out(4, {"a": [0, 1, 2, 3], "b": []})
    {'a': [0, 1], 'b': [2, 3]}
    >>> share_out(3, {"a": [2], "b": [0]})
    {'a': [1, 2], 'b': [0]}
    """
    members = sorted(owned)
    if not members:
        return {}
    fair, extra = divmod(count, len(members))
    free = set(range(count))
    dealt: dict[str, list[int]] = {}
    # Those who owned most keep the odd ones: fewest moves.
    for member in sorted(members, key=lambda name: (-len(set(owned[name])), name)):
        wish = sorted(free.intersection(owned[member]))
        kept = wish[: fair + (1 if extra and len(wish) > fair else 0)]
        extra -= len(kept) > fair
        dealt[member] = kept
        free.difference_update(kept)
    for number in sorted(free):
        least = min(members, key=lambda name: (len(dealt[name]), name))
        dealt[least].append(number)
    return {member: sorted(dealt[member]) for member in members}


class TogetherAssignor(AbstractPartitionAssignor):  # type: ignore[misc]
    """`share_out` as aiokafka calls it; one instance per consumer, since it remembers."""

    name = "rollbackd-together"
    version = 0

    def __init__(self) -> None:
        self._owned: Sequence[int] = ()

    def metadata(self, topics: Iterable[str]) -> Any:
        """Say which topics we read and which partition numbers we own."""
        mine = msgspec.json.encode(list(self._owned))
        return ConsumerProtocolMemberMetadata(self.version, sorted(topics), mine)

    def assign(self, cluster: Any, members: Mapping[str, Any]) -> dict[str, Any]:
        """Deal as the group's leader. A topic that only some members read stays with those."""
        topics = {topic for member in members.values() for topic in member.subscription}
        counts = {topic: len(cluster.partitions_for_topic(topic) or ()) for topic in topics}
        owned = {member: _owned(about.user_data) for member, about in members.items()}
        dealt = share_out(max(counts.values(), default=0), owned)
        given = {
            member: [
                (topic, [number for number in numbers if number < counts[topic]])
                for topic in sorted(members[member].subscription)
            ]
            for member, numbers in dealt.items()
        }
        return {
            member: ConsumerProtocolMemberAssignment(self.version, topics, b"")
            for member, topics in given.items()
        }

    def on_assignment(self, assignment: Any) -> None:
        """Remember what we own."""
        self._owned = sorted({part.partition for part in assignment.partitions()})


def _owned(said: bytes | None) -> list[int]:
    try:
        return msgspec.json.decode(said or b"[]", type=list[int])
    except msgspec.DecodeError:
        return []
