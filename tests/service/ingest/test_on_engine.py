"""The worker on the real local engine: stopped and started again, over and over."""

from __future__ import annotations

import asyncio
from pathlib import Path

from schemas.observations import unpack
from service.clock import WallClock
from service.config import IngestSettings
from service.engine.base import Message
from service.engine.local import LocalEngine
from service.ingest.worker import IngestWorker
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.telemetry import Metrics
from tests.real import wait_until_async
from tests.service.ingest.journey import Row, outcome, policy, prediction, rows_of


async def run_until(root: Path, wanted: int) -> list[Row]:
    """Run a fresh daemon's worker until so many rows are said; return all rows."""
    database = open_database(f"sqlite:///{root / 'state.db'}")
    clock, metrics = WallClock(), Metrics()
    engine = LocalEngine(root / "log", clock, CheckpointStore(database), metrics, partitions=2)
    await engine.start()
    try:
        worker = IngestWorker(
            engine, clock, metrics, IngestSettings(), [policy("m", 3600.0)], root / "state"
        )
        worker.register()
        running = asyncio.create_task(engine.run())

        async def rows() -> list[Row]:
            said = [unpack(record.value) for record in await engine.read("observations")]
            found = [row for message in said for row in rows_of(message)]
            return found if len(found) >= wanted else []

        found = await wait_until_async(rows, 20.0, what=f"{wanted} rows")
        await engine.stop()
        await running
        return found
    finally:
        await engine.stop()
        database.dispose()


async def write(root: Path, first: int) -> None:
    database = open_database(f"sqlite:///{root / 'state.db'}")
    engine = LocalEngine(
        root / "log", WallClock(), CheckpointStore(database), Metrics(), partitions=2
    )
    await engine.start()
    ids = [f"p{n}" for n in range(first, first + 50)]
    await engine.append("predictions", [Message(i.encode(), prediction(i)) for i in ids])
    # Every second outcome belongs to the run before.
    ids[::2] = [f"p{n}" for n in range(first - 50, first, 2)]
    await engine.append("outcomes", [Message(i.encode(), outcome(i, 1)) for i in ids])
    await engine.stop()
    database.dispose()


async def test_nothing_is_lost_or_doubled_over_restarts(tmp_path: Path) -> None:
    """If this breaks, an upgrade of the daemon loses labels."""
    for turn in range(3):
        await write(tmp_path, 50 * turn)
        # Each turn: 50 served, 25 labelled now, and 25 of the turn before.
        rows = await run_until(tmp_path, 75 + 100 * turn)
    served = [row for row in rows if row.kind == "served"]
    labelled = [row for row in rows if row.kind == "labelled"]
    assert 150 == len(served)
    assert 125 == len(labelled)
    assert len(rows) == 275
