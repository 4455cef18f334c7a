"""What the keyed stages remember: the state of each key, the cursor, and who owns a partition.

Why. An owner that is killed must be followed by one that counts nothing twice and misses nothing.
So states and cursor change together, and only for the owner with the highest epoch: the cursor's
row is updated `WHERE epoch = mine` first, in the same transaction; no row changed means that
another owner took over (*fenced*), and nothing is stored. On PostgreSQL that row's lock is also
what makes a claim wait for a save that is under way, and the other way round.

Refused here: knowing what a state means. A view is a JSON document that its owner made for readers;
it is as old as the state beside it, never older or newer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from service.crash import crash_point
from service.engine.base import Claim, Position, Snapshot
from service.storage.database import end_frozen_sessions, insert_once, metadata, upsert

checkpoints = sa.Table(
    "checkpoints",
    metadata,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("state", sa.LargeBinary, nullable=False),
    sa.Column("view", sa.LargeBinary),
)
cursors = sa.Table(
    "cursors",
    metadata,
    sa.Column("stage", sa.Text, primary_key=True),
    sa.Column("partition", sa.Integer, primary_key=True),
    sa.Column("epoch", sa.BigInteger, nullable=False),
    sa.Column("cursor", sa.Text, nullable=False),
)


class Cursor(NamedTuple):
    """How far a partition's last owner came."""

    epoch: int
    positions: Mapping[str, Position]


LOCK_MS = (500, 2500, 3000)
"""Longest waits for the row of a partition that is claimed, milliseconds. The first is short: a
frozen owner is usually frozen for long by then, and a save that is under way takes less."""


class CheckpointStore:
    """`service.engine.base.Checkpoints` on a database that `open_database` opened."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def claim(self, stage: str, partition: int) -> Claim:
        """Raise the epoch of a partition and read what the last owner stored.

        The last owner may be frozen in the middle of a save and hold the row; then its session is
        ended and the claim made again.
        """
        for lock_ms in LOCK_MS[:-1]:
            try:
                return self._claim(stage, partition, lock_ms)
            except sa.exc.OperationalError:
                if self._engine.dialect.name != "postgresql":
                    raise
                end_frozen_sessions(self._engine)
        return self._claim(stage, partition, LOCK_MS[-1])

    def _claim(self, stage: str, partition: int, lock_ms: int) -> Claim:
        mine = _of(cursors, stage, partition)
        raised = sa.update(cursors).where(mine).values(epoch=cursors.c.epoch + 1)
        found = sa.select(checkpoints.c.key, checkpoints.c.state)
        with self._engine.begin() as connection:
            if self._engine.dialect.name == "postgresql":
                connection.execute(sa.text(f"SET LOCAL lock_timeout = {lock_ms}"))
            connection.execute(
                insert_once(cursors, self._engine),
                {"stage": stage, "partition": partition, "epoch": 0, "cursor": "{}"},
            )
            row = connection.execute(raised.returning(cursors.c.epoch, cursors.c.cursor)).one()
            rows = connection.execute(found.where(_of(checkpoints, stage, partition))).all()
        states = {key: bytes(state) for key, state in rows}
        return Claim(row.epoch, _positions(row.cursor), states)

    def save(
        self,
        stage: str,
        partition: int,
        epoch: int,
        cursor: Mapping[str, Position],
        states: Mapping[str, Snapshot],
    ) -> bool:
        """Store changed states and the cursor in one transaction; False: fenced, nothing stored."""
        mine = sa.and_(_of(cursors, stage, partition), cursors.c.epoch == epoch)
        moved = sa.update(cursors).where(mine).values(cursor=_text(cursor))
        place = {"stage": stage, "partition": partition}
        with self._engine.begin() as connection:
            if connection.execute(moved).rowcount != 1:
                return False
            if states:
                connection.execute(
                    upsert(checkpoints, self._engine, [*place, "key"], ["state", "view"]),
                    [
                        {**place, "key": key, "state": snapshot.state, "view": snapshot.view}
                        for key, snapshot in states.items()
                    ],
                )
            crash_point("K13")
        return True

    def views(self, stage: str) -> list[dict[str, Any]]:
        """Give what readers may see of every key of a stage, by key."""
        columns = sa.select(checkpoints.c.view).where(
            checkpoints.c.stage == stage, checkpoints.c.view.is_not(None)
        )
        with self._engine.connect() as connection:
            rows = connection.execute(columns.order_by(checkpoints.c.key)).scalars().all()
        return [msgspec.json.decode(view, type=dict[str, Any]) for view in rows]

    def view(self, stage: str, key: str) -> dict[str, Any] | None:
        """Give what readers may see of one key; None when there is nothing."""
        column = sa.select(checkpoints.c.view).where(
            checkpoints.c.stage == stage,
            checkpoints.c.key == key,
            checkpoints.c.view.is_not(None),
        )
        with self._engine.connect() as connection:
            view = connection.execute(column.limit(1)).scalar_one_or_none()
        return None if view is None else msgspec.json.decode(view, type=dict[str, Any])

    def cursors(self, stage: str) -> dict[int, Cursor]:
        """Give epoch and positions of every partition of a stage that was ever owned."""
        columns = sa.select(cursors.c.partition, cursors.c.epoch, cursors.c.cursor)
        with self._engine.connect() as connection:
            rows = connection.execute(columns.where(cursors.c.stage == stage)).all()
        return {row.partition: Cursor(row.epoch, _positions(row.cursor)) for row in rows}


def _of(table: sa.Table, stage: str, partition: int) -> sa.ColumnElement[bool]:
    return sa.and_(table.c.stage == stage, table.c.partition == partition)


def _text(cursor: Mapping[str, Position]) -> str:
    return msgspec.json.encode({topic: list(at) for topic, at in cursor.items()}).decode()


def _positions(text: str) -> dict[str, Position]:
    found = msgspec.json.decode(text, type=dict[str, tuple[str, int, str]])
    return {topic: Position(*at) for topic, at in found.items()}
