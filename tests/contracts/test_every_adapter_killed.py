"""The act role under kill -9 at each of its points, in real processes: the effect comes once.

The truth is the platform's own account of what was written to it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from schemas.commands import Expected
from schemas.facts import Receipt
from service.clock import WallClock
from service.crash import VARIABLE
from service.engine.base import Message
from service.engine.local import LocalEngine
from service.signing import Signer
from tests.builders import a_command
from tests.contracts.act_process import open_engine
from tests.contracts.adapters import BENCHES, SHARES, AdapterBench, HAProxyBench, WebhookBench
from tests.contracts.kube_benches import KUBE
from tests.real import Process, run_process, wait_until_async

pytestmark = pytest.mark.e2e

BOOT_S = 30.0
KILLED = -9


ALIKE = frozenset(KUBE) - {"kubernetes", "istio"}
"""They write by the same client and the same code as the two that are killed."""


@pytest.fixture(params=[kind for kind in BENCHES if kind != "dry_run" and kind not in ALIKE])
async def bench(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AdapterBench]:
    async with BENCHES[request.param](tmp_path, lambda: WallClock().now_ms() / 1000) as opened:
        yield opened


def settings_of(bench: AdapterBench) -> tuple[str, dict[str, Any]]:
    """Kind and settings of a bench's adapter, for another process."""
    if settings := getattr(bench, "settings", None):
        return settings()  # type: ignore[no-any-return]
    adapter = bench.adapter()
    if isinstance(bench, HAProxyBench):
        servers = {version: f"s-{version}" for version in ("v41", "v42", "v43")}
        return "haproxy", {"socket": bench.balancer.socket, "backend": "fraud", "servers": servers}
    assert isinstance(bench, WebhookBench)
    return "webhook", {"url": adapter.url.reveal(), "secret": adapter.secret.reveal()}  # type: ignore[attr-defined]


@asynccontextmanager
async def acting(bench: AdapterBench, home: Path, crash: str = "") -> AsyncIterator[Process]:
    """Run the role in a process of its own, which may be told to kill itself."""
    kind, settings = settings_of(bench)
    told = {"home": str(home), "kind": kind, "settings": json.dumps(settings)}
    command = [sys.executable, "-m", "tests.contracts.act_process", json.dumps(told)]
    root = Path(__file__).parents[2]
    env = {VARIABLE: crash} if crash else {VARIABLE: ""}
    with run_process(command, home / "act.log", env, cwd=root) as process:
        yield process


async def receipts(engine: LocalEngine) -> list[Receipt]:
    read = await engine.read("receipts")
    return [msgspec.json.decode(record.value, type=Receipt) for record in read]


@pytest.mark.parametrize("point", ["K7", "K8", "K9", "K10", "K11"])
async def test_a_kill_at_every_point_leaves_one_effect(
    bench: AdapterBench, tmp_path: Path, point: str
) -> None:
    """If this breaks, a restart at a bad moment loses a rollback, or does it twice."""
    now_ms = WallClock().now_ms()
    start = getattr(bench, "start", SHARES)
    expected = Expected("v41", "v42", start["v42"] / 100)
    command = a_command(issued_at=now_ms, expires_at=now_ms + 120_000, expected=expected)
    value = msgspec.json.encode(command)
    headers = Signer.load_or_create(tmp_path / "watch.pem").sign(value)
    engine = open_engine(tmp_path)
    await engine.start()
    await engine.append("commands", [Message(command.model.encode(), value, headers=headers)])

    async with acting(bench, tmp_path, f"{point}:1") as process:
        await wait_until_async(lambda: not process.alive, BOOT_S, what=f"killed at {point}")
        assert KILLED == process.child.returncode
    before = list(bench.writes())
    async with acting(bench, tmp_path) as process:
        said = await wait_until_async(lambda: receipts(engine), BOOT_S, what="a receipt")
        assert process.alive
    await engine.stop()

    assert {"v41": 100.0} == bench.shares()
    assert {command.command_id} == {receipt.command_id for receipt in said}
    assert 1 == len({msgspec.json.encode(receipt) for receipt in said})
    sets = bench.writes()
    if point in ("K10", "K11"):
        assert before == sets  # the call was over: nothing is sent again
    assert len(sets) == len(set(sets)) or point == "K9"
    status = {"K7": "applied", "K8": "applied", "K10": "already_there", "K11": "applied"}
    # A call that was cut off may have been done or not; both end in the asked state.
    assert said[-1].status == status.get(point, said[-1].status)
    assert said[-1].status in ("applied", "already_there")
