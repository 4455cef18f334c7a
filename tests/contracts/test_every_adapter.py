"""What every adapter must do, on the best platform that runs here: the registry names the cases.

A new adapter is tested because it exists; without a bench in `tests/contracts/adapters.py` it
fails. Time is set: pauses only move the clock.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
import structlog

import service.act.adapters
from schemas.commands import Command, Expected
from schemas.facts import Receipt
from schemas.plugins import Registry
from service.act.admit import Refuse
from service.act.plans import Plan
from tests.builders import NOW, a_command
from tests.contracts.adapters import BENCHES, SHARES, AdapterBench
from tests.service.act.executing import Bed

REGISTRY = Registry.of(service.act.adapters, "rollbackd.adapters", "adapter")
KINDS = REGISTRY.kinds()


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture(params=KINDS)
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, bed: Bed
) -> AsyncIterator[AdapterBench]:
    if request.param not in BENCHES:
        pytest.fail(f"adapter {request.param!r} has no bench in tests/contracts/adapters.py")
    async with BENCHES[request.param](tmp_path, lambda: bed.clock.now_ms() / 1000) as opened:
        # Controllers of real platforms need real time between two looks.
        bed.on_pause = getattr(opened, "on_pause", bed.on_pause)
        yield opened


def at_start(bench: AdapterBench) -> dict[str, float]:
    """What serves when a bench opens; some platforms cannot split traffic."""
    return getattr(bench, "start", SHARES)


def an_order(bench: AdapterBench, **changes: object) -> Command:
    """A rollback of what the bench serves by default."""
    canary = at_start(bench)["v42"] / 100
    return a_command(**{"expected": Expected("v41", "v42", canary), **changes})


def orders(bench: AdapterBench) -> dict[str, tuple[Command, dict[str, float]]]:
    """A command of every verb, and who serves after it."""
    return {
        "rollback": (an_order(bench), {"v41": 100.0}),
        "promote": (an_order(bench, **PROMOTE), {"v42": 100.0}),
        "shift": (an_order(bench, action="shift", weight=0.05), {"v41": 95.0, "v42": 5.0}),
        "hold": (an_order(bench, action="hold"), at_start(bench)),
    }


PROMOTE = {"action": "promote", "from_version": "v41", "to_version": "v42", "actor": "ann"}
VERBS = ("hold", "promote", "rollback", "shift")


def effect(receipt: Receipt) -> str:
    return str(receipt.detail["effect"])


@pytest.mark.parametrize("verb", VERBS)
async def test_every_verb_does_what_it_says(bench: AdapterBench, bed: Bed, verb: str) -> None:
    """If this breaks, a receipt says `applied` and something else serves."""
    adapter = bench.adapter()
    if verb not in adapter.can:
        pytest.skip(f"it cannot {verb}, and does not claim to")
    command, after = orders(bench)[verb]

    if after == at_start(bench) and verb != "hold":
        bench.move(v41=100)
        command = an_order(bench, **{**PROMOTE, "expected": Expected("v41", "v42", 0.0)})

    receipt = await bed.execute(adapter, command)

    assert ("applied", NOW + 1000) == (receipt.status, receipt.started_at)
    if not bench.changes:
        assert ("none", True, at_start(bench)) == (
            effect(receipt),
            receipt.detail["dry_run"],
            bench.shares(),
        )
        return
    assert after == bench.shares()
    if verb != "hold":
        assert ("full", "config", 1) == (
            effect(receipt),
            receipt.detail["verified_by"],
            receipt.attempts,
        )
        assert after == {version: share for version, share in receipt.after.items() if share}
        before = {version: share for version, share in receipt.before.items() if share}
        assert ({"v41": 100.0} if command.expected.weight == 0 else at_start(bench)) == before


async def test_five_times_is_once_also_after_a_restart(bench: AdapterBench, bed: Bed) -> None:
    """If this breaks, a redelivered command moves traffic again, or is called superseded."""
    first = await bed.execute(bench.adapter(), an_order(bench))
    written = bench.writes()
    again = [await bed.execute(bench.adapter(), an_order(bench)) for _ in range(4)]

    assert "applied" == first.status
    assert ["already_there"] * 4 == [receipt.status for receipt in again]
    assert written == bench.writes()
    assert [0] * 4 == [receipt.attempts for receipt in again]


async def test_what_somebody_else_moved_is_left_alone(bench: AdapterBench, bed: Bed) -> None:
    """If this breaks, rollbackd overwrites a person who was faster."""
    if not bench.changes:
        pytest.skip("nobody can move what is not there")
    bench.move(v42=60, v43=40)
    third = await bed.execute(bench.adapter(), an_order(bench))
    bench.move(v41=100)
    same = await bed.execute(bench.adapter(), an_order(bench, command_id="c2"))

    assert ("superseded", "H2", "none") == (third.status, third.detail["rule"], effect(third))
    assert "already_there" == same.status
    assert [] == bench.writes()


async def test_a_running_step_does_not_void_a_rollback(bench: AdapterBench, bed: Bed) -> None:
    """If this breaks, a canary that was just raised from 10 to 30 % cannot be rolled back."""
    bench.move(v41=70, v42=30)

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert "applied" == receipt.status
    if bench.changes:
        assert {"v41": 100.0} == bench.shares()


@pytest.mark.parametrize("rule", ["H4", "H5", "H10"])
async def test_the_last_question_before_a_write_is_heard(
    bench: AdapterBench, bed: Bed, rule: str
) -> None:
    """If this breaks, the kill switch does not stop a command that is already under way."""
    status = "expired" if rule == "H5" else "refused"
    bed.refuse = lambda: Refuse(rule, "stop", "a person said stop", {}, status)  # type: ignore[arg-type]

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert (status, rule, "none", 0) == (
        receipt.status,
        receipt.detail["rule"],
        effect(receipt),
        receipt.attempts,
    )
    assert ([], at_start(bench)) == (bench.writes(), bench.shares())


async def test_a_command_marked_dry_run_writes_nothing(bench: AdapterBench, bed: Bed) -> None:
    """If this breaks, trying a policy out moves production traffic."""
    receipt = await bed.execute(bench.adapter(), an_order(bench, dry_run=True))

    assert ("none", True) == (effect(receipt), receipt.detail["dry_run"])
    assert receipt.detail["diff"]
    assert ([], at_start(bench)) == (bench.writes(), bench.shares())


@pytest.mark.parametrize("done", [True, False])
async def test_a_lost_answer_is_looked_up_not_sent_again(
    bench: AdapterBench, bed: Bed, done: bool
) -> None:
    """If this breaks, a command is carried out twice, or a done one is reported as failed."""
    if not bench.changes:
        pytest.skip("no call leaves")
    bench.lose_answer(done)

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("already_there" if done else "applied", "full") == (receipt.status, effect(receipt))
    assert {"v41": 100.0} == bench.shares()
    assert (1 if done else 2) == receipt.attempts
    # Done once: every line or command came once. Not done: the same, again.
    assert len(set(bench.writes())) == len(bench.writes()) or not done


async def test_a_killed_writer_is_followed_by_one_that_reads_first(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, a restart between write and receipt sends the command again (K9, K10)."""
    if not bench.changes:
        pytest.skip("no call leaves")
    plan = {
        "plan": msgspec.to_builtins(Plan(wanted={"v41": 100.0}, before=at_start(bench))),
        "handle": "",
    }
    bench.move(v41=100)
    done = await bed.execute(bench.adapter(), an_order(bench), mark=plan)
    written = bench.writes()
    bench.move(**{v: round(share) for v, share in at_start(bench).items()})
    undone = await bed.execute(bench.adapter(), an_order(bench), mark=plan)

    assert ("already_there", "full", True, []) == (
        done.status,
        effect(done),
        done.detail["resumed"],
        written,
    )
    assert ("applied", "full", at_start(bench)) == (undone.status, effect(undone), undone.before)


async def test_a_killed_writer_does_not_write_after_the_expiry(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, a restart an hour later carries out an old decision."""
    if not bench.changes:
        pytest.skip("no call leaves")
    bed.clock.move(3600)
    plan = {
        "plan": msgspec.to_builtins(Plan(wanted={"v41": 100.0}, before=at_start(bench))),
        "handle": "",
    }

    receipt = await bed.execute(bench.adapter(), an_order(bench), mark=plan)

    assert ("expired", "none", []) == (receipt.status, effect(receipt), bench.writes())


async def test_a_platform_that_puts_the_old_state_back_is_caught(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, a controller reverts the rollback and nobody is told."""
    if not bench.changes:
        pytest.skip("nothing to put back")
    bench.revert()

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("failed", "reverted", "none") == (
        receipt.status,
        receipt.detail["reason"],
        effect(receipt),
    )
    assert at_start(bench) == bench.shares()


async def test_a_platform_that_is_not_there_is_tried_until_the_expiry(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, an outage of the platform ends a rollback at once, or never."""
    if not bench.changes:
        pytest.skip("nothing to be missing")
    receipt = await bed.execute(bench.lost(), an_order(bench))

    assert ("failed", "unreadable", "none", 0) == (
        receipt.status,
        receipt.detail["reason"],
        effect(receipt),
        receipt.attempts,
    )
    assert [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0] == bed.pauses
    assert receipt.finished_at <= a_command().expires_at


async def test_an_expectation_that_was_never_true_is_superseded(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, a command made from a wrong picture moves traffic."""
    if not bench.changes:
        pytest.skip("it believes what it is told")
    receipt = await bed.execute(
        bench.adapter(), an_order(bench, expected=Expected("v41", None, None), from_version="v42")
    )

    assert ("superseded", []) == (receipt.status, bench.writes())


async def test_check_finds_a_healthy_platform_whole_and_a_missing_one_missing(
    bench: AdapterBench, bed: Bed
) -> None:
    """If this breaks, `check --live` says all is well, or complains about nothing."""
    adapter, lost = bench.adapter(), bench.lost()
    for one in (adapter, lost):
        if hasattr(one, "clock"):
            one.clock = bed.clock

    assert [] == await adapter.missing()
    assert bench.changes == bool(await lost.missing())
    assert [] == bench.writes()


async def test_no_secret_is_in_receipts_or_logs(
    bench: AdapterBench, bed: Bed, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, whoever reads an incident can forge commands to the platform."""
    with structlog.testing.capture_logs() as logs:
        told = await bed.execute(bench.adapter(), an_order(bench))
        lost = await bed.execute(bench.lost(), an_order(bench, command_id="c2"))
    adapter = repr(bench.adapter())
    shown = f"{told} {lost} {logs} {adapter} {capsys.readouterr()}"

    for canary in ("canary-path", "whsec_", "Y2FuYXJ5", "canary-canary"):
        assert canary not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_settings_are_refused(kind: str) -> None:
    """If this breaks, a misspelt setting is silently ignored."""
    with pytest.raises(ValueError, match="known:"):
        REGISTRY.make(kind, urll="x")
