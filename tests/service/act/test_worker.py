"""The act role on a real local engine, a real store and a real receiver."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import sqlalchemy as sa
import structlog

from schemas.commands import Command
from schemas.events import Rollout
from schemas.facts import DeadLetter, Receipt
from schemas.secrets import Secret
from service.act.adapters.base import Adapter
from service.act.adapters.dry_run import DryRun
from service.act.adapters.webhook import Webhook
from service.act.worker import ActWorker
from service.clock import SetClock
from service.engine.base import Message, Record
from service.engine.local import LocalEngine
from service.signing import Signer, Verifier
from service.storage.holds import HoldStore
from service.storage.receipts import ReceiptStore
from service.telemetry import Metrics
from tests.builders import NOW, a_command, a_hold
from tests.platforms import SECRET, Deployer, deploying
from tests.real import wait_until_async
from tests.service.running import a_local_engine, serving

BEFORE = {"v41": 90.0, "v42": 10.0}


class Role:
    """The worker with all that it stands on, and what it said."""

    def __init__(self, home: Path, store: sa.Engine, deployer: Deployer) -> None:
        self.clock = SetClock(NOW + 1000)
        self.deployer = deployer
        self.metrics = Metrics()
        self.store = store
        self.engine: LocalEngine = a_local_engine(home / "log", store)
        self.signer = Signer.load_or_create(home / "watch.pem")
        self.holds = HoldStore(store)
        self.switch = home / "stop"
        self.worker = self.made()
        self.offset = 0

    def made(self, **adapters: Adapter) -> ActWorker:
        """A new worker, as after a restart; pauses move the clock."""
        hook = Webhook(Secret(self.deployer.url), Secret(SECRET))
        worker = ActWorker(
            self.engine,
            self.clock,
            self.metrics,
            {"prod": hook, "dry_run": DryRun(), **adapters},
            ReceiptStore(self.store),
            self.holds,
            Verifier([self.signer.public_pem]),
            self.switch,
        )
        worker.tools = worker.tools._replace(sleep=self.sleep)
        return worker

    async def sleep(self, seconds: float) -> None:
        self.clock.move(seconds)

    def record(self, command: Command, **changes: Any) -> Record:
        """The command as it lies on its topic, signed."""
        value = msgspec.json.encode(command)
        self.offset += 1
        made = Record(
            "commands", 0, self.offset, NOW, command.model.encode(), value, self.signer.sign(value)
        )
        return made._replace(**changes)

    async def receipts(self) -> list[Receipt]:
        read = await self.engine.read("receipts")
        return [msgspec.json.decode(record.value, type=Receipt) for record in read]

    async def rollouts(self) -> list[Rollout]:
        read = await self.engine.read("rollouts")
        return [msgspec.json.decode(record.value, type=Rollout) for record in read]

    async def dead(self) -> list[DeadLetter]:
        read = await self.engine.read("dead-letters")
        return [msgspec.json.decode(record.value, type=DeadLetter) for record in read]


@pytest.fixture
async def role(tmp_path: Path, sqlite_store: sa.Engine) -> AsyncIterator[Role]:
    clock: list[SetClock] = []
    async with deploying(lambda: clock[0].now_ms() / 1000, **BEFORE) as deployer:
        made = Role(tmp_path, sqlite_store, deployer)
        clock.append(made.clock)
        await made.engine.start()
        yield made
        await made.engine.stop()


async def test_a_signed_command_becomes_a_receipt_and_a_rollout(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a rollback is decided and never carried out; this is the whole role."""
    clock: list[SetClock] = []
    async with deploying(lambda: clock[0].now_ms() / 1000, **BEFORE) as deployer:
        role = Role(tmp_path, sqlite_store, deployer)
        clock.append(role.clock)
        role.worker.register()
        async with serving(role.engine):
            record = role.record(a_command())
            message = Message(record.key, record.value, headers=record.headers)
            await role.engine.append("commands", [message, message])
            await wait_until_async(role.rollouts, 10)
            await wait_until_async(lambda: two(role), 10)
            receipts, rollouts = await role.receipts(), await role.rollouts()

    assert ({"v41": 100.0, "v42": 0.0}, 1) == (deployer.shares, deployer.writes)
    assert [("applied", "full")] * 2 == [(r.status, r.detail["effect"]) for r in receipts]
    assert receipts[0] == receipts[1]
    first = rollouts[0]
    assert ("credit-risk", "v41", None, None, "rollbackd") == (
        first.model,
        first.stable,
        first.canary,
        first.weight,
        first.source,
    )
    assert receipts[0].finished_at == first.at
    assert 1 == len({rollout.rollout_id for rollout in rollouts})


async def two(role: Role) -> bool:
    return len(await role.receipts()) >= 2


async def test_what_is_not_signed_or_no_command_goes_to_dead_letters(role: Role) -> None:
    """If this breaks, a forged or broken message moves traffic, or stops the partition."""
    forged = role.record(a_command(to_version="v42"))
    not_json = b"{"
    bad = [
        forged._replace(value=forged.value.replace(b"v42", b"v41")),
        forged._replace(headers=()),
        role.record(a_command())._replace(value=not_json, headers=role.signer.sign(not_json)),
        role.record(a_command(model="*")),
        role.record(a_command(command_id="../x")),
        role.record(a_command(), key=b"churn"),
    ]
    for record in bad:
        await role.worker.handle(record)

    letters = await role.dead()
    assert len(bad) == len(letters)
    assert [record.value for record in bad] == [letter.value for letter in letters]
    assert [record.offset for record in bad] == [letter.offset for letter in letters]
    assert "signature does not fit" in letters[0].reason
    assert ([], []) == (await role.receipts(), role.deployer.commands)
    rejected = role.metrics.rejected.labels(stage="act", reason="signature")._value.get()
    assert 2 == rejected


@pytest.mark.parametrize(
    ("changes", "status", "rule"),
    [
        ({"adapter": "prdo"}, "refused", "H13"),
        ({"mode": "propose"}, "refused", "H11"),
        ({"mode": "observe"}, "refused", "H11"),
        ({"expires_at": NOW + 999}, "expired", "H5"),
        ({"to_version": "*"}, "refused", "H13"),
    ],
)
async def test_what_a_rule_forbids_gets_a_receipt_and_no_call(
    role: Role, changes: dict[str, Any], status: str, rule: str
) -> None:
    """If this breaks, a refused command vanishes without a word, or reaches the platform."""
    await role.worker.handle(role.record(a_command(**changes)))

    (receipt,) = await role.receipts()
    assert (status, rule, "none", 0) == (
        receipt.status,
        receipt.detail["rule"],
        receipt.detail["effect"],
        receipt.attempts,
    )
    assert ([], [], 0) == (await role.rollouts(), role.deployer.commands, role.deployer.jobs)
    assert 1 == role.metrics.refusals.labels(rule=rule)._value.get()


async def test_a_lower_fence_is_late_for_good(role: Role) -> None:
    """If this breaks, a worker that was replaced still moves traffic (H4), also after a restart."""
    await role.worker.handle(role.record(a_command(fence=7)))
    role.deployer.shares = dict(BEFORE)
    late = role.made()
    await late.handle(role.record(a_command(command_id="late", fence=6)))
    await late.handle(role.record(a_command(command_id="other", fence=6, model="churn")))

    statuses = [(r.command_id, r.status, r.detail["rule"]) for r in (await role.receipts())[1:]]
    assert [("late", "refused", "H4"), ("other", "applied", "")] == statuses


class Unreadable:
    """Holds that cannot be read."""

    def blocking(self, model: str, now_ms: int) -> None:
        raise OSError("disk gone")


@pytest.mark.parametrize("stop", ["model", "all", "file", "unreadable"])
@pytest.mark.parametrize("when", ["before", "between read and write"])
async def test_any_stop_keeps_automatic_commands_from_the_platform(
    role: Role, stop: str, when: str
) -> None:
    """If this breaks, the kill switch does not stop a rollback (H10)."""

    def pull() -> None:
        if stop in ("model", "all"):
            role.holds.set(a_hold(model="*" if stop == "all" else "credit-risk"))
        elif stop == "file":
            role.switch.touch()
        else:
            role.worker._stops = role.worker._stops._replace(holds=Unreadable())

    if when == "before":
        pull()
    else:
        probe = role.deployer._probe

        def pull_at_the_probe() -> Any:
            pull()
            return probe()

        role.deployer._probe = pull_at_the_probe  # type: ignore[method-assign]
    await role.worker.handle(role.record(a_command()))

    (receipt,) = await role.receipts()
    assert ("refused", "H10", "hold") == (
        receipt.status,
        receipt.detail["rule"],
        receipt.detail["reason"],
    )
    assert ([], BEFORE) == (role.deployer.commands, role.deployer.shares)


async def test_a_person_acts_during_a_hold(role: Role) -> None:
    """If this breaks, `hold --all` also locks out the people who pressed it."""
    role.holds.set(a_hold(model="*"))
    role.switch.touch()

    await role.worker.handle(role.record(a_command(actor="ann", mode="propose")))

    assert ["applied"] == [receipt.status for receipt in await role.receipts()]


async def test_an_expired_hold_holds_nothing(role: Role) -> None:
    """If this breaks, a hold for two hours lasts for ever."""
    role.holds.set(a_hold(until=NOW + 500))

    await role.worker.handle(role.record(a_command()))

    assert ["applied"] == [receipt.status for receipt in await role.receipts()]


async def test_the_dry_run_adapter_publishes_a_rollout_and_a_marked_command_none(
    role: Role,
) -> None:
    """If this breaks, a policy without a platform breaks the contract, or a question acts."""
    await role.worker.handle(role.record(a_command(adapter="dry_run")))
    await role.worker.handle(role.record(a_command(command_id="c2", dry_run=True)))

    receipts = await role.receipts()
    assert [("applied", "none", True)] * 2 == [
        (r.status, r.detail["effect"], r.detail["dry_run"]) for r in receipts
    ]
    assert (1, []) == (len(await role.rollouts()), role.deployer.commands)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"action": "shift", "weight": 0.05}, [("v41", "v42", 0.05)]),
        ({"action": "shift", "weight": 0.0}, [("v41", None, None)]),
        ({"action": "hold"}, []),
        (
            {"action": "promote", "from_version": "v41", "to_version": "v42", "actor": "ann"},
            [("v42", None, None)],
        ),
    ],
)
async def test_the_rollout_says_who_serves_after_each_verb(
    role: Role, changes: dict[str, Any], expected: list[tuple[str, str | None, float | None]]
) -> None:
    """If this breaks, `watch` judges roles that nobody has any more."""
    await role.worker.handle(role.record(a_command(**changes)))

    actual = [(r.stable, r.canary, r.weight) for r in await role.rollouts()]

    assert ["applied"] == [receipt.status for receipt in await role.receipts()]
    assert expected == actual


async def test_already_there_also_says_who_serves(role: Role) -> None:
    """If this breaks, a rollback that a person did first is never verified."""
    role.deployer.shares = {"v41": 100.0}

    await role.worker.handle(role.record(a_command()))

    assert ["already_there"] == [receipt.status for receipt in await role.receipts()]
    assert ["v41"] == [rollout.stable for rollout in await role.rollouts()]


async def test_a_repeat_after_a_restart_is_answered_with_the_same_receipt(role: Role) -> None:
    """If this breaks, one command has two different outcomes in the record (K11)."""
    await role.worker.handle(role.record(a_command()))
    role.deployer.shares = dict(BEFORE)
    role.clock.move(3600)
    await role.made().handle(role.record(a_command()))

    first, second = await role.receipts()
    assert first == second
    assert 1 == role.deployer.writes


async def test_a_fault_in_the_store_writes_nothing(
    role: Role, sqlite_store: sa.Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a command is carried out that nothing remembers."""
    with sqlite_store.begin() as connection:
        connection.exec_driver_sql("DROP TABLE act_writing")

    with pytest.raises(sa.exc.OperationalError):
        await role.worker.handle(role.record(a_command()))

    assert ([], []) == (role.deployer.commands, await role.receipts())


async def test_an_adapter_that_left_the_settings_is_said_to_have(role: Role) -> None:
    """If this breaks, a half-written command is forgotten when its adapter is removed."""
    plan = {"plan": {"wanted": {"v41": 100.0}}, "handle": ""}
    ReceiptStore(role.store).mark_writing(a_command(adapter="old").command_id, plan)

    await role.worker.handle(role.record(a_command(adapter="old")))

    (receipt,) = await role.receipts()
    assert ("refused", "unknown_adapter") == (receipt.status, receipt.detail["reason"])


async def test_logs_and_topics_hold_no_secret(role: Role) -> None:
    """If this breaks, whoever reads a log can give orders to the deployer."""
    with structlog.testing.capture_logs() as logs:
        await role.worker.handle(role.record(a_command()))
        role.deployer.faults = [500] * 20
        role.deployer.shares = dict(BEFORE)
        await role.worker.handle(role.record(a_command(command_id="c2")))
    topics = [await role.engine.read(topic) for topic in ("receipts", "rollouts", "dead-letters")]
    written = b"".join(record.value for topic in topics for record in topic)

    assert ["applied", "failed"] == [receipt.status for receipt in await role.receipts()]
    for canary in ("canary-path", SECRET, "Y2FuYXJ5"):
        assert canary not in f"{logs} {written!r}"
