"""Holds: the dated "do not act" of operators, one row a model, `*` for all (the kill switch).

Why. Whoever asks must get the present answer, so a person's hold is written here at once and only
then told on the topic `holds`; workers elsewhere fold the topic into the same table.

How. A row is replaced by one that is not older. What a person sets here and now always wins: when
this machine's clock is behind the stored row, the new row is dated just after it. Otherwise the
kill switch of a person with a slow clock would go unheard.

Refused here: doubt. A database that cannot be read raises, and callers count that as held.
"""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from schemas.commands import Hold
from service.storage.database import insert_once, metadata

ALL = "*"
"""The model of the kill switch."""

holds = sa.Table(
    "holds",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("active", sa.Boolean, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("at", sa.BigInteger, nullable=False),
    sa.Column("until", sa.BigInteger),
)


class HoldStore:
    """Verbs over holds. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def set(self, hold: Hold) -> Hold:
        """Hold or release here and now, on a person's word; return it as it was stored."""
        row = _row(hold)
        later = sa.case((holds.c.at >= hold.at, holds.c.at + 1), else_=hold.at)
        change = sa.update(holds).where(holds.c.model == row["model"])
        with self._database.begin() as connection:
            # Insert first: of two people at once, the second waits here and then updates.
            if self._inserted(connection, row):
                return hold
            at = connection.execute(change.values({**row, "at": later}).returning(holds.c.at))
            return msgspec.structs.replace(hold, at=at.scalar_one())

    def fold(self, hold: Hold) -> bool:
        """Take in a hold from the topic; False: what is stored is newer, nothing was done."""
        row = _row(hold)
        same = (holds.c.model == row["model"]) & (holds.c.at <= hold.at)
        with self._database.begin() as connection:
            if self._inserted(connection, row):
                return True
            return connection.execute(sa.update(holds).where(same).values(row)).rowcount == 1

    def blocking(self, model: str, now_ms: int) -> Hold | None:
        """Give the hold that forbids automatic action on a model: its own, or the one on all."""
        either = holds.c.model.in_([_plain(model), ALL])
        found = {hold.model: hold for hold in self._read(either, now_ms)}
        return found.get(_plain(model)) or found.get(ALL)

    def all(self, now_ms: int) -> list[Hold]:
        """Give every hold that is in force now, the one on all first."""
        return self._read(sa.true(), now_ms)

    def _inserted(self, connection: sa.Connection, row: dict[str, object]) -> bool:
        # Not by row count: psycopg gives none for an INSERT.
        insert = insert_once(holds, self._database).returning(holds.c.model)
        return connection.execute(insert, row).first() is not None

    def _read(self, which: sa.ColumnElement[bool], now_ms: int) -> list[Hold]:
        in_force = holds.c.active & (holds.c.until.is_(None) | (holds.c.until > now_ms))
        query = sa.select(holds).where(which, in_force)
        query = query.order_by(holds.c.model != ALL, holds.c.model)
        with self._database.connect() as connection:
            return [Hold(**row._mapping) for row in connection.execute(query)]


def _row(hold: Hold) -> dict[str, object]:
    return {
        "model": _plain(hold.model),
        "active": hold.active,
        "reason": _plain(hold.reason),
        "actor": _plain(hold.actor),
        "at": hold.at,
        "until": hold.until,
    }


def _plain(text: str) -> str:
    # PostgreSQL refuses NUL in a text.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
