"""Verdicts over time, from a real embedded log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import sqlalchemy as sa

from service.clock import SetClock
from service.engine.base import Message
from service.engine.local import LocalEngine
from service.record.history import HistoryKeeper
from service.storage.checkpoints import CheckpointStore
from service.storage.history import VerdictHistory
from service.telemetry import Metrics
from tests.builders import NOW
from tests.real import wait_until_async
from tests.service.storage.test_history import a_verdict


async def test_what_watch_said_is_kept_and_what_is_unreadable_is_passed_over(
    sqlite_store: sa.Engine, tmp_path: Path
) -> None:
    """If this breaks, pages and reports have no curves, or one bad message stops them for good."""
    clock, metrics, history = SetClock(NOW), Metrics(), VerdictHistory(sqlite_store)
    engine = LocalEngine(tmp_path / "log", clock, CheckpointStore(sqlite_store), metrics)
    await engine.start()
    HistoryKeeper(engine, clock, metrics, history).register()
    said = [msgspec.json.encode(a_verdict(NOW + n)) for n in range(3)]
    await engine.append("verdicts", [Message(b"m", v) for v in (said[0], b"{", b"", *said[1:])])

    running = asyncio.create_task(engine.run())
    await wait_until_async(lambda: len(history.between("m", 0, 2 * NOW)) == 3, 20, what="kept")
    await engine.stop()
    await running

    assert [NOW, NOW + 1, NOW + 2] == [v.decided_at for v in history.between("m", 0, 2 * NOW)]
    assert 1 == metrics.rejected.labels("history", "unreadable")._value.get()
