"""Azure ML against a hand-made fake of its resource manager, under the shipped role."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from schemas.commands import Expected
from service.act.adapters.azure_ml import AzureML
from tests.builders import a_command
from tests.fake_platforms.azure_ml import ENDPOINT, GROUP, SUBSCRIPTION, WORKSPACE, FakeAzureML
from tests.fake_platforms.serving import serving
from tests.service.act.executing import Bed

SHARES = {"v41": 90.0, "v42": 10.0, "v43": 0.0}
DEPLOYMENTS = {version: f"d-{version}" for version in SHARES}


@pytest.fixture
async def fake(bed: Bed) -> AsyncIterator[FakeAzureML]:
    made = FakeAzureML(lambda: bed.clock.now_ms() / 1000, SHARES)
    async with serving(made):
        yield made


@pytest.fixture
def adapter(fake: FakeAzureML, tmp_path: Path) -> AzureML:
    (tmp_path / "token").write_text("canary-canary-token\n")
    return AzureML(
        SUBSCRIPTION, GROUP, WORKSPACE, ENDPOINT, DEPLOYMENTS, url=fake.url,
        token_path=str(tmp_path / "token"), settle_s=300.0,
    )  # fmt: skip


async def test_all_but_the_traffic_stays_as_it_was(
    bed: Bed, fake: FakeAzureML, adapter: AzureML
) -> None:
    """If this breaks, a rollback takes away identity, tags or the private network, or lasts."""
    before = fake.state["endpoint"]
    receipt = await bed.execute(adapter, a_command())
    after = fake.state["endpoint"]

    assert ("applied", "full") == (receipt.status, receipt.detail["effect"])
    assert {"d-v41": 100} == after["properties"]["traffic"]
    assert {} == after["properties"]["mirrorTraffic"]
    for name in ("authMode", "description", "publicNetworkAccess", "scoringUri"):
        assert before["properties"][name] == after["properties"][name]
    assert (before["location"], before["tags"]) == (after["location"], after["tags"])
    assert ["/id/one"] == list(after["identity"]["userAssignedIdentities"])
    assert ([], 1) == (fake.forbidden, len(fake.written))
    assert 30 <= sum(bed.pauses)  # the operation, then the view that lags behind it


async def test_a_running_update_is_waited_out(
    bed: Bed, fake: FakeAzureML, adapter: AzureML
) -> None:
    """If this breaks, somebody's deployment in progress ends a rollback."""

    def deploy() -> None:
        fake.state["until"] = fake.now_s() + 30

    fake.before_write = deploy
    receipt = await bed.execute(adapter, a_command())

    assert ("applied", 2, 2) == (receipt.status, receipt.attempts, len(fake.written))


@pytest.mark.parametrize("etags", [True, False])
async def test_a_change_in_the_last_moment_is_a_conflict_where_there_is_an_etag(
    bed: Bed, fake: FakeAzureML, adapter: AzureML, etags: bool
) -> None:
    """If this breaks, a person who was a second faster is overwritten without a word."""
    fake.etags = etags
    fake.before_write = lambda: fake.move(v43=100)
    receipt = await bed.execute(adapter, a_command())

    # Without an etag nothing can be done about the last millisecond: the lock is advisory.
    assert ("superseded" if etags else "applied") == receipt.status
    assert ({"v43": 100.0} if etags else {"v41": 100.0}) == fake.shares()


async def test_an_operation_that_fails_is_no_success(
    bed: Bed, fake: FakeAzureML, adapter: AzureML
) -> None:
    """If this breaks, 201 is taken for a rollback."""
    fake.reverting = True
    receipt = await bed.execute(adapter, a_command())

    assert ("failed", "reverted", "none") == (
        receipt.status, receipt.detail["reason"], receipt.detail["effect"]
    )  # fmt: skip


@pytest.mark.parametrize("what", ["gone", "failed", "empty"])
async def test_a_deployment_that_cannot_serve_gets_no_traffic(
    bed: Bed, fake: FakeAzureML, adapter: AzureML, what: str
) -> None:
    """If this breaks, all traffic goes to a deployment that is not up."""
    deployments = fake.state["deployments"]
    if what == "gone":
        del deployments["d-v41"]
    elif what == "failed":
        deployments["d-v41"]["properties"]["provisioningState"] = "Failed"
    else:
        deployments["d-v41"]["sku"]["capacity"] = 0
    receipt = await bed.execute(adapter, a_command())

    assert ("refused", []) == (receipt.status, fake.written)


@pytest.mark.parametrize(
    ("fault", "status", "first"),
    [
        ((429, {"Retry-After": "7"}, ""), "applied", 7.0),
        (503, "applied", 1.0),
        (500, "applied", 1.0),
        (400, "failed", None),
        (403, "failed", None),
    ],
)
async def test_every_kind_of_error_has_its_meaning(
    bed: Bed, fake: FakeAzureML, adapter: AzureML, fault: Any, status: str, first: float | None
) -> None:
    """If this breaks, throttling ends a rollback, or a permanent error is repeated for minutes."""
    fake.faults = [fault]
    receipt = await bed.execute(adapter, a_command())

    assert (status, first) == (receipt.status, bed.pauses[0] if bed.pauses else None)


async def test_a_token_that_was_rotated_is_read_again(
    bed: Bed, fake: FakeAzureML, adapter: AzureML, tmp_path: Path
) -> None:
    """If this breaks, a token's end means that rollbackd must be restarted."""
    fake.tokens = {"second"}
    refused = await bed.execute(adapter, a_command())
    (tmp_path / "token").write_text("second")
    accepted = await bed.execute(adapter, a_command(command_id="c2"))

    assert ("failed", "unreadable") == (refused.status, refused.detail["reason"])
    assert "applied" == accepted.status


async def test_a_share_that_is_no_whole_percent_is_refused(
    bed: Bed, fake: FakeAzureML, adapter: AzureML
) -> None:
    """If this breaks, a shift to 0.4 % silently becomes 0."""
    receipt = await bed.execute(
        adapter, a_command(action="shift", weight=0.004, expected=Expected("v41", "v42", 0.1))
    )

    assert ("refused", "no_weight") == (receipt.status, receipt.detail["reason"])


@pytest.mark.parametrize(
    "changes",
    [
        {"endpoint": ""}, {"endpoint": "a/b"}, {"endpoint": ".."}, {"workspace": "*"},
        {"subscription": "a?b"}, {"resource_group": "a\nb"}, {"deployments": {"v41": "a"}},
        {"deployments": {"v41": "a", "v42": "b/../c"}}, {"tenant": "t"},
        {"tenant": "t/evil", "client_id": "c", "client_secret": "s"},
    ],
)  # fmt: skip
def test_settings_that_could_reach_elsewhere_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a path in the settings names another resource."""
    settings: dict[str, Any] = {
        "subscription": "s", "resource_group": "g", "workspace": "w", "endpoint": "e",
        "deployments": DEPLOYMENTS,
    }  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(changes))):
        AzureML(**(settings | changes))
