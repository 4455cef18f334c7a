"""A worker that was frozen longer than its session, and comes back."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from tests.contracts.engines import KafkaBench
from tests.contracts.killing import Workers, _all_share, _all_taken, _verify, at_rest, loading

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("frozen_s", [9, 20])
async def test_a_frozen_worker_is_fenced_when_it_comes_back(
    kafka: str, database: str, tmp_path: Path, frozen_s: int
) -> None:
    """If this breaks, a machine that slept writes its old evidence over its successor's.

    It is frozen twice: first at any moment after its first record, often while it opens what it was
    given, where only what is counted matters; then with all groups at rest, to be measured. The
    8 s that are promised for kill -9 are not promised here. A killed process lets go of its
    database session at once, a frozen one keeps it, with the lock on its partition when it was in
    the middle of a save, until its successor has waited for that lock and ends the session. So the
    bound is that of a single takeover, twice the promise.
    """
    # A process that is frozen inside a transaction keeps its locks. PostgreSQL can end it; SQLite
    # cannot, but then all processes are on one machine and freeze together.
    unlocked = "?options=-c%20idle_in_transaction_session_timeout%3D2000"
    bench = KafkaBench(kafka, tmp_path, storage=database + unlocked)
    await bench.make_topic("predictions")
    workers = Workers(bench, tmp_path)
    takeovers_s = []
    async with loading(bench, workers) as load:
        for count in (1, 2):
            workers.start()
            await _all_share(bench, workers, count)
        for measured in (False, True):
            if measured:
                await at_rest(bench, workers)
            zombie = workers.running[0]
            before = {n: epoch for n, (epoch, log) in workers.taken().items() if log == zombie.log}
            zombie.send(signal.SIGSTOP)
            frozen_at_s = time.monotonic()
            await _all_taken(bench, workers, before)
            took_s = time.monotonic() - frozen_at_s
            if measured:
                takeovers_s.append(took_s)
            await asyncio.sleep(max(0.0, frozen_s - took_s))
            zombie.send(signal.SIGCONT)
            await _all_share(bench, workers, 2)
        survived = await _verify(bench, workers, load, 2, takeovers_s)
    await bench.delete_all()
    print(f"frozen {frozen_s} s: {survived}")
    assert survived.takeovers_s[-1] <= bench.takeover_max_s
