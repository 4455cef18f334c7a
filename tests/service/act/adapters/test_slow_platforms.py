"""A platform that is slow: the write was sent, no answer came in time, and it was done later."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.act.adapters.base import Ask
from tests.builders import a_command
from tests.contracts.fake_benches import (
    FakeBench,
    azure_ml_bench,
    mlflow_bench,
    sagemaker_bench,
    vertex_ai_bench,
)
from tests.service.act.executing import Bed

OPEN = {
    "azure_ml": azure_ml_bench, "mlflow": mlflow_bench, "sagemaker": sagemaker_bench,
    "vertex_ai": vertex_ai_bench,
}  # fmt: skip


@pytest.fixture(params=sorted(OPEN))
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, bed: Bed
) -> AsyncIterator[FakeBench]:
    async with OPEN[request.param](tmp_path, lambda: bed.clock.now_ms() / 1000) as opened:
        yield opened


async def test_a_write_without_an_answer_in_time_is_looked_up(bench: FakeBench, bed: Bed) -> None:
    """If this breaks, a slow platform is told twice, or a done rollback is called failed."""
    bench.fake.faults = ["slow"]
    adapter: Any = bench.adapter()
    await adapter.current(
        Ask(a_command(), 0)
    )  # credentials and schemas are loaded before the clock counts
    for one in ("_aws", "_caller"):
        if hasattr(adapter, one):
            getattr(adapter, one)._http._deadline_s = 3.0
    receipt = await bed.execute(adapter, a_command())

    assert ("already_there", "full", 1) == (
        receipt.status, receipt.detail["effect"], receipt.attempts
    )  # fmt: skip
    assert "no answer within 3 s" in str(receipt.detail["requests"])
    assert ({"v41": 100.0}, 1) == (bench.shares(), len(bench.writes()))


async def test_a_proxy_that_answers_with_a_page_is_no_platform(bench: FakeBench, bed: Bed) -> None:
    """If this breaks, a login page with 200 is read as an endpoint that serves nothing."""
    page = "<html>sign in</html>"
    bench.fake.read_faults = [(200, {"content-type": "text/html"}, page)] * 3
    receipt = await bed.execute(bench.adapter(), a_command())

    assert ("applied", [1.0, 2.0, 4.0]) == (receipt.status, bed.pauses[:3])
