"""Against a real HAProxy: weights move, and real requests with them."""

from pathlib import Path

import pytest

from schemas.commands import Command, Expected
from service.act.adapters.base import Ask, PlatformFault
from service.act.adapters.haproxy import HAProxy
from service.act.plans import Plan, Refusal
from tests.builders import NOW, a_command
from tests.platforms import Balancer, balancing

SERVERS = {"v41": "s-v41", "v42": "s-v42"}


def adapter_of(balancer: Balancer, **changes: object) -> HAProxy:
    settings = {"socket": balancer.socket, "backend": "fraud", "servers": SERVERS}
    return HAProxy(**{**settings, **changes})  # type: ignore[arg-type]


async def carry_out(adapter: HAProxy, command: Command) -> Plan | Refusal:
    """The five steps, without what execute adds."""
    ask = Ask(command, NOW)
    plan = adapter.plan(await adapter.current(ask), command)
    if isinstance(plan, Plan) and plan.requests:
        await adapter.apply(ask, plan)
    return plan


async def test_a_rollback_moves_every_real_request(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a rollback is reported while the bad version goes on answering."""
    with balancing(haproxy, tmp_path, {"v41": 50, "v42": 50}) as balancer:
        before = balancer.ask(40)
        adapter = adapter_of(balancer)
        command = a_command(expected=Expected("v41", "v42", 0.5))
        plan = await carry_out(adapter, command)
        after = balancer.ask(60)
        now = await adapter.current(Ask(command, NOW))

    assert {"v41": 20, "v42": 20} == before
    assert {"v41": 60} == after
    assert ["set weight fraud/s-v41 100", "set weight fraud/s-v42 0"] == balancer.sets()
    assert isinstance(plan, Plan)
    assert "settled" == adapter.settled(now, plan)
    assert "reload" in plan.notes[0]


async def test_undo_brings_the_old_state_back(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a person who follows the receipt does not get back what there was."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}, "cookie SRV insert") as balancer:
        before = balancer.say("show servers state fraud")
        plan = await carry_out(adapter_of(balancer), a_command())
        assert isinstance(plan, Plan)
        for line in plan.undo:
            assert "" == balancer.say(line).strip()
        now = await adapter_of(balancer).current(Ask(a_command(), NOW))

    assert {"v41": 90.0, "v42": 10.0} == now.shares
    assert "maint" not in before
    assert {"v41": True, "v42": True} == now.ready


async def test_sticky_users_are_moved_too(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, users with a cookie stay with the bad version for ever (60 of 60)."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}, "cookie SRV insert") as balancer:
        cookie = "SRV=v42"
        before = balancer.ask(20, cookie)
        balancer.say("set weight fraud/s-v42 0")
        weightless = balancer.ask(20, cookie)
        now = await adapter_of(balancer).current(Ask(a_command(), NOW))
        plan = await carry_out(adapter_of(balancer), a_command(expected=Expected("v41", "v42", 0)))
        after = balancer.ask(60, cookie)

    assert {"v42": 20} == before
    assert {"v42": 20} == weightless  # HAProxy's own behaviour, which the adapter must know
    assert ["v42"] == now.lingering
    assert isinstance(plan, Plan)
    assert {"v41": 60} == after


async def test_stick_tables_are_found_as_well(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, users whom a table remembers stay with the bad version."""
    table = "stick-table type ip size 1k expire 1m\n stick on src"
    with balancing(haproxy, tmp_path, {"v41": 1, "v42": 99}, table) as balancer:
        balancer.say("set weight fraud/s-v41 0")
        assert {"v42": 5} == balancer.ask(5)
        balancer.say("set weight fraud/s-v41 1")
        await carry_out(adapter_of(balancer), a_command(expected=Expected("v41", "v42", 0.99)))
        after = balancer.ask(30)

    assert {"v41": 30} == after


async def test_a_shift_sets_whole_percents(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, shrinking a bad version to 10 % gives it another share."""
    with balancing(haproxy, tmp_path, {"v41": 50, "v42": 50}) as balancer:
        command = a_command(action="shift", weight=0.1, expected=Expected("v41", "v42", 0.5))
        await carry_out(adapter_of(balancer), command)
        got = balancer.ask(100)
        fine = a_command(action="shift", weight=0.001, expected=Expected("v41", "v42", 0.1))
        refusal = await carry_out(adapter_of(balancer), fine)

    assert {"v41": 90, "v42": 10} == got
    assert isinstance(refusal, Refusal)
    assert "no_weight" == refusal.reason


async def test_twice_is_once(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a redelivered command is answered with `superseded`, as if somebody moved."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}) as balancer:
        await carry_out(adapter_of(balancer), a_command())
        again = await carry_out(adapter_of(balancer), a_command())

    assert isinstance(again, Plan)
    assert [] == again.requests
    assert 2 == len(balancer.sets())


@pytest.mark.parametrize(
    ("by_hand", "status", "reason"),
    [
        (["set weight fraud/s-v42 0"], "plan", ""),
        (["set weight fraud/s-v41 0"], "superseded", "superseded"),
        (["set weight fraud/s-v43 50"], "superseded", "superseded"),
        (["set server fraud/s-v41 state maint"], "superseded", "superseded"),
        (["disable health fraud/s-v41"], "plan", ""),
    ],
)
async def test_what_a_person_moved_meanwhile_is_respected(
    haproxy: str, tmp_path: Path, by_hand: list[str], status: str, reason: str
) -> None:
    """If this breaks, rollbackd overwrites what somebody just did by hand."""
    weights = {"v41": 90, "v42": 10, "v43": 0}
    with balancing(haproxy, tmp_path, weights) as balancer:
        for line in by_hand:
            balancer.say(line)
        plan = await carry_out(adapter_of(balancer), a_command())

    if isinstance(plan, Refusal):
        assert (status, reason, []) == (plan.status, plan.reason, balancer.sets())
    else:
        assert "plan" == status


async def test_a_target_that_is_down_is_refused_before_anything_moves(
    haproxy: str, tmp_path: Path
) -> None:
    """If this breaks, a rollback sends all traffic to a server that answers nobody."""
    dead = "backend dead\n server s-v41 127.0.0.1:1 weight 90 check inter 100\n"
    dead += " server s-v42 127.0.0.1:1 weight 10\n"
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}, extra=dead) as balancer:
        adapter = adapter_of(balancer, backend="dead")
        for _ in range(200):
            now = await adapter.current(Ask(a_command(), NOW))
            if now.ready == {"v41": False, "v42": True}:
                break
        refusal = await carry_out(adapter, a_command())

    assert isinstance(refusal, Refusal)
    assert ("refused", "not_ready", []) == (refusal.status, refusal.reason, balancer.sets())


async def test_backup_servers_serve_nobody(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a server that only waits counts as a third version, or as a target."""
    extra = "backend spare\n server s-v41 127.0.0.1:1 weight 90\n"
    extra += " server s-v42 127.0.0.1:1 weight 10\n server s-v40 127.0.0.1:1 backup\n"
    servers = {**SERVERS, "v40": "s-v40"}
    with balancing(haproxy, tmp_path, {"v41": 1, "v42": 1}, extra=extra) as balancer:
        adapter = adapter_of(balancer, backend="spare", servers=servers)
        now = await adapter.current(Ask(a_command(), NOW))
        refusal = adapter.plan(now, a_command(to_version="v40"))

    assert {"v40": 0.0, "v41": 90.0, "v42": 10.0} == now.shares
    assert isinstance(refusal, Refusal)
    assert "not_ready" == refusal.reason


async def test_any_answer_to_a_set_is_an_error(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, `Permission denied` counts as a rollback."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}) as balancer:
        adapter = adapter_of(balancer, socket=str(tmp_path / "operator.sock"))
        with pytest.raises(PlatformFault, match="refused 'set weight") as raised:
            await carry_out(adapter, a_command())
        missing = await adapter.missing()
        shares = (await adapter.current(Ask(a_command(), NOW))).shares

    assert ("permanent", 0) == (raised.value.kind, raised.value.done)
    assert ["the socket's level is operator, it must be admin"] == missing
    assert {"v41": 90.0, "v42": 10.0} == shares


async def test_check_names_what_is_missing(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a wrong backend shows only when the first rollback fails."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}) as balancer:
        good = await adapter_of(balancer).missing()
        wrong = adapter_of(balancer, servers={**SERVERS, "v43": "s-v43"})
        faults = [
            await wrong.missing(),
            await adapter_of(balancer, backend="nobody").missing(),
            await adapter_of(balancer, socket=str(tmp_path / "no.sock")).missing(),
        ]

    assert [] == good
    assert ["version 'v43': backend fraud has no server 's-v43'"] == faults[0]
    assert "Can't find backend" in faults[1][0]
    assert "No such file" in faults[2][0]


async def test_a_cut_answer_leaves_doubt(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, a lost answer counts as done, or as not done."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}) as balancer:
        balancer.cut_after = "set weight fraud/s-v42"
        with pytest.raises(PlatformFault) as raised:
            await carry_out(adapter_of(balancer), a_command())
        absent = adapter_of(balancer, socket="127.0.0.1:1")
        with pytest.raises(PlatformFault) as never:
            await absent.current(Ask(a_command(), NOW))

    assert ("unknown", 1) == (raised.value.kind, raised.value.done)
    assert "transient" == never.value.kind


@pytest.mark.parametrize(
    "changes",
    [
        {"backend": "fraud; shutdown sessions server fraud/s-v41"},
        {"backend": "fraud\nset weight x/y 0"},
        {"backend": ""},
        {"backend": "*"},
        {"servers": {"v41": "a/b", "v42": "s"}},
        {"servers": {"v41": "s", "v42": "s"}},
        {"servers": {"v41": "s"}},
        {"servers": {}},
        {"socket": "nowhere"},
        {"socket": ""},
    ],
)
def test_settings_that_could_become_another_command_are_refused(changes: dict[str, object]) -> None:
    """If this breaks, a name in the settings can say anything on the socket."""
    settings = {"socket": "/run/haproxy.sock", "backend": "fraud", "servers": SERVERS}
    with pytest.raises(ValueError, match=r"backend|v41|servers|socket"):
        HAProxy(**{**settings, **changes})  # type: ignore[arg-type]


async def test_only_mapped_versions_and_the_one_model_are_touched(
    haproxy: str, tmp_path: Path
) -> None:
    """If this breaks, a command about another model moves this backend's traffic."""
    with balancing(haproxy, tmp_path, {"v41": 90, "v42": 10}) as balancer:
        adapter = adapter_of(balancer, model="credit-risk")
        refusals = [
            await carry_out(adapter, command)
            for command in (a_command(model="churn"), a_command(to_version="v40"))
        ]

    assert ["no_target", "no_target"] == [r.reason for r in refusals if isinstance(r, Refusal)]
    assert [] == balancer.sets()
