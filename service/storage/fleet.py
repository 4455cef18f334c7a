"""What is true of all models together: who is watched, who breached of late, who was rolled back.

Why. A budget and a suspicion over all models need what no single owner of a partition knows. It
lies here, beside the holds, and is read at the same moment.

How. A note is a kind, a model, what it stands for and a wall time; written once, however often it
is said. `reserve` counts and writes in one transaction that no other can be beside, so that two
workers at once cannot spend the last rollback twice. A reservation is written before its command
is appended: killed in between, it is found again under the same name and not counted twice.

Refused here: judging (`service/harm.py`), and doubt. A database that cannot be read raises, and
callers count that as held.
"""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa

from service.storage.database import insert_once, metadata, upsert

fleet = sa.Table(
    "fleet",
    metadata,
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("reference", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, nullable=False),
)
"""Kinds: `watched` (model alone), `breach` (by breach), `rollback` (by incident)."""

KEEP_MS = 7 * 86_400_000
"""Notes older than this are deleted when another of their kind is written."""


class FleetStore:
    """Verbs over notes. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def watch(self, models: list[str], now_ms: int) -> None:
        """Note that models are watched now."""
        rows = [{"kind": "watched", "model": _plain(m), "reference": "", "at": now_ms}
                for m in sorted(models)]  # fmt: skip
        with self._database.begin() as connection:
            keys = ["kind", "model", "reference"]
            connection.execute(upsert(fleet, self._database, keys, ["at"]), rows)

    def breached(self, breaches: list[tuple[str, str]], now_ms: int) -> None:
        """Note breaches, as pairs of model and breach."""
        rows = [{"kind": "breach", "model": _plain(model), "reference": breach, "at": now_ms}
                for model, breach in breaches]  # fmt: skip
        with self._database.begin() as connection:
            connection.execute(_old("breach", now_ms))
            connection.execute(insert_once(fleet, self._database), rows)

    def models(self, kind: str, since_ms: int) -> set[str]:
        """Give the models with a note of a kind since then."""
        query = sa.select(fleet.c.model).distinct()
        query = query.where(fleet.c.kind == kind, fleet.c.at > since_ms)
        with self._database.connect() as connection:
            return set(connection.execute(query).scalars())

    def reserve(self, model: str, reference: str, now_ms: int, since_ms: int, most: int) -> bool:
        """Reserve one rollback of the fleet's budget; False: it is used up, nothing was written."""
        mine = {"kind": "rollback", "model": _plain(model), "reference": reference, "at": now_ms}
        used = sa.select(sa.func.count()).select_from(fleet)
        used = used.where(fleet.c.kind == "rollback", fleet.c.at > since_ms)
        here = sa.select(fleet.c.at).where(*_is(mine))
        with self._database.begin() as connection:
            if self._database.dialect.name == "postgresql":
                connection.execute(sa.text("LOCK TABLE fleet IN SHARE ROW EXCLUSIVE MODE"))
            if connection.execute(here).first() is not None:
                return True
            if connection.execute(used).scalar_one() >= most:
                return False
            connection.execute(_old("rollback", now_ms))
            connection.execute(insert_once(fleet, self._database), mine)
        return True

    def release(self, model: str, reference: str) -> None:
        """Give a reservation back whose command was not sent after all."""
        mine = {"kind": "rollback", "model": _plain(model), "reference": reference}
        with self._database.begin() as connection:
            connection.execute(sa.delete(fleet).where(*_is(mine)))


def _is(row: Mapping[str, object]) -> list[sa.ColumnElement[bool]]:
    return [fleet.c[name] == row[name] for name in ("kind", "model", "reference")]


def _old(kind: str, now_ms: int) -> sa.Delete:
    return sa.delete(fleet).where(fleet.c.kind == kind, fleet.c.at < now_ms - KEEP_MS)


def _plain(text: str) -> str:
    # PostgreSQL refuses NUL in a text.
    return text.replace("\0", "\N{REPLACEMENT CHARACTER}")
