"""An empty database of each kind, for tests that must hold on both."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.storage.database import open_database


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[sa.Engine]:
    engine = open_database(f"sqlite:///{tmp_path / 'store.db'}")
    yield engine
    engine.dispose()


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[sa.Engine]:
    """SQLite and a real PostgreSQL, one after the other."""
    if request.param == "sqlite":
        url = f"sqlite:///{tmp_path / 'both.db'}"
    else:
        url = request.getfixturevalue("database")
    engine = open_database(url)
    yield engine
    engine.dispose()
