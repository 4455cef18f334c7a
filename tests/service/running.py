"""Run a real local engine with some handlers while a block lasts."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import sqlalchemy as sa

from service.clock import Clock, WallClock
from service.engine.local import LocalEngine
from service.storage.checkpoints import CheckpointStore
from service.telemetry import Metrics


def a_local_engine(
    path: Path, store: sa.Engine, clock: Clock | None = None, metrics: Metrics | None = None
) -> LocalEngine:
    """A local engine on this folder, not started."""
    checkpoints = CheckpointStore(store)
    return LocalEngine(path, clock or WallClock(), checkpoints, metrics or Metrics())


@asynccontextmanager
async def serving(engine: LocalEngine) -> AsyncIterator[LocalEngine]:
    """Serve what is registered until the block ends."""
    await engine.start()
    running = asyncio.create_task(engine.run())
    try:
        yield engine
    finally:
        await engine.stop()
        await running
