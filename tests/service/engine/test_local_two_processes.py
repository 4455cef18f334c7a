"""Two processes on one embedded log: opening and closing it beside the daemon loses nothing."""

import subprocess
import sys
from pathlib import Path

import sqlalchemy as sa

from service.engine.base import Message
from tests.service.running import a_local_engine

VISIT = """
import asyncio, sys
from pathlib import Path
from service.storage.database import open_database
from tests.service.running import a_local_engine

async def visit():
    engine = a_local_engine(Path(sys.argv[1]), open_database("sqlite://"))
    await engine.start()
    print(len(await engine.read("receipts")))
    await engine.stop()

asyncio.run(visit())
"""


def visit(log: Path) -> int:
    """Read the log in another process that then closes it."""
    done = subprocess.run(
        [sys.executable, "-c", VISIT, str(log)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[3], timeout=60,
    )  # fmt: skip
    return int(done.stdout)


async def test_a_visitor_does_not_take_away_what_is_appended_after(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, `rollbackd status` beside the daemon makes acknowledged messages vanish."""
    log = tmp_path / "messages"
    engine = a_local_engine(log, sqlite_store)
    await engine.start()
    counts = []
    for _ in range(3):
        await engine.append("receipts", [Message(b"m", b"{}")])
        counts.append(visit(log))
    await engine.stop()

    assert [1, 2, 3] == counts
