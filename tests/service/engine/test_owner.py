"""The owner of a keyed partition: the order of its steps, and what it refuses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from service.engine.base import Ends, EngineFault, Message, Position, Record, Snapshot
from service.engine.owner import Fenced, Owner, Stage
from service.engine.retry import Retry
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.telemetry import Metrics
from tests.contracts.tally import Tally

ENDS = {"observations": Ends("s1", 0, 100), "rollouts": Ends("s2", 0, 100)}


class Desk:
    """An owner on a real store, with a topic that is a list."""

    def __init__(self, path: Path, every_s: float = 60.0) -> None:
        self.store = CheckpointStore(open_database(f"sqlite:///{path / 'storage.db'}"))
        self.said: list[tuple[str, list[bytes]]] = []
        self.refusals = 0
        self.tally = Tally()
        self.stopping = asyncio.Event()
        retry = Retry("watch", Metrics().errors, self.stopping)
        stage = Stage("watch", self.tally, self.store, self.append, retry, every_s)
        self.owner = Owner(stage, 0)

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        if self.refusals:
            self.refusals -= 1
            raise OSError("the disk is full")
        self.said.append((topic, [message.key for message in messages]))

    async def open(self, ends: Mapping[str, Ends]) -> Mapping[str, int]:
        await self.owner.claim()
        return await self.owner.open(ends)

    def offset(self) -> int:
        return self.store.cursors("watch")[0].positions["observations"].offset


def records(start: int, stop: int, topic: str = "observations") -> list[Record]:
    return [Record(topic, 0, offset, 0, b"m", b"1") for offset in range(start, stop)]


async def test_it_stores_at_once_only_what_is_urgent(tmp_path: Path) -> None:
    """If this breaks, every batch costs a transaction, or a decision waits for a second."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)

    await desk.owner.take(records(0, 40))
    ordinary = desk.store.cursors("watch")[0].positions
    await desk.owner.take(records(40, 50))

    assert ({}, 50) == (ordinary, desk.offset())
    assert b"m" in {key for topic, keys in desk.said for key in keys}


async def test_it_stores_when_the_last_time_is_long_enough_ago(tmp_path: Path) -> None:
    """If this breaks, a kill repeats more than the configured second."""
    desk = Desk(tmp_path, every_s=0.05)
    await desk.open(ENDS)
    await desk.owner.take(records(0, 3))

    await asyncio.sleep(0.06)
    await desk.owner.take([])

    assert 3 == desk.offset()


async def test_a_run_of_one_topic_is_one_append(tmp_path: Path) -> None:
    """If this breaks, a command may be acknowledged before the breach that stands before it."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)

    await desk.owner.take(records(0, 20))

    assert [("breaches", [b"m"]), ("commands", [b"m"])] * 2 == desk.said


async def test_an_append_that_fails_is_made_again_before_the_checkpoint(tmp_path: Path) -> None:
    """If this breaks, a decision is remembered that was never said."""
    desk = Desk(tmp_path)
    desk.refusals = 2
    await desk.open(ENDS)

    await desk.owner.take(records(0, 50))

    assert 5 == sum(topic == "breaches" for topic, _ in desk.said)
    assert 50 == desk.offset()


async def test_a_hole_is_refused(tmp_path: Path) -> None:
    """If this breaks, lost messages are absorbed in silence and a verdict rests on the rest."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)
    await desk.owner.take(records(0, 3))

    with pytest.raises(EngineFault, match=r"observations\[0\] jumps from offset 3 to 4"):
        await desk.owner.take(records(4, 6))

    assert 3 == len(desk.tally.taken)


async def test_a_compacted_topic_may_have_holes(tmp_path: Path) -> None:
    """If this breaks, watch stops for good once the broker has compacted `rollouts`."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)

    await desk.owner.take([*records(0, 1, "rollouts"), *records(7, 9, "rollouts")])

    assert {"observations": 0, "rollouts": 9} == desk.owner.next


async def test_what_was_taken_is_not_given_twice(tmp_path: Path) -> None:
    """If this breaks, an engine that fetched before a seek makes rows count twice."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)
    await desk.owner.take(records(0, 5))

    await desk.owner.take(records(2, 8))

    assert list(range(8)) == [record.offset for record in desk.tally.taken]
    assert 0 == desk.tally.repeats


async def test_a_fenced_owner_says_and_stores_nothing_more(tmp_path: Path) -> None:
    """If this breaks, two workers decide about one model."""
    desk = Desk(tmp_path)
    await desk.open(ENDS)
    await desk.owner.take(records(0, 5))
    desk.store.claim("watch", 0)

    with pytest.raises(Fenced, match="no longer owns partition 0"):
        await desk.owner.checkpoint()
    await desk.owner.close()

    assert ([0], {}) == (desk.tally.closed, desk.store.cursors("watch")[0].positions)


@pytest.mark.parametrize(
    ("position", "end", "expected"),
    [
        (Position("s1", 7), Ends("s1", 0, 100), 7),
        (Position("s0", 7), Ends("s1", 0, 100), 0),
        (Position("s0", 7), Ends("s1", 3, 100), 3),
        (None, Ends("s1", 3, 100), 3),
    ],
)
async def test_it_starts_at_the_cursor_of_the_same_stream(
    tmp_path: Path, position: Position | None, end: Ends, expected: int
) -> None:
    """If this breaks, a topic that was made again is read from an offset of its predecessor."""
    desk = Desk(tmp_path)
    if position:
        claim = desk.store.claim("watch", 0)
        desk.store.save("watch", 0, claim.epoch, {"observations": position}, {"a": Snapshot(b"{}")})

    found = await desk.open({"observations": end})

    assert {"observations": expected} == found


@pytest.mark.parametrize(
    ("offset", "said"), [(101, "lies beyond its end 100"), (4, "lies before its beginning 5")]
)
async def test_a_cursor_outside_the_topic_is_refused(
    tmp_path: Path, offset: int, said: str
) -> None:
    """If this breaks, messages that a broker lost are never missed by anyone."""
    desk = Desk(tmp_path)
    claim = desk.store.claim("watch", 0)
    cursor = {"observations": Position("s1", offset)}
    desk.store.save("watch", 0, claim.epoch, cursor, {})

    with pytest.raises(EngineFault, match=said):
        await desk.open({"observations": Ends("s1", 5, 100)})


async def test_the_place_of_a_topic_that_is_no_longer_read_is_kept(tmp_path: Path) -> None:
    """If this breaks, a downgrade reads a topic again from its beginning."""
    desk = Desk(tmp_path)
    claim = desk.store.claim("watch", 0)
    cursor = {"holds": Position("s3", 9)}
    desk.store.save("watch", 0, claim.epoch, cursor, {})
    await desk.open(ENDS)

    await desk.owner.take(records(0, 50))

    assert Position("s3", 9) == desk.store.cursors("watch")[0].positions["holds"]
