"""Vertex AI against a hand-made fake of its endpoints, under the shipped role."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from service.act.adapters.vertex_ai import VertexAI
from tests.builders import a_command
from tests.fake_platforms.serving import serving
from tests.fake_platforms.vertex_ai import ENDPOINT, IDS, LOCATION, PROJECT, FakeVertexAI
from tests.service.act.executing import Bed


@pytest.fixture
async def fake(bed: Bed) -> AsyncIterator[FakeVertexAI]:
    made = FakeVertexAI(lambda: bed.clock.now_ms() / 1000, {"v41": 90, "v42": 10, "v43": 0})
    async with serving(made):
        yield made


@pytest.fixture
def adapter(fake: FakeVertexAI, tmp_path: Path) -> VertexAI:
    (tmp_path / "token").write_text("canary-canary-token")
    return VertexAI(
        PROJECT, LOCATION, ENDPOINT, IDS, url=fake.url, token_path=str(tmp_path / "token")
    )


async def test_the_split_is_patched_alone_and_under_the_etag(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI
) -> None:
    """If this breaks, the patch overwrites blindly or changes more than traffic."""
    receipt = await bed.execute(adapter, a_command())

    assert ("applied", "etag AMEw9y0001=") == (receipt.status, receipt.detail["lock"])
    assert (
        'aiplatform.endpoints.update {"etag":"AMEw9y0001=","trafficSplit":{"410001":100}}'
        == fake.written[0]
    )
    assert [5.0] == bed.pauses


@pytest.mark.parametrize(
    "stale", [(409, "ABORTED"), (400, "FAILED_PRECONDITION"), (412, "PRECONDITION")]
)
async def test_a_stale_etag_is_read_and_planned_again(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI, stale: tuple[int, str]
) -> None:
    """If this breaks, a running step or a person's change is overwritten or fails the rollback."""
    fake.stale = stale
    fake.before_write = lambda: fake.move(v41=80, v42=20)
    step = await bed.execute(adapter, a_command())
    fake.move(v41=90, v42=10)
    fake.before_write = lambda: fake.move(v43=100)
    person = await bed.execute(adapter, a_command(command_id="c2"))

    assert ("applied", 2) == (step.status, step.attempts)
    assert ("superseded", {"v43": 100.0}) == (person.status, fake.shares())


async def test_who_is_always_slower_gives_up(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI
) -> None:
    """If this breaks, two controllers fight for the split without an end."""

    def again() -> None:
        fake.move(v41=80, v42=20)
        fake.before_write = again

    fake.before_write = again
    receipt = await bed.execute(adapter, a_command())

    assert ("failed", "contended", 3) == (
        receipt.status, receipt.detail["reason"], len(fake.written)
    )  # fmt: skip


@pytest.mark.parametrize("what", ["gone", "no replicas"])
async def test_an_undeployed_version_is_refused_before_traffic_moves(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI, what: str
) -> None:
    """If this breaks, a rollback deploys machines for minutes, or sends traffic to nothing."""
    if what == "gone":
        del fake.state["models"][IDS["v41"]]
        fake.state["split"] = {IDS["v42"]: 90, IDS["v43"]: 10}
        command = a_command(expected=a_command().expected.__class__("v43", "v42", 0.9))
    else:
        fake.state["models"][IDS["v41"]]["dedicatedResources"]["minReplicaCount"] = 0
        command = a_command()
    receipt = await bed.execute(adapter, command)

    assert ("refused", []) == (receipt.status, fake.written)


@pytest.mark.parametrize(
    ("fault", "status", "first"),
    [
        ((429, {"Retry-After": "7"}, ""), "applied", 7.0),
        (503, "applied", 1.0),
        ("cut", "already_there", 1.0),
        (403, "failed", None),
        (404, "failed", None),
        ((302, {"Location": "http://127.0.0.1:1/"}, ""), "failed", None),
    ],
)
async def test_every_kind_of_error_has_its_meaning(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI, fault: Any, status: str, first: float | None
) -> None:
    """If this breaks, throttling ends a rollback, or a permanent error is repeated for minutes."""
    fake.faults = [fault]
    receipt = await bed.execute(adapter, a_command())

    assert (status, first) == (receipt.status, bed.pauses[0] if bed.pauses else None)


async def test_without_an_etag_nothing_is_written(
    bed: Bed, fake: FakeVertexAI, adapter: VertexAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, the one lock of this platform is left out unnoticed."""
    monkeypatch.setattr(fake, "_etag", lambda: "")
    receipt = await bed.execute(adapter, a_command())

    assert ("refused", "no_lock", []) == (receipt.status, receipt.detail["reason"], fake.written)


@pytest.mark.parametrize(
    "changes",
    [
        {"project": ""}, {"project": "a/b"}, {"location": "evil.example#"}, {"endpoint": "*"},
        {"endpoint": "1:undeployModel/x"}, {"deployed_models": {"v41": "1", "v42": "1"}},
    ],
)  # fmt: skip
def test_settings_that_could_reach_elsewhere_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a location in the settings names another host."""
    settings: dict[str, Any] = {
        "project": "p", "location": "europe-west4", "endpoint": "7", "deployed_models": IDS,
    }  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(changes))):
        VertexAI(**(settings | changes))
