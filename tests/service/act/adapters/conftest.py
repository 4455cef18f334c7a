"""The bed that executes commands, for every adapter's tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.act.executing import Bed


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()
