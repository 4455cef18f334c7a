"""The embedded log by itself: what is read is what was appended, or a fault says why not."""

from __future__ import annotations

import sqlite3
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.engine.base import Ends, EngineFault, Message, Position
from service.engine.local_batches import BLOB_MESSAGES
from service.engine.local_log import Commit, LocalLog

DAY_MS = 86_400_000


@pytest.fixture
def log(tmp_path: Path) -> Iterator[LocalLog]:
    opened = LocalLog(tmp_path / "log")
    opened.make_topics(["predictions", "outcomes"], 1)
    yield opened
    opened.close()


def write(log: LocalLog, *values: bytes, at_ms: int = 0, topic: str = "predictions") -> None:
    log.write([log.encode(topic, [Message(b"k", value) for value in values])], [], at_ms)


def values(log: LocalLog, offset: int = 0, limit: int = 100) -> list[bytes]:
    stretch = log.read("predictions", 0, offset, limit)
    return stretch.values if stretch else []


def commit(log: LocalLog, group: str, offset: int) -> None:
    stream = log.ends("predictions", 0).stream
    log.write([], [Commit(group, 0, {"predictions": Position(stream, offset, "note")})], 0)


messages = st.builds(
    Message,
    key=st.binary(max_size=4),
    value=st.binary(max_size=8),
    partition=st.sampled_from([None, None, 0, 1, 2]),
    headers=st.lists(st.tuples(st.text(max_size=3), st.binary(max_size=3)), max_size=2),
)


@settings(max_examples=40, deadline=None)
@given(
    appends=st.lists(st.lists(messages, min_size=1, max_size=12), max_size=8),
    limit=st.integers(1, 9),
)
def test_any_appends_read_in_any_steps_are_the_same(
    appends: list[list[Message]], limit: int
) -> None:
    """If this breaks, a batch that is cut or joined on reading loses or repeats a message."""
    with tempfile.TemporaryDirectory() as home:
        log = LocalLog(Path(home))
        log.make_topics(["predictions"], 3)
        for time_ms, append in enumerate(appends):
            log.write([log.encode("predictions", append)], [], time_ms)
        found: list[object] = []
        for partition in range(3):
            offset = 0
            while stretch := log.read("predictions", partition, offset, limit):
                assert offset == stretch.base and len(stretch.keys) <= limit
                headers = stretch.headers or [[] for _ in stretch.keys]
                found += zip(
                    stretch.times_ms, stretch.keys, stretch.values, map(tuple, headers), strict=True
                )
                offset += len(stretch.keys)
            assert offset == log.ends("predictions", partition).next
        log.close()

    expected = [
        (time_ms, message.key, message.value, tuple(message.headers))
        for time_ms, append in enumerate(appends)
        for message in append
    ]
    assert sorted(expected) == sorted(found)  # type: ignore[type-var]


def test_a_huge_append_becomes_blobs_that_are_read_alone(log: LocalLog) -> None:
    """If this breaks, a reader decodes a million messages for each step of five thousand."""
    count = 2 * BLOB_MESSAGES + 1
    append = log.encode("predictions", [Message(b"k", b"%d" % n) for n in range(count)])
    wide = log.encode("predictions", [Message(b"k", b"x" * 600_000)] * 5)

    log.write([append], [], 0)

    assert [BLOB_MESSAGES, BLOB_MESSAGES, 1] == [blob.length for blob in append.blobs]
    assert [2, 2, 1] == [blob.length for blob in wide.blobs]
    assert [b"%d" % n for n in range(4998, 5003)] == values(log, 4998, 5)


def test_only_its_user_may_read_it(tmp_path: Path, log: LocalLog) -> None:
    """If this breaks, another user of the machine reads predictions."""
    folder = tmp_path / "log"
    modes = [stat.S_IMODE(path.stat().st_mode) for path in (folder, folder / "log.db")]

    assert [0o700, 0o600] == modes


def test_positions_are_kept_by_group(log: LocalLog) -> None:
    """If this breaks, one role's restart moves another role's place."""
    commit(log, "ingest", 7)
    commit(log, "ingest", 9)

    found = log.positions("ingest", 0)

    assert {"predictions": Position(log.ends("predictions", 0).stream, 9, "note")} == found
    assert {} == log.positions("watch", 0) == log.positions("ingest", 1)


def test_old_batches_go_when_everybody_has_read_them(log: LocalLog) -> None:
    """If this breaks, the disk fills, or a role that was down for a day misses messages."""
    for day in range(6):
        write(log, b"%d-a" % day, b"%d-b" % day, at_ms=day * DAY_MS)
    commit(log, "fast", 12)
    commit(log, "slow", 5)

    deleted = log.retain("predictions", 4 * DAY_MS)
    first = log.ends("predictions", 0)
    commit(log, "slow", 12)
    deleted_later = log.retain("predictions", 4 * DAY_MS)

    assert (2, 4, 2) == (deleted, first.first, deleted_later)
    assert [b"4-a", b"4-b", b"5-a", b"5-b"] == values(log, 8)


def test_offsets_go_on_when_everything_was_deleted(log: LocalLog) -> None:
    """If this breaks, a reader waits for ever at an offset that will not come."""
    write(log, b"0", b"1")
    log.retain("predictions", DAY_MS)
    empty = log.ends("predictions", 0)

    write(log, b"2")

    assert (2, 2) == (empty.first, empty.next)
    assert [b"2"] == values(log, 2)


def test_a_reader_of_an_older_stream_keeps_all_of_the_new_one(log: LocalLog) -> None:
    """If this breaks, a role that was away while a topic was made again misses its beginning."""
    commit(log, "slow", 0)
    log.delete_topic("predictions")
    log.make_topics(["predictions"], 1)
    write(log, b"0")

    assert 0 == log.retain("predictions", DAY_MS)


def test_a_topic_that_is_made_again_is_another_stream(log: LocalLog) -> None:
    """If this breaks, positions of the old topic are taken for positions of the new one."""
    write(log, b"old")
    before = log.ends("predictions", 0)
    log.delete_topic("predictions")
    gone = log.topics()
    log.make_topics(["predictions", "outcomes"], 1)

    after = log.ends("predictions", 0)

    assert {"outcomes": 1} == gone
    assert before.stream != after.stream
    assert Ends(after.stream, 0, 0) == after
    assert [] == values(log)


def damage(file: Path, old: bytes, new: bytes) -> None:
    """Change bytes of the file as a bad disk would."""
    with sqlite3.connect(file) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    text = file.read_bytes()
    assert old in text
    file.write_bytes(text.replace(old, new))


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    """If this breaks, a bad disk changes a verdict."""
    log = LocalLog(tmp_path)
    log.make_topics(["predictions"], 1)
    write(log, b"intact")
    write(log, b"some value to be found again")
    log.close()
    damage(tmp_path / "log.db", b"some value", b"rome value")

    log = LocalLog(tmp_path)
    with pytest.raises(EngineFault, match=r"damaged at predictions\[0\] offset 1 \(its checksum"):
        values(log)

    assert [b"intact"] == values(log, limit=1)
    log.close()


def test_missing_batches_are_found(tmp_path: Path, log: LocalLog) -> None:
    """If this breaks, a repaired file with a gap is read as if nothing were missing."""
    for number in range(3):
        write(log, b"%d" % number)
    with sqlite3.connect(tmp_path / "log" / "log.db") as database:
        database.execute("DELETE FROM batches WHERE base=1")

    with pytest.raises(EngineFault, match=r"offset 1 \(a batch is missing"):
        values(log)


def test_a_full_disk_leaves_all_or_nothing_and_heals(log: LocalLog) -> None:
    """If this breaks, a full disk leaves half an append, or a log that must be repaired."""
    write(log, b"before")
    pages = log._db.execute("PRAGMA page_count").fetchone()[0]
    log._db.execute(f"PRAGMA max_page_count={pages + 4}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        write(log, b"small", *[b"x" * 3000 for _ in range(50)])
    meanwhile = values(log)

    log._db.execute(f"PRAGMA max_page_count={pages + 4000}")
    write(log, b"after")

    assert ([b"before"], [b"before", b"after"]) == (meanwhile, values(log))


def test_what_cannot_be_opened_or_named_says_so(tmp_path: Path, log: LocalLog) -> None:
    """If this breaks, a person sees a traceback of sqlite3 in place of what to do."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(EngineFault, match=r"file/log\.db cannot be opened"):
        LocalLog(tmp_path / "file")
    with pytest.raises(EngineFault, match=r"topic nonsense does not exist .* topics --create"):
        log.encode("nonsense", [Message(b"k", b"v")])
    with pytest.raises(EngineFault, match="has 1 partitions, and no 3"):
        log.encode("predictions", [Message(b"k", b"v", partition=3)])
