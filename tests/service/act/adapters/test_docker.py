"""Docker behind HAProxy: the engine is a fake that the vendor's client reads, the proxy is real."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import docker
import pytest

from service.act.adapters.docker import Docker
from tests.builders import a_command
from tests.fake_platforms.docker import FakeDocker
from tests.fake_platforms.serving import serving
from tests.platforms import Balancer, balancing
from tests.real import program
from tests.service.act.executing import Bed

pytestmark = pytest.mark.haproxy

SERVERS = {version: f"s-{version}" for version in ("v41", "v42", "v43")}


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[Balancer]:
    with balancing(program("haproxy"), tmp_path, {"v41": 90, "v42": 10, "v43": 0}) as made:
        yield made


@pytest.fixture
async def engine(bed: Bed, tmp_path: Path) -> AsyncIterator[FakeDocker]:
    made = FakeDocker(lambda: bed.clock.now_ms() / 1000, tuple(SERVERS))
    async with serving(made, tmp_path / "docker.sock"):
        yield made


def adapter_of(balancer: Balancer, **changes: Any) -> Docker:
    socket = str(balancer.home / "docker.sock")
    return Docker(socket, "fraud", balancer.socket, "fraud", SERVERS, **changes)


async def test_the_vendors_own_client_reads_the_fake(engine: FakeDocker, tmp_path: Path) -> None:
    """If this breaks, the fake is no engine and the tests below prove nothing."""
    engine.stop("v41")
    engine.allowed = [*engine.allowed, "GET /version"]

    def ask() -> list[tuple[str, str]]:
        client = docker.DockerClient(f"unix://{tmp_path}/docker.sock", version="1.44")
        found = client.containers.list(all=True, filters={"label": "rollbackd.deployment=fraud"})
        next(one for one in found if one.status == "exited").start()
        again = client.containers.list(filters={"label": "rollbackd.version=v41"})
        told = [(one.name, one.status) for one in [*found, *again]]
        client.close()
        return told

    assert [
        ("fraud-v41", "exited"), ("fraud-v42", "running"), ("fraud-v43", "running"),
        ("fraud-v41", "running"),
    ] == await asyncio.to_thread(ask)  # fmt: skip


async def test_a_running_container_gets_traffic_without_another_call(
    bed: Bed, engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, requests stay on the bad version, or the engine is written to for nothing."""
    receipt = await bed.execute(adapter_of(balancer), a_command())

    assert ("applied", {"v41": 30}) == (receipt.status, balancer.ask(30))
    assert ([], []) == (engine.written, engine.forbidden)
    assert any("compose" in note for note in receipt.detail["notes"])


@pytest.mark.parametrize("checks", [True, False])
async def test_a_stopped_container_is_started_before_traffic_moves(
    bed: Bed, engine: FakeDocker, balancer: Balancer, checks: bool
) -> None:
    """If this breaks, traffic goes to a container that is down or not healthy yet."""
    engine.stop("v41")
    engine.checks = checks
    seen: list[tuple[str, bool]] = []

    def look() -> None:
        one = next(iter(engine.state["containers"].values()))
        seen.append((engine._health(one), bool(balancer.sets())))

    bed.on_pause = look
    receipt = await bed.execute(adapter_of(balancer), a_command())

    assert ("applied", 2, 1) == (receipt.status, receipt.attempts, len(engine.written))
    if checks:
        assert 10 <= len(seen) <= 12
        assert not any(moved for health, moved in seen if health == "starting")
    assert {"v41": 20} == balancer.ask(20)


async def test_a_container_that_turns_ill_gets_no_traffic(
    bed: Bed, engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, a rollback ends on a version that does not work here any more."""
    engine.stop("v41")
    engine.heals_s = -5.0
    receipt = await bed.execute(adapter_of(balancer), a_command())

    assert ("refused", "not_ready", []) == (
        receipt.status, receipt.detail["reason"], balancer.sets()
    )  # fmt: skip


async def test_a_container_that_never_heals_ends_with_the_command(
    bed: Bed, engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, a hanging start is waited for without an end."""
    engine.stop("v41")
    engine.heals_s = 1e6
    soon = bed.clock.now_ms() + 20_000
    receipt = await bed.execute(adapter_of(balancer), a_command(expires_at=soon))

    assert ("expired", "none", []) == (
        receipt.status, receipt.detail["effect"], balancer.sets()
    )  # fmt: skip


async def test_a_server_that_haproxy_does_not_know_yet_is_waited_for(
    bed: Bed, engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, a start is called not ready because the proxy's check runs every 2 s."""
    engine.stop("v41")
    engine.heals_s = 0.0
    balancer.say("set server fraud/s-v41 state maint")

    def check() -> None:
        if len(bed.pauses) == 4:
            balancer.say("set server fraud/s-v41 state ready")

    bed.on_pause = check
    receipt = await bed.execute(
        adapter_of(balancer), a_command(expected=a_command().expected.__class__("v41", "v42", 1.0))
    )

    assert ("applied", 4) == (receipt.status, len(bed.pauses))


async def test_a_pruned_container_is_refused(
    bed: Bed, engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, traffic is sent to a server whose container a prune took away."""
    engine.remove("v41")
    adapter = adapter_of(balancer)
    receipt = await bed.execute(adapter, a_command())

    assert ("refused", "no_target", []) == (
        receipt.status, receipt.detail["reason"], balancer.sets()
    )  # fmt: skip
    assert ["version 'v41': no container with rollbackd.deployment=fraud"] == (
        await adapter.missing()
    )


@pytest.mark.parametrize(
    ("fault", "status", "attempts"),
    [("reset", "applied", 2), ("lost", "applied", 3), (500, "applied", 3), (409, "failed", 1)],
)
async def test_a_start_whose_answer_is_lost_is_looked_up(
    bed: Bed, engine: FakeDocker, balancer: Balancer, fault: Any, status: str, attempts: int
) -> None:
    """If this breaks, a start that was done or refused is taken for the other."""
    engine.stop("v41")
    engine.faults = [fault]
    receipt = await bed.execute(adapter_of(balancer), a_command())

    assert (status, attempts) == (receipt.status, receipt.attempts)


async def test_nothing_but_the_three_calls_is_allowed(
    engine: FakeDocker, balancer: Balancer
) -> None:
    """If this breaks, the shipped list of calls lets a container be stopped or removed."""
    adapter = adapter_of(balancer)
    name = next(iter(engine.state["containers"]))
    for method, path in [
        ("POST", f"/containers/{name}/stop"), ("DELETE", f"/containers/{name}"),
        ("POST", "/containers/prune"), ("POST", "/containers/create"), ("GET", "/images/json"),
    ]:  # fmt: skip
        assert 403 == (await adapter._engine.ask(method, path))[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"socket": "tcp://x"}, {"deployment": ""}, {"deployment": "a=b"}, {"deployment": "*"},
        {"servers": {"v41": "a"}}, {"backend": "a/b; set"},
    ],
)  # fmt: skip
def test_settings_that_could_become_another_call_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a label in the settings selects every container of the host."""
    settings: dict[str, Any] = {
        "socket": "/d.sock", "deployment": "fraud", "haproxy": "/h.sock", "backend": "fraud",
        "servers": SERVERS,
    }  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(changes))):
        Docker(**(settings | changes))
