"""The memory of a daemon that lives on batches."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Iterator

import numpy as np
import psutil
import pytest

from service.memory import NEW_OBJECTS, collect_seldom, give_back, give_back_often


@pytest.fixture
def collector() -> Iterator[None]:
    before = gc.get_threshold()
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def test_cycles_are_still_collected(collector: None) -> None:
    """If this breaks, a daemon leaks what refers to itself."""
    collect_seldom()

    cycle: list[object] = []
    cycle.append(cycle)
    del cycle

    assert NEW_OBJECTS == gc.get_threshold()[0]
    assert gc.collect() >= 1


def test_freed_memory_is_given_back() -> None:
    """If this breaks, a burst of events is paid for until the next restart."""
    process = psutil.Process()
    # Many small arrays with gaps between them stay in the C library's pools when freed.
    small = [np.ones(1000) for _ in range(20_000)]
    del small[::2]
    kept = small[::100]
    del small
    before = process.memory_info().rss
    give_back()

    assert process.memory_info().rss <= before
    assert 1000 == len(kept[0])


async def test_it_stops_at_once() -> None:
    """If this breaks, stopping the daemon takes a minute."""
    stop = asyncio.Event()
    job = asyncio.create_task(give_back_often(stop))
    await asyncio.sleep(0)
    stop.set()

    await asyncio.wait_for(job, 2)
