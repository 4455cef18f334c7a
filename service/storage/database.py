"""One database: SQLite (WAL) on one machine, PostgreSQL for a cluster; SQLAlchemy Core for both.

Each module of this folder declares its tables on `metadata` here and has one class of verbs over
them. All calls block; shells run them in threads. Writes are short transactions.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import make_url

from service.storage.schema import LayoutFault, bring_forward

metadata = sa.MetaData()

BUSY_S = 30.0
"""How long a writer waits for another one's transaction before it gives up."""


APPLICATION = "rollbackd"
"""What our sessions are called in PostgreSQL."""

FROZEN_S = 2
"""A session that waits for its client inside a transaction for so long belongs to a frozen process:
our transactions never wait for anything else."""

IDLE_TRANSACTION_MS = 10_000
"""PostgreSQL ends a session that does nothing inside a transaction for so long."""


class StorageFault(RuntimeError):
    """The database cannot be used; the text says which and what to do."""


def open_database(url: str) -> sa.Engine:
    """Open the database at a `sqlite:///…` or `postgresql://…` address, in the newest layout.

    Raises
    ------
    StorageFault
        When it cannot be reached or opened; the address is shown without its password.
    """
    try:
        target = make_url(url)
    except sa.exc.ArgumentError:
        raise StorageFault(
            "storage is not an address such as sqlite:///file or postgresql://…"
        ) from None
    if target.get_backend_name() == "postgresql" and target.drivername == "postgresql":
        target = target.set(drivername="postgresql+psycopg")
    if target.get_backend_name() == "sqlite" and target.database:
        Path(target.database).expanduser().parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        engine = sa.create_engine(target, pool_pre_ping=True, **_options(target))
        if target.get_backend_name() == "sqlite":
            sa.event.listen(engine, "connect", _prepare_sqlite)
            sa.event.listen(engine, "begin", _begin_immediate)
        bring_forward(engine, metadata)
    except LayoutFault as fault:
        shown = target.render_as_string(hide_password=True)
        raise StorageFault(f"storage {shown} {fault}") from None
    except sa.exc.SQLAlchemyError as fault:
        shown = target.render_as_string(hide_password=True)
        reason = str(getattr(fault, "orig", None) or fault).strip().splitlines()[0]
        raise StorageFault(f"storage {shown} cannot be opened: {reason}") from None
    return engine


def _options(target: sa.URL) -> dict[str, Any]:
    if target.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_S, "check_same_thread": False}}
    arguments: dict[str, Any] = {"connect_timeout": 10, "application_name": APPLICATION}
    if "options" not in target.query:
        # A process that was frozen inside a transaction would hold its locks for ever.
        arguments["options"] = f"-c idle_in_transaction_session_timeout={IDLE_TRANSACTION_MS}"
    return {"pool_size": 5, "max_overflow": 5, "connect_args": arguments}


def _prepare_sqlite(connection: Any, _: Any) -> None:
    # SQLAlchemy begins transactions itself (below); the driver must not do it a second time.
    connection.isolation_level = None
    cursor = connection.cursor()
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def _begin_immediate(connection: sa.Connection) -> None:
    # A deferred transaction that reads first fails at its write when another writer was faster.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def end_frozen_sessions(engine: sa.Engine) -> int:
    """End our own sessions whose process stands still inside a transaction; how many there were.

    PostgreSQL's time-out for idle transactions does not see one that was frozen between the
    statements of a pipeline, which is how psycopg sends many rows; its locks would stay as long as
    it sleeps. It loses nothing: whoever took its place is ahead of it. SQLite has no sessions.
    """
    if engine.dialect.name != "postgresql":
        return 0
    ended = sa.text(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() "
        "AND datname = current_database() AND usename = current_user "
        "AND application_name = :application AND wait_event = 'ClientRead' "
        "AND xact_start < clock_timestamp() - make_interval(secs => :frozen_s)"
    )
    with engine.begin() as connection:
        given = {"application": APPLICATION, "frozen_s": FROZEN_S}
        return len(connection.execute(ended, given).all())


def insert_once(table: sa.Table, engine: sa.Engine) -> Any:
    """An INSERT that does nothing on a conflict, in the words of this database."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_pg

        return insert_pg(table).on_conflict_do_nothing()
    from sqlalchemy.dialects.sqlite import insert as insert_lite

    return insert_lite(table).on_conflict_do_nothing()


def upsert(table: sa.Table, engine: sa.Engine, keys: list[str], changed: list[str]) -> Any:
    """An INSERT that replaces the columns `changed` of the row that has the same `keys`."""
    if engine.dialect.name == "postgresql":
        from sqlalchemy.dialects.postgresql import insert as insert_pg

        pg = insert_pg(table)
        return pg.on_conflict_do_update(
            index_elements=keys, set_={name: pg.excluded[name] for name in changed}
        )
    from sqlalchemy.dialects.sqlite import insert as insert_lite

    lite = insert_lite(table)
    return lite.on_conflict_do_update(
        index_elements=keys, set_={name: lite.excluded[name] for name in changed}
    )
