"""How many events a second the embedded engine takes in, end to end, and what pending ones weigh.

End to end: from the call that appends a recording's lines to the moment when `status` has counted
the last of them, all roles in one process, half predictions and half outcomes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

from bench.latency import settings
from service.app import ROLES, opened, serve
from service.clock import WallClock
from service.engine.base import Message
from service.storage.checkpoints import CheckpointStore
from service.telemetry import configure_logs

EVENTS, CHUNK = 400_000, 5000


def figures(folder: Path) -> Iterator[tuple[str, str]]:
    """Measure; the best of two runs, since the machine is shared."""
    rates = [asyncio.run(_rate(folder / f"run{n}")) for n in range(2)]
    yield "local.events_per_s_end_to_end", f"{max(rates):.0f}"


async def _rate(folder: Path) -> float:
    configure_logs(pretty=False, level="critical")
    config = settings(f"local:{folder}", folder)
    async with opened(config) as parts:
        stop, ready = asyncio.Event(), asyncio.Event()
        daemon = asyncio.create_task(serve(config, set(ROLES), stop, ready=ready))
        await ready.wait()
        chunks = list(_recording(WallClock().now_ms() - EVENTS))
        store = CheckpointStore(parts.database)
        started = parts.clock.monotonic_s()
        for predictions, outcomes in chunks:
            await parts.engine.append("predictions", predictions)
            await parts.engine.append("outcomes", outcomes)
        while True:
            await asyncio.sleep(0.02)
            view = await asyncio.to_thread(store.view, "watch", "m")
            if view and sum(v["outcomes"] for v in view["versions"]) == EVENTS // 2:
                break
        elapsed_s = parts.clock.monotonic_s() - started
        stop.set()
        await daemon
    return EVENTS / elapsed_s


def _recording(start_ms: int) -> Iterator[tuple[list[Message], list[Message]]]:
    for first in range(0, EVENTS // 2, CHUNK // 2):
        numbers = range(first, first + CHUNK // 2)
        predictions = [_line(n, {
            "prediction_id": f"req-{n:020x}", "model": "m", "version": "v42" if n % 10 == 0
            else "v41", "served_at": start_ms + n, "prediction": n % 2, "score": 0.5,
            "latency_ms": 12.5, "weight": 0.1 if n % 10 == 0 else 0.9,
        }) for n in numbers]  # fmt: skip
        outcomes = [_line(n, {"prediction_id": f"req-{n:020x}", "observed_at": start_ms + n + 900,
                              "label": (n // 3) % 2}) for n in numbers]  # fmt: skip
        yield predictions, outcomes


def _line(number: int, event: dict[str, object]) -> Message:
    return Message(f"req-{number:020x}".encode(), json.dumps(event).encode())
