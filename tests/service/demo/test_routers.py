"""Both routers split real requests as they are told, and our own adapters move them."""

import asyncio
import contextlib
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest

import service.act.adapters as adapter_files
from schemas.commands import Command, Expected
from schemas.plugins import Registry
from schemas.secrets import Secret
from service.act.adapters.base import Adapter, Ask
from service.act.plans import Plan
from service.clock import WallClock
from service.demo import haproxy as haproxy_router
from service.demo import http1, small_router
from service.demo.model_server import Answer, Asked, serve_model
from service.demo.models import Model
from service.demo.router import Router, read_weights
from service.plug import build
from service.webhooks import read_keys, sign
from tests.builders import a_command

CLOCK = WallClock()
KINDS = ["small", pytest.param("haproxy", marks=pytest.mark.haproxy)]


@asynccontextmanager
async def a_router(kind: str, request: pytest.FixtureRequest) -> AsyncIterator[Any]:
    """A router over two tiny models."""
    async with contextlib.AsyncExitStack() as open_ones:
        servers = {}
        for version in ("v41", "v42"):
            model = Model(version, 0.0, {"AGEP": {4: 1.0}}, 10, {"AGEP": 42}, {})
            servers[version] = await open_ones.enter_async_context(serve_model(model, CLOCK))
        if kind == "small":
            yield await open_ones.enter_async_context(small_router.run(servers, CLOCK))
        else:
            program = request.getfixturevalue("haproxy")
            with tempfile.TemporaryDirectory(prefix="rb-") as folder:
                running = haproxy_router.run(program, servers, Path(folder), CLOCK)
                async with running as router:
                    yield router


async def answers(router: Router, count: int) -> tuple[Counter[str], http1.Message]:
    """Ask so often, and give who answered and the last reply."""
    line, versions = http1.Line(router.port), Counter[str]()
    for _ in range(count):
        reply = await line.ask("POST /predict", msgspec.json.encode(Asked({"AGEP": 42})))
        versions[msgspec.json.decode(reply.body, type=Answer).version] += 1
    line.close()
    return versions, reply


def an_adapter(router: Router) -> Adapter:
    """The adapter that the demonstration's settings name."""
    lines: list[str] = []
    made = build(Registry.of(adapter_files), router.adapter, "adapters.router", lines)
    assert not lines
    assert isinstance(made, Adapter)
    return made


def the_rollback(**changes: Any) -> Command:
    """From v42, which has a fifth, to v41."""
    return a_command(expected=Expected("v41", "v42", 0.2), **changes)


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_are_split_by_weight(kind: str, request: pytest.FixtureRequest) -> None:
    """If this breaks, the canary gets another share than the release gave it."""
    async with a_router(kind, request) as router:
        alone, _ = await answers(router, 50)
        await router.shift({"v41": 80, "v42": 20})
        versions, last = await answers(router, 400)
        counted = await router.served()

    assert Counter(v41=50) == alone
    assert 55 <= versions["v42"] <= 105
    assert {"v41": 0.8, "v42": 0.2} == read_weights(last.headers["x-weights"])
    assert versions["v42"] == counted["v42"]


@pytest.mark.parametrize("kind", KINDS)
async def test_our_adapter_takes_the_canary_out(kind: str, request: pytest.FixtureRequest) -> None:
    """If this breaks, the demonstration's rollback never reaches its traffic."""
    async with a_router(kind, request) as router:
        await router.shift({"v41": 80, "v42": 20})
        adapter, ask = an_adapter(router), Ask(the_rollback(), CLOCK.now_ms())
        before = await adapter.current(ask)
        plan = adapter.plan(before, ask.command)
        assert isinstance(plan, Plan)
        await adapter.apply(ask, plan)
        after = await adapter.current(ask)
        versions, _ = await answers(router, 100)
        missing = await adapter.missing()

    assert {"v41": 80.0, "v42": 20.0} == before.shares
    assert {"v41": 100.0, "v42": 0.0} == after.shares
    assert Counter(v41=100) == versions
    assert [] == missing


async def post(router: Any, command: Mapping[str, Any], secret: str) -> httpx2.Response:
    """Post a command, signed with a secret."""
    body = msgspec.json.encode(command)
    headers = sign(read_keys(Secret(secret)), "c-1", CLOCK.now_ms() // 1000, body)
    async with httpx2.AsyncClient(trust_env=False) as client:
        return await client.post(router.adapter["url"], content=body, headers=headers)


async def test_a_forged_order_moves_nothing(request: pytest.FixtureRequest) -> None:
    """If this breaks, anyone on the machine can move the demonstration's traffic."""
    order = {"action": "promote", "from_version": "v41", "to_version": "v42"}
    async with a_router("small", request) as router:
        forged = await post(router, order, "x" * 32)
        versions, _ = await answers(router, 20)
        honest = await post(router, order, router.adapter["secret"])

    assert 401 == forged.status_code
    assert Counter(v41=20) == versions
    assert "applied" == honest.json()["status"]


async def test_an_order_about_another_state_is_superseded(request: pytest.FixtureRequest) -> None:
    """If this breaks, an old command undoes what a person has done since."""
    order = msgspec.to_builtins(the_rollback())
    async with a_router("small", request) as router:
        secret = router.adapter["secret"]
        await router.shift({"v41": 50, "v42": 50})
        late = await post(router, order, secret)
        await router.shift({"v41": 80, "v42": 20})
        first, second = [await post(router, order, secret) for _ in range(2)]

    assert (409, "superseded") == (late.status_code, late.json()["status"])
    assert ("applied", "already_there") == (first.json()["status"], second.json()["status"])


async def test_a_router_that_does_not_start_says_why(
    haproxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a broken HAProxy looks like a hanging demonstration."""
    monkeypatch.setattr(haproxy_router, "CONFIG", "nonsense {socket} {fd} {backend} {weights}\n")
    with tempfile.TemporaryDirectory(prefix="rb-") as folder:
        running = haproxy_router.run(haproxy, {"v41": 1}, Path(folder), CLOCK)
        with pytest.raises(RuntimeError, match=r"HAProxy did not start.*nonsense"):
            async with asyncio.timeout(20), running:
                pass
