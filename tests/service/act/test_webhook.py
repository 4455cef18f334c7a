"""The signed webhook against a real receiver: every kind of answer has its meaning."""

import json
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.secrets import Secret
from service.act.adapters.base import PlatformFault
from service.act.adapters.webhook import Webhook, read_shares
from tests.builders import a_command
from tests.platforms import SECRET, Deployer, deploying
from tests.receiver import Answer, receiving
from tests.service.act.executing import Bed

BEFORE = {"v41": 90.0, "v42": 10.0}


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
async def deployer(bed: Bed) -> AsyncIterator[Deployer]:
    async with deploying(lambda: bed.clock.now_ms() / 1000, **BEFORE) as running:
        yield running


def adapter_of(deployer: Deployer, **changes: Any) -> Webhook:
    return Webhook(Secret(deployer.url), Secret(SECRET), **changes)


async def test_the_command_is_the_body_and_its_id_the_webhooks(
    bed: Bed, deployer: Deployer
) -> None:
    """If this breaks, receivers cannot drop repeats or read what is asked."""
    command = a_command()
    receipt = await bed.execute(adapter_of(deployer), command)

    assert "applied" == receipt.status
    assert [command.command_id] == deployer.ids
    sent = deployer.commands[0]
    assert ("rollback", "credit-risk", "v42", "v41", 3) == (
        sent["action"],
        sent["model"],
        sent["from_version"],
        sent["to_version"],
        sent["fence"],
    )
    assert {"stable": "v41", "canary": "v42", "weight": 0.1} == sent["expected"]
    assert (command.expires_at, False) == (sent["expires_at"], sent["dry_run"])
    assert [] == deployer.unsigned


@pytest.mark.parametrize(
    ("fault", "status", "reason", "commands"),
    [
        (400, "failed", "permanent", 1),
        (401, "failed", "credentials", 1),
        (403, "failed", "permanent", 1),
        (404, "failed", "permanent", 1),
        (405, "failed", "permanent", 1),
        (409, "superseded", "platform", 1),
        (410, "failed", "permanent", 1),
        (412, "failed", "permanent", 1),
        (422, "failed", "permanent", 1),
        (301, "failed", "permanent", 1),
        ((307, {"Location": "http://127.0.0.1:1/"}, ""), "failed", "permanent", 1),
        (408, "applied", "", 2),
        (429, "applied", "", 2),
        (500, "applied", "", 2),
        (502, "applied", "", 2),
        (503, "applied", "", 2),
        (504, "applied", "", 2),
        ("lost", "applied", "", 2),
        ("reset", "already_there", "", 1),
        ("lie", "failed", "reverted", 1),
        ((200, {}, "thank you"), "applied", "", 2),
        ((200, {}, '{"status": "done"}'), "applied", "", 2),
        ((200, {}, '{"status": "refused", "reason": "frozen"}'), "refused", "platform", 1),
        ((202, {}, ""), "applied", "", 2),
        ((202, {"Location": "http://127.0.0.1:1/jobs"}, ""), "applied", "", 2),
    ],
)
async def test_every_answer_has_its_meaning(
    bed: Bed, deployer: Deployer, fault: Any, status: str, reason: str, commands: int
) -> None:
    """If this breaks, a refusal is tried for five minutes, or an outage ends a rollback."""
    deployer.faults = [fault]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert (status, reason, commands) == (
        receipt.status,
        receipt.detail["reason"],
        len(deployer.commands),
    )
    assert 1 == len(set(deployer.ids))  # every attempt under the same id


async def test_a_pause_that_is_asked_for_is_kept(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, we hammer a deployer that asked to be left alone."""
    deployer.faults = [(429, {"Retry-After": "13"}, "")]

    await bed.execute(adapter_of(deployer), a_command())

    assert 13.0 == bed.pauses[0]


async def test_an_accepted_command_is_polled_at_the_same_place(
    bed: Bed, deployer: Deployer
) -> None:
    """If this breaks, a deployer that answers 202 is never heard out."""
    deployer.faults = ["later"]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert ("applied", "full", 1) == (receipt.status, receipt.detail["effect"], receipt.attempts)
    assert ["POST", "GET", "GET"] == [entry["method"] for entry in receipt.detail["requests"]]
    assert [202, 202, 200] == [entry["status"] for entry in receipt.detail["requests"]]


async def test_another_host_is_never_polled(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, a receiver can make the daemon call any address."""
    async with receiving() as other:
        deployer.faults = [(202, {"Location": f"{other.url}/steal"}, "")]
        await bed.execute(adapter_of(deployer), a_command())

    assert [] == other.got


async def test_without_a_probe_its_word_is_all_there_is(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, customers whose service cannot be asked have no rollback at all."""
    deployer.probes = False

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert ("applied", "unknown", "account") == (
        receipt.status,
        receipt.detail["effect"],
        receipt.detail["verified_by"],
    )
    assert ({}, {"v41": 100.0, "v42": 0.0}) == (receipt.before, receipt.after)
    assert "no working probe" in receipt.detail["notes"][0]


async def test_without_a_probe_a_lost_answer_is_not_sent_again(
    bed: Bed, deployer: Deployer
) -> None:
    """If this breaks, a command whose fate nobody knows is sent twice."""
    deployer.probes = False
    deployer.faults = ["reset"]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert ("expired", "outcome_unknown", "unknown", 1) == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["effect"],
        len(deployer.commands),
    )


async def test_without_a_probe_a_busy_receiver_is_tried_again(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, one 503 ends a rollback for customers without a probe."""
    deployer.probes = False
    deployer.faults = [503]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert ("applied", 2) == (receipt.status, receipt.attempts)


@pytest.mark.parametrize(("status", "reason"), [(401, "unreadable"), (403, "unreadable")])
async def test_a_key_that_is_not_accepted_stops_before_the_command(
    bed: Bed, deployer: Deployer, status: int, reason: str
) -> None:
    """If this breaks, a wrong secret looks like a receiver without a probe."""
    deployer.probe_faults = [status]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert ("failed", reason, []) == (receipt.status, receipt.detail["reason"], deployer.commands)


async def test_a_failing_probe_is_tried_again(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, a receiver that starts up gets no command."""
    deployer.probe_faults = [503, 500]

    assert "applied" == (await bed.execute(adapter_of(deployer), a_command())).status


async def test_410_switches_the_receiver_off(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, a service that asked to be forgotten is called for ever."""
    deployer.faults = [410]
    adapter = adapter_of(deployer)
    await bed.execute(adapter, a_command())
    second = await bed.execute(adapter, a_command(command_id="c2"))

    assert ("failed", 1) == (second.status, len(deployer.commands))
    assert "410" in second.detail["text"]


async def test_a_wrong_secret_is_refused_by_the_receiver(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, the receiver of this test believes anybody, and so proves nothing."""
    other = Webhook(Secret(deployer.url), Secret("another plain secret of 24+ bytes"))

    receipt = await bed.execute(other, a_command())

    assert ("failed", []) == (receipt.status, deployer.commands)
    assert ["no signature fits; check that both sides have the same key"] == deployer.unsigned


async def test_a_probe_cannot_be_mistaken_for_the_command(bed: Bed) -> None:
    """If this breaks, a receiver that drops repeats by id drops the rollback itself."""
    answer = Answer(body=b'{"status": "applied", "current": {"v41": 90, "v42": 10}}')
    async with receiving(answer) as receiver:
        adapter = Webhook(Secret(f"{receiver.url}/x"), Secret(SECRET))
        await bed.execute(adapter, a_command(expires_at=bed.clock.now_ms() + 3000))

    bodies = [json.loads(got.body) for got in receiver.got]
    probes = [body for body in bodies if body["action"] == "probe"]
    assert len(probes) == len({body["command_id"] for body in probes})
    assert a_command().command_id not in {body["command_id"] for body in probes}
    assert all("to_version" not in body for body in probes)


async def test_the_receivers_echo_is_scrubbed(bed: Bed, deployer: Deployer) -> None:
    """If this breaks, a receiver that repeats its settings puts the secret into the incident."""
    text = json.dumps({"reason": f"bad key {SECRET} for {deployer.url}"})
    deployer.faults = [(409, {}, text)]

    receipt = await bed.execute(adapter_of(deployer), a_command())

    assert "bad key" in receipt.detail["text"]
    assert SECRET not in str(receipt) and "canary-path" not in str(receipt)


@pytest.mark.parametrize(
    "said",
    [{}, [], "v41", {"v41": "100"}, {"v41": True}, {"v41": -1, "v42": 101}, {"v41": 1.0},
     {"v41": 60, "v42": 60}, {"v41": 0}],
)  # fmt: skip
def test_shares_that_are_no_percent_are_refused(said: object) -> None:
    """If this breaks, a fraction read as percent makes every rollback `superseded`."""
    with pytest.raises(PlatformFault, match="total 100"):
        read_shares(said)


@pytest.mark.parametrize(
    "changes",
    [
        {"secret": Secret("short")},
        {"secret": Secret("whsec_AAAA")},
        {"allow_private": ["inside"]},
    ],
)
def test_bad_settings_show_at_the_start(changes: dict[str, Any]) -> None:
    """If this breaks, a wrong setting shows only when the first rollback fails."""
    with pytest.raises(ValueError, match=r"secret|allow_private"):
        Webhook(**{"url": Secret("https://x.example/"), "secret": Secret(SECRET), **changes})
