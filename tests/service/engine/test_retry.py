"""The one back-off of the engines."""

from __future__ import annotations

import asyncio
import time

import pytest
from structlog.testing import capture_logs

from service.engine.base import EngineFault
from service.engine.retry import Retry, Stopped
from service.telemetry import Metrics
from tests.real import wait_until_async


class Flaky:
    """Raises so often, then answers."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.called_at_s: list[float] = []

    async def __call__(self) -> str:
        self.called_at_s.append(time.monotonic())
        if len(self.called_at_s) <= self.failures:
            raise OSError("the disk is full")
        return "done"


async def test_it_calls_again_with_growing_pauses_and_one_line_a_burst() -> None:
    """If this breaks, a full disk fills the log too, or a failure is given up."""
    metrics, flaky = Metrics(), Flaky(failures=3)
    retry = Retry("watch", metrics.errors, asyncio.Event())

    with capture_logs() as lines:
        answer = await retry.insist("checkpoint", flaky)

    assert ("done", 3.0) == (answer, metrics.errors.labels(stage="watch")._value.get())
    assert [("error", 1), ("info", 1)] == [
        (level, sum(line["log_level"] == level for line in lines)) for level in ("error", "info")
    ]
    pauses_s = [b - a for a, b in zip(flaky.called_at_s, flaky.called_at_s[1:], strict=False)]
    assert all(least <= pause for least, pause in zip((0.09, 0.19, 0.39), pauses_s, strict=True))
    assert [] == retry.failing


async def test_a_stop_ends_a_pause_at_once() -> None:
    """If this breaks, a daemon with a failing database does not stop."""
    stopping = asyncio.Event()
    retry = Retry("watch", Metrics().errors, stopping)
    flaky = Flaky(failures=100)

    insisting = asyncio.create_task(retry.insist("checkpoint", flaky))
    # Then the next pause takes 1.6 s.
    await wait_until_async(lambda: len(flaky.called_at_s) >= 5, 30)
    failing = retry.failing
    stopping.set()

    with pytest.raises(Stopped):
        await asyncio.wait_for(insisting, 1.2)
    assert ["checkpoint"] == failing


async def test_what_trying_again_cannot_help_comes_through() -> None:
    """If this breaks, a hole in the log is retried for ever instead of being told."""
    retry = Retry("watch", Metrics().errors, asyncio.Event())

    async def fail() -> None:
        raise EngineFault("a hole")

    with pytest.raises(EngineFault, match="a hole"):
        await retry.insist("open", fail, passes=(EngineFault,))
