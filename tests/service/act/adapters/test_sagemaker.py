"""SageMaker against a fake that is judged by botocore, under the shipped policy."""

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from typing import Any

import botocore.session
import pytest

from schemas.commands import Expected
from service.act.adapters.base import PlatformFault
from service.act.adapters.sagemaker import SageMaker
from tests.builders import a_command
from tests.fake_platforms.sagemaker import (
    ENDPOINT,
    KEY_ID,
    REGION,
    SECRET_KEY,
    FakeSageMaker,
    error,
)
from tests.fake_platforms.serving import serving
from tests.service.act.executing import Bed

WEIGHTS = {"v41": 90.0, "v42": 10.0, "v43": 0.0}
VARIANTS = {version: f"variant-{version}" for version in WEIGHTS}
CONFIGS = {version: f"CONFIG-{version}" for version in WEIGHTS}
PROMOTED = Expected("v42", None, None)
CALL = "UpdateEndpointWeightsAndCapacities"


@pytest.fixture
async def fake(bed: Bed) -> AsyncIterator[FakeSageMaker]:
    made = FakeSageMaker(lambda: bed.clock.now_ms() / 1000, WEIGHTS)
    async with serving(made):
        yield made


def adapter_of(fake: FakeSageMaker, **changes: Any) -> SageMaker:
    settings: dict[str, Any] = {
        "variants": VARIANTS, "access_key_id": KEY_ID, "secret_access_key": SECRET_KEY,
        "url": fake.url, "settle_s": 300.0, **changes,
    }  # fmt: skip
    return SageMaker(ENDPOINT, REGION, **settings)


async def test_the_vendors_own_client_reads_the_fake(fake: FakeSageMaker) -> None:
    """If this breaks, the fake is no SageMaker and all tests below prove nothing."""

    def ask() -> dict[str, Any]:
        session = botocore.session.Session()
        session.set_credentials(KEY_ID, SECRET_KEY)
        client = session.create_client("sagemaker", REGION, endpoint_url=fake.url)
        client.update_endpoint_weights_and_capacities(
            EndpointName=ENDPOINT,
            DesiredWeightsAndCapacities=[{"VariantName": "variant-v43", "DesiredWeight": 5}],
        )
        with pytest.raises(client.exceptions.ClientError, match="in-progress"):
            client.update_endpoint(EndpointName=ENDPOINT, EndpointConfigName="CONFIG-v41")
        found: dict[str, Any] = client.describe_endpoint(EndpointName=ENDPOINT)
        return found

    found = await asyncio.to_thread(ask)

    assert ("Updating", "CONFIG-v42") == (found["EndpointStatus"], found["EndpointConfigName"])
    assert 90.0 == found["ProductionVariants"][0]["CurrentWeight"]
    assert 0 == fake.unproven


async def test_weights_go_alone_and_the_old_view_after_them_is_waited_out(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, instance counts are reset, or a lagging view is taken for a revert."""
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("applied", "full", "config") == (
        receipt.status, receipt.detail["effect"], receipt.detail["verified_by"]
    )  # fmt: skip
    sent = json.loads(fake.written[0].removeprefix(f"{CALL} "))
    assert [
        {"VariantName": "variant-v41", "DesiredWeight": 100.0},
        {"VariantName": "variant-v42", "DesiredWeight": 0.0},
        {"VariantName": "variant-v43", "DesiredWeight": 0.0},
    ] == sent["DesiredWeightsAndCapacities"]
    assert {2} == {one["CurrentInstanceCount"] for one in fake.state["variants"].values()}
    assert [30.0] == [pause for pause in bed.pauses if pause > 5]  # looked at once more
    assert ([], 1) == (fake.forbidden, len(fake.written))


async def test_a_silent_revert_is_no_success(bed: Bed, fake: FakeSageMaker) -> None:
    """If this breaks, `InService` with the old weights is reported as a rollback."""
    fake.reverting = True
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("failed", "reverted", "none") == (
        receipt.status, receipt.detail["reason"], receipt.detail["effect"]
    )  # fmt: skip


async def test_two_fleets_after_a_failed_rollback_are_partial(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, `UpdateRollbackFailed`, where both serve, counts as done."""
    fake.fails_rolling_back = True
    receipt = await bed.execute(adapter_of(fake), a_command())
    later = await bed.execute(adapter_of(fake), a_command(command_id="c2"))

    assert ("partial", "mixed") == (receipt.status, receipt.detail["effect"])
    assert ("refused", "not_ready", 1) == (
        later.status, later.detail["reason"], len(fake.written)
    )  # fmt: skip


async def test_an_update_under_way_is_waited_out_before_writing(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, a rollback fails because the canary's own deployment still runs."""
    fake.state |= {
        "status": "Updating",
        "until": fake.now_s() + 40,
        "then": {"status": "InService"},
    }
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("applied", 1, 1) == (receipt.status, receipt.attempts, len(fake.written))
    assert bed.pauses[:8] == [5.0] * 8


async def test_a_refusal_for_an_update_in_progress_is_waited_out(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, losing a race against a deployment by a second ends the rollback."""

    def deploy() -> None:
        fake.state |= {
            "status": "Updating", "until": fake.now_s() + 30, "then": {"status": "InService"}
        }  # fmt: skip

    fake.before_write = deploy
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("applied", 2, 2) == (receipt.status, receipt.attempts, len(fake.written))


async def test_somebody_else_between_read_and_write_is_seen(bed: Bed, fake: FakeSageMaker) -> None:
    """If this breaks, a person's change made in the last second is overwritten."""
    reads = 0
    answer = fake.do_DescribeEndpoint

    def moved(body: Any) -> Any:
        nonlocal reads
        reads += 1
        if reads == 2:
            fake.move(v43=100)
        return answer(body)

    fake.do_DescribeEndpoint = moved  # type: ignore[method-assign]
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("superseded", [], {"v43": 100.0}) == (receipt.status, fake.written, fake.shares())


@pytest.mark.parametrize("name", ["CurrentInstanceCount", "gone"])
async def test_a_target_that_cannot_serve_gets_no_traffic(
    bed: Bed, fake: FakeSageMaker, name: str
) -> None:
    """If this breaks, all traffic goes to a variant without instances."""
    if name == "gone":
        del fake.state["variants"]["variant-v41"]
        command = a_command(expected=Expected("v42", None, None))
    else:
        fake.state["variants"]["variant-v41"][name] = 0
        command = a_command()
    receipt = await bed.execute(adapter_of(fake), command)

    reason = "no_target" if name == "gone" else "not_ready"
    assert ("refused", reason, []) == (receipt.status, receipt.detail["reason"], fake.written)


@pytest.mark.parametrize(
    ("fault", "status", "pauses"),
    [
        (error("ThrottlingException", "Rate exceeded", Retry_After="7"), "applied", [7.0]),
        ((503, {}, ""), "applied", [1.0]),
        ("cut", "already_there", [1.0]),
        (error("ResourceLimitExceeded"), "failed", []),
        (error("ValidationException", "2 validation errors detected"), "failed", []),
        (403, "failed", []),
    ],
)
async def test_every_kind_of_error_has_its_meaning(
    bed: Bed, fake: FakeSageMaker, fault: Any, status: str, pauses: list[float]
) -> None:
    """If this breaks, throttling ends a rollback, or a permanent error is repeated for minutes."""
    fake.faults = [fault]
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert (status, pauses) == (receipt.status, bed.pauses[: len(pauses)])


async def test_a_write_in_doubt_is_not_sent_again_while_the_old_state_is_shown(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, an update that was done is begun once more, for minutes."""
    fake.faults, fake.lag_s = ["reset"], 12.0
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("already_there", 1, 1) == (receipt.status, receipt.attempts, len(fake.written))


async def test_an_expired_token_is_fetched_once_more(bed: Bed, fake: FakeSageMaker) -> None:
    """If this breaks, a role's token that just ran out fails the rollback, or is tried for ever."""
    expired = error("ExpiredTokenException", "The security token included is expired")
    fake.read_faults = [expired]
    once = await bed.execute(adapter_of(fake), a_command())
    fake.read_faults = [expired] * 2
    twice = await bed.execute(adapter_of(fake), a_command(command_id="c2"))

    assert ("applied", "failed") == (once.status, twice.status)
    assert "unreadable" == twice.detail["reason"]


async def test_a_whole_configuration_goes_back_at_once_and_keeps_instance_counts(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, a promoted version cannot be undone, or its fleet shrinks to one instance."""
    adapter = adapter_of(fake, variants={}, configs=CONFIGS)
    receipt = await bed.execute(adapter, a_command(expected=PROMOTED))
    again = await bed.execute(adapter, a_command(expected=PROMOTED))

    assert ("applied", "already_there") == (receipt.status, again.status)
    assert "CONFIG-v41" == fake.state["config"]
    assert {2} == {one["CurrentInstanceCount"] for one in fake.state["variants"].values()}
    assert ([], 1) == (fake.forbidden, len(fake.written))


async def test_a_configuration_that_is_gone_or_cannot_be_split_is_refused(
    bed: Bed, fake: FakeSageMaker
) -> None:
    """If this breaks, an endpoint is updated towards nothing, or a shift is imitated."""
    adapter = adapter_of(fake, variants={}, configs=CONFIGS)
    shift = await bed.execute(adapter, a_command(action="shift", weight=0.05, expected=PROMOTED))
    fake.configs.clear()
    gone = await bed.execute(adapter, a_command(expected=PROMOTED))

    assert ("refused", "unknown_verb") == (shift.status, shift.detail["reason"])
    assert ("refused", "no_target", []) == (gone.status, gone.detail["reason"], fake.written)


async def test_the_policy_lets_nothing_else_through(fake: FakeSageMaker) -> None:
    """If this breaks, the shipped policy allows more than the adapter needs."""
    adapter = adapter_of(fake)
    for operation, params in [
        ("DeleteEndpoint", {"EndpointName": ENDPOINT}),
        ("DeleteEndpointConfig", {"EndpointConfigName": "CONFIG-v41"}),
        ("DescribeEndpoint", {"EndpointName": "other"}),
    ]:
        with pytest.raises(PlatformFault, match="AccessDenied"):
            await adapter._aws.call(operation, params)


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": ""}, {"endpoint": "*"}, {"endpoint": "a/b"}, {"endpoint": "a\nb"},
        {"region": "eu-central-1.evil.example"}, {"variants": {}}, {"variants": {"v41": "a"}},
        {"variants": {"v41": "a", "v42": "a"}}, {"variants": {"v41": "a", "v42": "../b"}},
        {"configs": {"v41": "a", "v42": "b"}}, {"access_key_id": "x"},
        {"allow_private": ["here"]},
    ],
)  # fmt: skip
def test_settings_that_could_reach_elsewhere_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a wildcard or a path in the settings names another endpoint."""
    settings: dict[str, Any] = {"endpoint": "fraud", "region": "eu-central-1", "variants": VARIANTS}
    with pytest.raises(ValueError, match=next(iter(changes)).split("_")[0]):
        SageMaker(**(settings | changes))


async def test_without_the_extra_it_says_what_to_install(
    bed: Bed, fake: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a base install ends in a trace, or fails to load the other adapters."""
    monkeypatch.setitem(sys.modules, "botocore.auth", None)
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("failed", []) == (receipt.status, bed.pauses)
    assert "pip install 'rollbackd[aws]'" in receipt.detail["text"]


async def test_temporary_credentials_of_a_role_are_signed_with_their_token(
    fake: FakeSageMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, only long-lived keys work, which nobody should have."""
    for name, text in [
        ("AWS_ACCESS_KEY_ID", KEY_ID), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ("AWS_SESSION_TOKEN", "canary-session"),
    ]:  # fmt: skip
        monkeypatch.setenv(name, text)
    adapter = adapter_of(fake, access_key_id=None, secret_access_key=None)
    headers, _ = adapter._aws._signed("DescribeEndpoint", {"EndpointName": ENDPOINT}, False)

    assert "canary-session" == headers["X-Amz-Security-Token"]
    assert "x-amz-security-token" in headers["Authorization"]
    assert [] == await adapter.missing()


async def test_a_parameter_that_the_service_does_not_know_never_leaves(
    fake: FakeSageMaker,
) -> None:
    """If this breaks, a mistake of ours is found out by the platform in an outage."""
    with pytest.raises(PlatformFault, match="EndpointNam"):
        await adapter_of(fake)._aws.call("DescribeEndpoint", {"EndpointNam": ENDPOINT})

    assert [] == fake.calls
