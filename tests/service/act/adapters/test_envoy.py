"""A real Envoy with real servers behind it: the requests show who serves."""

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

import pytest

from service.act.adapters.envoy import Envoy, overridden, read_fleet, scaled, splits_in
from tests.builders import a_command
from tests.fake_platforms.envoy import PREFIX, EnvoyProxy, EnvoyRelay, envoy_program, proxying
from tests.fake_platforms.serving import serving
from tests.real import free_port
from tests.service.act.executing import Bed

WEIGHTS = {"v41": 90, "v42": 10, "v43": 0}
CLUSTERS = {version: f"c-{version}" for version in WEIGHTS}


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[EnvoyProxy]:
    with proxying(envoy_program(), tmp_path, WEIGHTS) as made:
        yield made


@pytest.fixture
async def relay(bed: Bed, proxy: EnvoyProxy) -> AsyncIterator[EnvoyRelay]:
    made = EnvoyRelay(lambda: bed.clock.now_ms() / 1000, proxy)
    async with serving(made):
        yield made


async def test_requests_move_with_the_next_one(
    bed: Bed, proxy: EnvoyProxy, relay: EnvoyRelay
) -> None:
    """If this breaks, the runtime says v41 and users still get v42."""
    before = proxy.ask(120)
    receipt = await bed.execute(Envoy([relay.url], PREFIX, CLUSTERS), a_command())

    assert 0 < before["v42"] < 60
    assert ("applied", {"v41": 60}) == (receipt.status, proxy.ask(60))
    assert "restart" in receipt.detail["notes"][0]
    assert ([], 1) == (relay.forbidden, len(relay.written))


async def test_a_value_that_is_no_number_is_what_envoy_makes_of_it(
    bed: Bed, proxy: EnvoyProxy, relay: EnvoyRelay
) -> None:
    """If this breaks, an override that Envoy ignores is taken for a weight."""
    proxy.say("POST", f"/runtime_modify?{PREFIX}.c-v41=abc&{PREFIX}.c-v42=abc")
    adapter = Envoy([relay.url], PREFIX, CLUSTERS)
    receipt = await bed.execute(adapter, a_command(action="shift", weight=0.05))

    assert {"v41": 90.0, "v42": 10.0, "v43": 0.0} == receipt.before
    assert "applied" == receipt.status


async def test_one_of_two_that_moved_is_partial_and_finished_next_time(
    bed: Bed, tmp_path: Path, relay: EnvoyRelay
) -> None:
    """If this breaks, half of a fleet serves the bad version and the receipt says applied."""
    with ExitStack() as stack:
        second = stack.enter_context(proxying(envoy_program(), tmp_path / "two", WEIGHTS))
        async with AsyncExitStack() as doors:
            other = EnvoyRelay(lambda: bed.clock.now_ms() / 1000, second)
            await doors.enter_async_context(serving(other))
            other.faults = [403]
            adapter = Envoy([relay.url, other.url], PREFIX, CLUSTERS)
            part = await bed.execute(adapter, a_command())
            rest = await bed.execute(adapter, a_command())

            assert ("partial", "mixed") == (part.status, part.detail["effect"])
            assert {"v41": 95.0, "v42": 5.0, "v43": 0.0} == part.after
            assert ("applied", 1, 2) == (rest.status, len(relay.written), len(other.written))
            assert {"v41": 20} == second.ask(20)


async def test_somebody_else_between_read_and_write_is_seen(
    bed: Bed, proxy: EnvoyProxy, relay: EnvoyRelay
) -> None:
    """If this breaks, a person's weights of the last second are overwritten."""
    calls = 0
    answer = relay.answer

    def moving(action: str, request: Any, body: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 5:  # three reads of weights, one of health, then the look before the write
            proxy.set(v41=0, v42=0, v43=100)
        return answer(action, request, body)

    relay.answer = moving  # type: ignore[method-assign]
    receipt = await bed.execute(Envoy([relay.url], PREFIX, CLUSTERS), a_command())

    assert ("superseded", [], {"v43": 10}) == (receipt.status, relay.written, proxy.ask(10))


async def test_a_cluster_without_hosts_gets_no_traffic(bed: Bed, tmp_path: Path) -> None:
    """If this breaks, a rollback answers 503 to everyone."""
    with proxying(envoy_program(), tmp_path, WEIGHTS, empty="v41") as proxy:
        receipt = await bed.execute(Envoy([proxy.admin], PREFIX, CLUSTERS), a_command())

    assert ("refused", "not_ready") == (receipt.status, receipt.detail["reason"])


async def test_what_is_missing_is_said(bed: Bed, tmp_path: Path, proxy: EnvoyProxy) -> None:
    """If this breaks, a misspelt key is found out in an outage: Envoy takes it with 200."""
    misspelt = Envoy([proxy.admin], "routing.fruad", CLUSTERS)
    lacking = Envoy([proxy.admin], PREFIX, {**CLUSTERS, "v44": "c-v44"}, route_config="fraud")
    away = Envoy([f"http://127.0.0.1:{free_port()}"], PREFIX, CLUSTERS)
    with proxying(envoy_program(), tmp_path / "bare", WEIGHTS, layer=False) as bare:
        layerless = await bed.execute(Envoy([bare.admin], PREFIX, CLUSTERS), a_command())

    assert "no route with runtime_key_prefix" in (await misspelt.missing())[0]
    assert ["version 'v44': the route on Envoy 0 has no cluster 'c-v44'"] == await lacking.missing()
    assert "refused or reset" in (await away.missing())[0]
    assert ("failed", []) == (layerless.status, bed.pauses)
    assert "admin_layer" in layerless.detail["text"]


@pytest.mark.parametrize(
    ("fault", "status", "first"),
    [
        ((429, {"Retry-After": "7"}, ""), "applied", 7.0),
        (503, "applied", 1.0),
        ("cut", "already_there", 1.0),
        (403, "failed", None),
    ],
)
async def test_every_kind_of_error_has_its_meaning(
    bed: Bed, relay: EnvoyRelay, fault: Any, status: str, first: float | None
) -> None:
    """If this breaks, a proxy in trouble ends a rollback, or a permanent error is repeated."""
    relay.faults = [fault]
    receipt = await bed.execute(Envoy([relay.url], PREFIX, CLUSTERS), a_command())

    assert (status, first) == (receipt.status, bed.pauses[0] if bed.pauses else None)


def test_a_small_total_cannot_hold_a_small_share() -> None:
    """If this breaks, a shift to 5 % silently becomes 0."""
    assert None is scaled({"v41": 95.0, "v42": 5.0}, 5, CLUSTERS)
    assert {"c-v41": 19, "c-v42": 1} == scaled({"v41": 95.0, "v42": 5.0}, 20, CLUSTERS)


def test_shares_are_read_over_the_fleet_and_strangers_told() -> None:
    """If this breaks, a cluster that nobody mapped serves unnoticed."""
    fleet = [{"c-v41": 100, "c-v42": 0}, {"c-v41": 50, "other": 50}]
    now = read_fleet(fleet, [{"c-v41": 1}, {"c-v41": 0}], CLUSTERS)

    assert {"v41": 75.0, "v42": 0.0, "cluster:other": 25.0} == now.shares
    assert {"v41": False} == now.ready
    assert {"a": 1} == overridden({"a": 1}, {"p.a": {"final_value": "-4"}}, "p")
    assert [] == splits_in({"weighted_clusters": {"clusters": []}}, "p")


@pytest.mark.parametrize(
    "changes",
    [
        {"prefix": ""}, {"prefix": "a&b=1"}, {"prefix": "*"}, {"clusters": {"v41": "a"}},
        {"clusters": {"v41": "a", "v42": "b=1&c"}}, {"admins": []},
        {"route_config": "a/b"}, {"allow_private": ["x"]},
    ],
)  # fmt: skip
def test_settings_that_could_become_another_key_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a name in the settings sets other keys of the runtime."""
    settings: dict[str, Any] = {
        "admins": ["http://127.0.0.1:1"], "prefix": PREFIX, "clusters": CLUSTERS
    }  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(changes))):
        Envoy(**(settings | changes))
