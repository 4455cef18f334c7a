"""The database's layout and its versions: made whole when empty, brought forward when older.

Why. A new release must find the incident log of the last one, and never half of it. Each change of
layout is a step in `migrations/versions`, named by a growing number; the database knows its own.

How. An empty database gets all tables at once and the newest number. An older one is brought
forward by alembic, in one transaction, by one process while the others wait. Tables are found by
walking this folder, so that no process makes only those that it happens to use.

Refused: a database without a number (made before the first release), and one that is newer than
this program.
"""

from __future__ import annotations

import importlib
import pkgutil
from pathlib import Path

import sqlalchemy as sa

MIGRATIONS = Path(__file__).parent / "migrations"
_ONE_AT_A_TIME = 7_262_002
"""Number of the advisory lock on PostgreSQL; any fixed number that nothing else here uses."""

version_table = sa.Table(
    "alembic_version", sa.MetaData(), sa.Column("version_num", sa.String(32), primary_key=True)
)


class LayoutFault(RuntimeError):
    """The database's layout is none that this program can use; the text says what to do."""


def newest() -> str:
    """Number of the newest layout."""
    return max(file.name.partition("_")[0] for file in (MIGRATIONS / "versions").glob("0*.py"))


def all_tables(metadata: sa.MetaData) -> sa.MetaData:
    """The metadata with the tables of every module of this folder."""
    for module in pkgutil.iter_modules([str(Path(__file__).parent)]):
        if module.name != "migrations":
            importlib.import_module(f"service.storage.{module.name}")
    return metadata


def bring_forward(engine: sa.Engine, metadata: sa.MetaData) -> None:
    """Make the tables, or bring them to the newest layout.

    Raises
    ------
    LayoutFault
        When the layout is unknown here.
    """
    tables = all_tables(metadata)
    with engine.begin() as connection:
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_ONE_AT_A_TIME)))
        present = set(sa.inspect(connection).get_table_names())
        if not present & set(tables.tables):
            tables.create_all(connection)
            version_table.create(connection, checkfirst=True)
            connection.execute(version_table.insert().values(version_num=newest()))
            return
        found = None
        if version_table.name in present:
            found = connection.execute(sa.select(version_table.c.version_num)).scalar()
        if found is None:
            raise LayoutFault(
                "was made before the first release; move it away, or name another one"
            )
        if found > newest():
            raise LayoutFault(
                f"has layout {found} and this program knows {newest()}; install the newer rollbackd"
            )
        if found < newest():
            _upgrade(connection)


def _upgrade(connection: sa.Connection) -> None:
    # Only here: importing alembic takes a while, and most starts need none of it.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
