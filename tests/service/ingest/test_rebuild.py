"""Which state a partition goes on with when it is assigned."""

from __future__ import annotations

import pytest

from service.ingest.models import Models
from service.ingest.rebuild import Committed, Opening, begin, choose, is_committed, note_of
from service.ingest.remember import LAYOUT, Meta
from service.ingest.state import Mark, Partition

STREAMS = {"predictions": "p1", "outcomes": "o1"}


def a_part(by: str = "me", seq: int = 7) -> Partition:
    part = Partition(0, STREAMS, Models([]), {"predictions": 30, "outcomes": 20}, {})
    part.by, part.seq, part.watermark_ms, part.intent = by, seq, 99, Mark(5, 10, 11)
    return part


def a_meta(by: str = "me", seq: int = 7, streams: dict[str, str] = STREAMS,
           folding: bool = False) -> Meta:  # fmt: skip
    return Meta(by, seq, streams, {}, {}, 0, Mark(), Mark(), folding, LAYOUT)


def committed(part: Partition) -> dict[str, Committed]:
    note = note_of(part)
    assert len(note) <= 1000
    return {topic: Committed(at, note) for topic, at in part.taken.items()}


@pytest.mark.parametrize(
    "meta, resumes",
    [
        (a_meta(), True),
        (a_meta(seq=8), True),  # killed before the commit
        (a_meta(seq=6), False),  # a power cut took the last step
        (a_meta(by="another"), False),  # another machine had it since
        (a_meta(folding=True), False),  # killed while it was built again
        (a_meta(streams={"predictions": "p0", "outcomes": "o1"}), False),
        (None, False),
    ],
)
def test_only_the_newest_state_is_resumed(meta: Meta | None, resumes: bool) -> None:
    """If this breaks, one pair is said under two names and counted twice."""
    opening = choose(STREAMS, meta, committed(a_part()))
    assert resumes == opening.resume
    assert resumes == (opening.note is None)


def test_without_a_note_the_own_state_is_the_newest() -> None:
    """If this breaks, a process that is killed early loses what it had joined."""
    plain = {"predictions": Committed(0, ""), "outcomes": Committed(0, "")}
    assert Opening(True) == choose(STREAMS, a_meta(), plain)
    assert Opening(True) == choose(STREAMS, a_meta(), {})


@pytest.mark.parametrize("note", ["", "{", "[]", '{"by": 1}'])
def test_a_note_that_is_none_is_no_note(note: str) -> None:
    """If this breaks, offsets that somebody set by hand stop the partition."""
    plain = {"predictions": Committed(12, note), "outcomes": Committed(8, note)}
    assert Opening(False) == choose(STREAMS, None, plain)
    part = Partition(0, STREAMS, Models([]), {}, {})
    begin(part, None, plain, {"predictions": 3, "outcomes": 4})
    assert {"predictions": 12, "outcomes": 8} == part.taken


def test_building_again_begins_at_the_oldest_that_waits() -> None:
    """If this breaks, a new machine forgets predictions that still wait."""
    note = choose(STREAMS, None, committed(a_part())).note
    part = Partition(0, STREAMS, Models([]), {}, {})
    begin(part, note, committed(a_part()), {"predictions": 0, "outcomes": 25})
    assert {"predictions": 30, "outcomes": 25} == part.taken
    assert part.fold is not None
    assert {"predictions": 30, "outcomes": 20} == part.fold.settled
    assert (99, Mark(5, 10, 11)) == (part.watermark_ms, part.intent)


def test_a_commit_is_of_this_very_state_or_not() -> None:
    """If this breaks, two steps may follow one commit, and only this disk could name them."""
    assert is_committed(a_part(), committed(a_part()))
    assert not is_committed(a_part(seq=8), committed(a_part()))
    assert not is_committed(a_part(), {})
