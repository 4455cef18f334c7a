"""Partition numbers are shared evenly, kept together over topics, and moved rarely."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from service.engine.kafka_assign import TogetherAssignor, share_out

MEMBERS = st.dictionaries(
    st.text("abcdef", min_size=1, max_size=3), st.sets(st.integers(-1, 20)), min_size=1, max_size=6
)


class Topics:
    """Partition counts, as aiokafka's cluster metadata gives them."""

    def __init__(self, **counts: int) -> None:
        self._counts = counts

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(range(self._counts[topic])) if topic in self._counts else None


def deal(cluster: Topics, members: dict[str, TogetherAssignor], *topics: str) -> dict[str, Any]:
    """One rebalance; every member remembers what it was given."""
    said = {name: member.metadata(topics) for name, member in members.items()}
    leader = next(iter(members.values()))
    given_ = leader.assign(cluster, said)
    for name, assignment in given_.items():
        members[name].on_assignment(assignment)
    return {
        name: {(part.topic, part.partition) for part in assignment.partitions()}
        for name, assignment in given_.items()
    }


@given(count=st.integers(0, 20), owned=MEMBERS)
def test_every_partition_has_one_owner_and_loads_are_even(
    count: int, owned: dict[str, set[int]]
) -> None:
    """If this breaks, a partition is read by nobody or by two, or one machine does all the work."""
    dealt = share_out(count, owned)

    numbers = [number for mine in dealt.values() for number in mine]
    assert list(range(count)) == sorted(numbers)
    loads = [len(mine) for mine in dealt.values()]
    assert max(loads) - min(loads) <= 1
    assert owned.keys() == dealt.keys()


@given(
    count=st.integers(1, 20), names=st.sets(st.text("abcdef", min_size=1, max_size=3), min_size=2)
)
def test_a_member_that_goes_moves_nobody_elses_partitions(count: int, names: set[str]) -> None:
    """If this breaks, one restarted worker closes and opens the state of all others' models."""
    before = share_out(count, dict.fromkeys(names, ()))
    gone = min(names)

    after = share_out(count, {name: mine for name, mine in before.items() if name != gone})

    assert all(set(before[name]) <= set(mine) for name, mine in after.items())


def test_topics_stay_together_when_the_counts_are_odd() -> None:
    """If this breaks, a prediction and its outcome are read by two processes and never meet."""
    members = {name: TogetherAssignor() for name in ("a", "b", "c")}

    given_ = deal(Topics(predictions=4, outcomes=4), members, "predictions", "outcomes")

    for mine in given_.values():
        numbers = {number for _, number in mine}
        assert {(topic, n) for topic in ("predictions", "outcomes") for n in numbers} == mine
    assert 8 == sum(len(mine) for mine in given_.values())


def test_a_new_member_takes_only_its_share() -> None:
    """If this breaks, adding a machine stops every model instead of the few that move."""
    members = {"a": TogetherAssignor(), "b": TogetherAssignor()}
    before = deal(Topics(observations=6), members, "observations")
    members["c"] = TogetherAssignor()

    after = deal(Topics(observations=6), members, "observations")

    assert all(after[name] < before[name] and len(after[name]) == 2 for name in ("a", "b"))


def test_a_topic_is_given_only_to_who_reads_it() -> None:
    """If this breaks, an update that adds a topic stops the workers of the old version."""
    old, new = TogetherAssignor(), TogetherAssignor()
    said = {"old": old.metadata(["a"]), "new": new.metadata(["a", "b"])}

    given_ = new.assign(Topics(a=2, b=2), said)

    assert {"a"} == {part.topic for part in given_["old"].partitions()}
    assert {"a", "b"} == {part.topic for part in given_["new"].partitions()}


def test_a_member_of_an_unknown_kind_owns_nothing_yet() -> None:
    """If this breaks, one member with other user data stops the whole group."""
    ours = TogetherAssignor()
    strange = ours.metadata(["a"])
    strange.user_data = b"\xff not ours"

    given_ = ours.assign(Topics(a=2), {"x": strange, "y": ours.metadata(["a"])})

    assert {1} == {len(assignment.partitions()) for assignment in given_.values()}
