"""The database's layout: made, brought forward, or refused; on both databases."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext

from service.storage.database import StorageFault, metadata, open_database
from service.storage.schema import MIGRATIONS, all_tables, newest, version_table


def test_the_steps_lead_to_the_tables_that_the_code_declares(store: sa.Engine) -> None:
    """If this breaks, an upgraded installation has another layout than a fresh one."""
    all_tables(metadata).drop_all(store)
    with store.begin() as connection:
        version_table.drop(connection)
        config = Config()
        config.set_main_option("script_location", str(MIGRATIONS))
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
    with store.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        differences = compare_metadata(context, all_tables(metadata))
        number = connection.execute(sa.select(version_table.c.version_num)).scalar()

    assert [] == differences
    assert newest() == number


def test_many_that_start_together_make_one_layout(tmp_path: Path) -> None:
    """If this breaks, six roles that start together for the first time fight over the tables."""
    url = f"sqlite:///{tmp_path}/store.db"
    engine = open_database(url)
    all_tables(metadata).drop_all(engine)
    with engine.begin() as connection:
        version_table.drop(connection)
    faults: list[Exception] = []

    def start() -> None:
        try:
            open_database(url).dispose()
        except StorageFault as fault:
            faults.append(fault)

    starts = [threading.Thread(target=start) for _ in range(4)]
    for one in starts:
        one.start()
    for one in starts:
        one.join()

    assert [] == faults
    with engine.connect() as connection:
        assert newest() == connection.execute(sa.select(version_table.c.version_num)).scalar()


@pytest.mark.parametrize(
    ("number", "words"),
    [("9999", "has layout 9999 and this program knows"), (None, "made before the first release")],
)
def test_a_layout_that_is_not_known_is_refused(
    tmp_path: Path, number: str | None, words: str
) -> None:
    """If this breaks, an old program writes into a newer record, and nobody can read it."""
    url = f"sqlite:///{tmp_path}/store.db"
    with open_database(url).begin() as connection:
        if number is None:
            version_table.drop(connection)
        else:
            connection.execute(version_table.update().values(version_num=number))

    with pytest.raises(StorageFault, match=words):
        open_database(url)
