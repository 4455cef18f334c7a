"""The incident log: entries are added and never changed; an incident is what they add up to.

Why. It is what people trust after a bad night, so there is no verb here that changes or removes an
entry, and adding one twice does nothing (its id is derived from what caused it).

How. Every entry gets a growing sequence number, for readers that come back for what is new (alert,
live pages) and for the hash chain (`schemas/chain.py`): it is the last one plus one, taken under a
lock that is held to the commit, so that nobody sees 8 before 7 and no number is left out. SQLite
has one writer anyway.

Refused here: judging what an entry means (`schemas/incidents.py` folds them).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import msgspec
import sqlalchemy as sa

from schemas.chain import START, Anchor, Link, hash_after
from schemas.incidents import Entry, Incident, fold
from service.storage.database import metadata

_ONE_WRITER = 7_262_001
"""Number of the advisory lock on PostgreSQL; any fixed number that nothing else here uses."""

entries = sa.Table(
    "incident_entries",
    metadata,
    sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("entry_id", sa.Text, nullable=False, unique=True),
    sa.Column("incident_id", sa.Text, nullable=False),
    sa.Column("model", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("recorded_at", sa.BigInteger, nullable=False),
    sa.Column("command_id", sa.Text, index=True),
    sa.Column("entry", sa.LargeBinary, nullable=False),
    sa.Column("hash", sa.LargeBinary, nullable=False),
    sa.Index("incident_entries_by_incident", "incident_id", "sequence"),
)

_decoder = msgspec.json.Decoder(Entry)


class IncidentLog:
    """Verbs over the incident log. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def add(self, new: Sequence[Entry]) -> int:
        """Add entries, all or none of them; return how many were not known yet."""
        rows = {entry.entry_id: _row(entry) for entry in new}
        with self._database.begin() as connection:
            if self._database.dialect.name == "postgresql":
                connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_WRITER)))
            known = sa.select(entries.c.entry_id).where(entries.c.entry_id.in_(rows))
            for entry_id in connection.execute(known).scalars():
                del rows[entry_id]
            last, previous = _end(connection)
            for sequence, row in enumerate(rows.values(), last + 1):
                previous = hash_after(previous, sequence, row["entry"])
                row |= {"sequence": sequence, "hash": previous}
            if rows:
                connection.execute(sa.insert(entries), list(rows.values()))
        return len(rows)

    def links(self) -> Iterator[Link]:
        """Give the whole log as its chain, in order; read in pages, so that memory stays small."""
        columns = (entries.c.sequence, entries.c.entry, entries.c.hash)
        with self._database.connect() as connection:
            found = connection.execute(
                sa.select(*columns).order_by(entries.c.sequence),
                execution_options={"yield_per": 1000},
            )
            for row in found:
                yield Link(row.sequence, _raw(row.entry), _raw(row.hash))

    def anchor(self, now_ms: int) -> Anchor | None:
        """Say what the log is now, to be signed; None while it is empty."""
        with self._database.connect() as connection:
            size, head = _end(connection)
            first = sa.select(entries.c.hash).order_by(entries.c.sequence).limit(1)
            log = connection.execute(first).scalar()
        if not size or log is None:
            return None
        return Anchor(size=size, head=head.hex(), at=now_ms, log=bytes(log).hex())

    def incidents(self, limit: int, model: str | None = None) -> list[Incident]:
        """Give the incidents that were opened last, newest first, without their entries."""
        opened = sa.func.min(entries.c.sequence)
        newest = sa.select(entries.c.incident_id).group_by(entries.c.incident_id)
        if model is not None:
            newest = newest.where(entries.c.model == _plain(model))
        newest = newest.order_by(opened.desc()).limit(limit)
        with self._database.connect() as connection:
            ids = list(connection.execute(newest).scalars())
            found = connection.execute(
                sa.select(entries.c.incident_id, entries.c.entry)
                .where(entries.c.incident_id.in_(ids))
                .order_by(entries.c.incident_id, entries.c.sequence)
            ).all()
        folded: dict[str, Incident] = {}
        for name, rows in groupby(found, key=lambda row: row.incident_id):
            if (incident := fold(_decoder.decode(row.entry) for row in rows)) is not None:
                folded[name] = msgspec.structs.replace(incident, entries=[])
        return [folded[name] for name in ids]

    def incident(self, prefix: str) -> Incident | None:
        """Give one incident with its entries, by its id or the beginning of it.

        None when no incident or more than one begins like this.
        """
        whole = [entry for _, entry in self.story(prefix)]
        if not whole and prefix:
            named = sa.select(entries.c.incident_id).distinct().limit(2)
            named = named.where(entries.c.incident_id.startswith(prefix, autoescape=True))
            with self._database.connect() as connection:
                ids = list(connection.execute(named).scalars())
            whole = [entry for _, entry in self.story(ids[0])] if len(ids) == 1 else []
        return fold(whole)

    def story(self, incident_id: str) -> list[tuple[int, Entry]]:
        """Give the entries of one incident in order, each with its sequence number."""
        return self._read(entries.c.incident_id == incident_id)

    def since(self, sequence: int, limit: int) -> list[tuple[int, Entry]]:
        """Give entries with a higher sequence number, in order, each with its own."""
        return self._read(entries.c.sequence > sequence, limit)

    def last(self) -> int:
        """Give the highest sequence number; 0 when the log is empty."""
        with self._database.connect() as connection:
            return connection.execute(sa.select(sa.func.max(entries.c.sequence))).scalar() or 0

    def proposal(self, command_id: str) -> Entry | None:
        """Give the entry that proposed a command, for a person's answer to it."""
        found = self._read((entries.c.command_id == command_id) & (entries.c.kind == "proposed"), 1)
        return found[0][1] if found else None

    def _read(
        self, which: sa.ColumnElement[bool], limit: int | None = None
    ) -> list[tuple[int, Entry]]:
        query = sa.select(entries.c.sequence, entries.c.entry).where(which)
        query = query.order_by(entries.c.sequence).limit(limit)
        with self._database.connect() as connection:
            rows = connection.execute(query).all()
        return [(row.sequence, _decoder.decode(row.entry)) for row in rows]


def _end(connection: sa.Connection) -> tuple[int, bytes]:
    """Sequence and hash of the last entry."""
    last = sa.select(entries.c.sequence, entries.c.hash).order_by(entries.c.sequence.desc())
    row = connection.execute(last.limit(1)).first()
    return (row.sequence, bytes(row.hash)) if row is not None else (0, START)


def _raw(value: bytes | str) -> bytes:
    """Bytes as stored; SQLite gives text back where somebody wrote text."""
    return value.encode() if isinstance(value, str) else bytes(value)


def _row(entry: Entry) -> dict[str, Any]:
    command_id = entry.data.get("command_id")
    return {
        "entry_id": entry.entry_id,
        "incident_id": entry.incident_id,
        "model": _plain(entry.model),
        "kind": entry.kind,
        "at": entry.at,
        "recorded_at": entry.recorded_at,
        "command_id": command_id if isinstance(command_id, str) else None,
        "entry": msgspec.json.encode(entry),
    }


def _plain(name: str) -> str:
    # PostgreSQL refuses NUL in a text; a producer's name must not stop the log.
    return name.replace("\0", "\N{REPLACEMENT CHARACTER}")
