"""The fixture `bench`: every engine in turn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.contracts.engines import BENCHES, EngineBench

MARKED = {"kafka": [pytest.mark.kafka]}


@pytest_asyncio.fixture(params=[pytest.param(name, marks=MARKED.get(name, [])) for name in BENCHES])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EngineBench]:
    """One engine's bench on data of its own."""
    async with BENCHES[request.param](request, tmp_path) as opened:
        yield opened
