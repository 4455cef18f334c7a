"""The embedded log: topics in one SQLite file, a blob per appended batch.

Why. One machine needs no broker, but it needs the same promises: order per partition, durable on
return, several processes at once. SQLite's write-ahead log gives them: a write is one transaction
with `synchronous=FULL`, a reader sees a whole one or none, and a process that is killed leaves
nothing half said.

How. A batch is columns (keys, values, headers) in msgpack, with a CRC32 that is checked when it is
read: SQLite does not notice a flipped bit. `streams` holds the end of each partition, so offsets go
on when old batches are deleted. A topic is a row with a random id, its *stream*; deleted and made
again it has another. A `LocalLog` is one connection: one for writing and one for reading, each in
a thread of its own (`local_access.py`).

Refused here: compaction. A compacted topic keeps everything here, which for one machine's policies
and verdicts is little.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

from service.engine.base import Ends, EngineFault, Message, Position
from service.engine.local_batches import Append, Blob, Stretch, join, pack

BUSY_S = 30.0
"""How long a writer waits for another process's transaction, in seconds."""
_SCHEMA = """
CREATE TABLE IF NOT EXISTS topics(
    topic TEXT PRIMARY KEY, stream TEXT NOT NULL, partitions INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS ends(
    stream TEXT, partition INTEGER, first INTEGER NOT NULL, next INTEGER NOT NULL,
    PRIMARY KEY(stream, partition)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS batches(
    stream TEXT, partition INTEGER, base INTEGER, count INTEGER NOT NULL, time_ms INTEGER NOT NULL,
    crc INTEGER NOT NULL, blob BLOB NOT NULL, PRIMARY KEY(stream, partition, base));
CREATE TABLE IF NOT EXISTS positions(
    reader TEXT, topic TEXT, partition INTEGER, stream TEXT NOT NULL, next INTEGER NOT NULL,
    note TEXT NOT NULL, PRIMARY KEY(reader, topic, partition)) WITHOUT ROWID;
"""


class Commit(NamedTuple):
    """Positions of one reader (a group) in one partition, to be stored."""

    reader: str
    partition: int
    positions: Mapping[str, Position]


class LocalLog:
    """One connection to the log in a folder; its verbs block. One thread at a time may use it.

    Raises
    ------
    EngineFault
        From every verb: when the file cannot be read or written, or is damaged.
    """

    def __init__(self, folder: Path) -> None:
        self._file = folder / "log.db"
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Only a file that is not there yet: closing any descriptor of it drops every lock that
            # SQLite holds on it in this process, and then another process may remove the WAL.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self._file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
            self._db = sqlite3.connect(
                self._file, timeout=BUSY_S, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(f"PRAGMA journal_size_limit={64 << 20}")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as fault:
            raise EngineFault(
                f"the log {self._file} cannot be opened ({fault}); "
                "check the folder's owner and the free space"
            ) from None

    def close(self) -> None:
        """Close the connection."""
        self._db.close()

    def version(self) -> int:
        """Number that changes when another connection has written."""
        return int(self._db.execute("PRAGMA data_version").fetchone()[0])

    def write(self, appends: Iterable[Append], commits: Iterable[Commit], now_ms: int) -> None:
        """Append batches and store positions in one transaction; durable on return."""
        with self._transaction():
            for append in appends:
                stream, partitions = self._topic(append.topic)
                if partitions != append.partitions:
                    raise EngineFault(f"topic {append.topic} was made again while it was written")
                for blob in append.blobs:
                    self._append(stream, blob, now_ms)
            rows = [
                (commit.reader, topic, commit.partition, *position)
                for commit in commits
                for topic, position in commit.positions.items()
            ]
            if rows:
                self._db.executemany("REPLACE INTO positions VALUES(?,?,?,?,?,?)", rows)

    def encode(self, topic: str, messages: Sequence[Message]) -> Append:
        """Choose partitions and pack blobs; touches the file only to look the topic up."""
        _, partitions = self._topic(topic)
        return pack(topic, messages, partitions)

    def make_topics(self, topics: Iterable[str], partitions: int) -> None:
        """Make the topics that are missing."""
        with self._transaction():
            for topic in topics:
                if self._find(topic) is None:
                    stream = uuid4().hex
                    self._db.execute(
                        "INSERT INTO topics VALUES(?,?,?)", (topic, stream, partitions)
                    )
                    self._db.executemany(
                        "INSERT INTO ends VALUES(?,?,0,0)",
                        [(stream, partition) for partition in range(partitions)],
                    )

    def delete_topic(self, topic: str) -> None:
        """Delete a topic and all it holds; positions stay, as they name the stream."""
        with self._transaction():
            stream, _ = self._topic(topic)
            for table, column in (("batches", "stream"), ("ends", "stream"), ("topics", "stream")):
                self._db.execute(f"DELETE FROM {table} WHERE {column}=?", (stream,))  # noqa: S608

    def topics(self) -> dict[str, int]:
        """How many partitions each topic has that exists."""
        return dict(self._db.execute("SELECT topic, partitions FROM topics ORDER BY topic"))

    def stream(self, topic: str) -> str | None:
        """The topic's stream; None when it does not exist."""
        found = self._find(topic)
        return found[0] if found else None

    def grown(self) -> dict[str, tuple[str, int]]:
        """Stream of each topic, and how much was ever appended to it."""
        rows = self._db.execute(
            "SELECT topic, stream, sum(next) FROM topics JOIN ends USING(stream) GROUP BY topic"
        )
        return {topic: (stream, total) for topic, stream, total in rows}

    def ends(self, topic: str, partition: int) -> Ends:
        """Where a topic partition begins and ends now."""
        stream, _ = self._topic(topic)
        row = self._db.execute(
            "SELECT first, next FROM ends WHERE stream=? AND partition=?", (stream, partition)
        ).fetchone()
        if row is None:
            raise EngineFault(f"topic {topic} has no partition {partition}")
        return Ends(stream, *row)

    def positions(self, reader: str, partition: int) -> dict[str, Position]:
        """What a group has committed of a partition, by topic."""
        rows = self._db.execute(
            "SELECT topic, stream, next, note FROM positions WHERE reader=? AND partition=?",
            (reader, partition),
        )
        return {topic: Position(*at) for topic, *at in rows}

    def read(self, topic: str, partition: int, offset: int, limit: int) -> Stretch | None:
        """Read up to `limit` messages from `offset` on; None when there is none yet."""
        stream, _ = self._topic(topic)
        sql = (
            "SELECT base, count, time_ms, crc, blob FROM batches WHERE stream=:s AND partition=:p"
            " AND base >= coalesce((SELECT max(base) FROM batches WHERE stream=:s AND partition=:p"
            " AND base <= :o), 0) AND base + count > :o ORDER BY base"
        )
        taken = Stretch(stream, offset, [], [], [], None)
        # An open cursor would hold its snapshot, and so the write-ahead log.
        with closing(self._db.execute(sql, {"s": stream, "p": partition, "o": offset})) as rows:
            for base, count, time_ms, crc, body in rows:
                at = offset + len(taken.keys)
                place = f"{topic}[{partition}] offset {at}"
                part = slice(at - base, min(count, at - base + limit - len(taken.keys)))
                taken = self._joined(taken, Blob(partition, count, crc, body), part, time_ms, place)
                if len(taken.keys) >= limit:
                    break
        return taken if taken.keys else None

    def retain(self, topic: str, before_ms: int) -> int:
        """Delete batches older than `before_ms` that every group which ever read them is past.

        Returns
        -------
        int
            How many batches were deleted.
        """
        deleted = 0
        with self._transaction():
            stream, partitions = self._topic(topic)
            for partition in range(partitions):
                deleted += self._retain(topic, stream, partition, before_ms)
        return deleted

    def _joined(self, taken: Stretch, blob: Blob, part: slice, time_ms: int, place: str) -> Stretch:
        try:
            if part.start < 0:
                raise ValueError("a batch is missing")
            return join(taken, blob, part, time_ms)
        except ValueError as fault:
            raise EngineFault(
                f"the log {self._file} is damaged at {place} ({fault}); restore it from a backup"
            ) from None

    def _retain(self, topic: str, stream: str, partition: int, before_ms: int) -> int:
        place = {"s": stream, "p": partition, "t": topic, "b": before_ms}
        (kept,) = self._db.execute(
            "SELECT coalesce((SELECT base FROM batches WHERE stream=:s AND partition=:p"
            " AND time_ms >= :b ORDER BY base LIMIT 1),"
            " (SELECT next FROM ends WHERE stream=:s AND partition=:p))",
            place,
        ).fetchone()
        # A group whose position names an older stream has read nothing of this one.
        (read,) = self._db.execute(
            "SELECT min(CASE WHEN stream=:s THEN next ELSE 0 END) FROM positions"
            " WHERE topic=:t AND partition=:p",
            place,
        ).fetchone()
        first = kept if read is None else min(kept, read)
        where = "stream=? AND partition=?"
        done = self._db.execute(
            f"DELETE FROM batches WHERE {where} AND base + count <= ?",  # noqa: S608
            (stream, partition, first),
        )
        self._db.execute(
            f"UPDATE ends SET first = coalesce((SELECT min(base) FROM batches WHERE {where}),"  # noqa: S608
            f" next) WHERE {where}",
            (stream, partition, stream, partition),
        )
        return done.rowcount

    def _append(self, stream: str, blob: Blob, now_ms: int) -> None:
        (base,) = self._db.execute(
            "UPDATE ends SET next = next + ? WHERE stream=? AND partition=? RETURNING next - ?",
            (blob.length, stream, blob.partition, blob.length),
        ).fetchone()
        self._db.execute(
            "INSERT INTO batches VALUES(?,?,?,?,?,?,?)",
            (stream, blob.partition, base, blob.length, now_ms, blob.crc, blob.body),
        )

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """While it lasts, everything that is read is of one moment."""
        with self._transaction("DEFERRED"):
            yield

    @contextmanager
    def _transaction(self, kind: str = "IMMEDIATE") -> Iterator[None]:
        # One that reads first and then writes fails when another process was faster.
        self._db.execute(f"BEGIN {kind}")
        try:
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")

    def _find(self, topic: str) -> tuple[str, int] | None:
        row: tuple[str, int] | None = self._db.execute(
            "SELECT stream, partitions FROM topics WHERE topic=?", (topic,)
        ).fetchone()
        return row

    def _topic(self, topic: str) -> tuple[str, int]:
        found = self._find(topic)
        if found is None:
            raise EngineFault(
                f"topic {topic} does not exist in {self._file}: "
                "`rollbackd topics --create` makes it"
            )
        return found
