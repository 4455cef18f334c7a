"""What every adapter of the Kubernetes family must do beyond the common suite: rights and locks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from schemas.commands import Command, Expected
from tests.builders import a_command
from tests.contracts.kube_benches import KUBE, KubeBench, opener
from tests.kube import Refused
from tests.service.act.executing import Bed

pytestmark = pytest.mark.kube


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture(params=sorted(KUBE))
async def bench(
    request: pytest.FixtureRequest, tmp_path: Path, bed: Bed
) -> AsyncIterator[KubeBench]:
    async with opener(request.param)(tmp_path, lambda: 0.0) as opened:
        bed.on_pause = opened.on_pause
        yield opened


def an_order(bench: KubeBench, **changes: object) -> Command:
    expected = Expected("v41", "v42", bench.start["v42"] / 100)
    return a_command(**{"expected": expected, **changes})


def test_the_role_allows_nothing_else(bench: KubeBench) -> None:
    """If this breaks, whoever steals the adapter's token can do more than move this traffic."""
    path = bench.adapter().path  # type: ignore[attr-defined]
    others, space = path.rsplit("/", 1)[0], f"/api/v1/namespaces/{bench.namespace}"
    tried = [
        ("DELETE", path),
        ("DELETE", others),
        ("GET", f"{others}/other"),
        ("GET", f"{space}/secrets"),
        ("GET", f"{space}/configmaps"),
        ("GET", "/api/v1/nodes"),
        ("GET", path.replace(bench.namespace, "default")),
        ("POST", f"{space}/pods"),
    ]
    assert bench.kube.call("GET", path, token=bench.token)
    for method, forbidden in tried:
        with pytest.raises(Refused) as refused:
            body = {} if method == "POST" else None
            bench.kube.call(method, forbidden, body, token=bench.token)
        assert 403 == refused.value.status, (method, forbidden)


async def test_a_write_in_between_is_kept_and_planned_on(bench: KubeBench, bed: Bed) -> None:
    """If this breaks, rollbackd overwrites what somebody else wrote a moment before."""
    path = bench.adapter().path  # type: ignore[attr-defined]

    def touch() -> None:
        bench.relay.before_write = lambda: None
        bench.kube.patch(path, {"metadata": {"labels": {"team": "risk"}}})

    bench.relay.before_write = touch
    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("applied", {"v41": 100.0}) == (receipt.status, bench.shares()), receipt
    assert "risk" == bench.kube.get(path)["metadata"]["labels"]["team"]
    conflicts = [one for one in receipt.detail["requests"] if one.get("fault") == "conflict"]
    locked = receipt.detail["lock"] == "resourceVersion"
    assert (1 if locked else 0) == len(conflicts)


async def test_a_faster_person_is_seen_at_the_write(bench: KubeBench, bed: Bed) -> None:
    """If this breaks, two hands move the same traffic and the receipt knows of one."""
    if bench.kind == "flagger":
        pytest.skip("its write moves no traffic: Flagger itself does, and is read back")

    def move() -> None:
        bench.relay.before_write = lambda: None
        bench.move(v41=100)

    bench.relay.before_write = move
    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("already_there", {"v41": 100.0}) == (receipt.status, bench.shares()), receipt
    assert ["conflict"] == [one["fault"] for one in receipt.detail["requests"]]


async def test_a_contended_object_is_given_up_with_its_reason(bench: KubeBench, bed: Bed) -> None:
    """If this breaks, two controllers that fight keep a rollback busy for ever."""
    bench.relay.faults = [(409, {})] * 3

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("failed", "contended", 3) == (
        receipt.status,
        receipt.detail["reason"],
        receipt.attempts,
    )
    assert bench.start == bench.shares()


async def test_throttled_is_waited_for_as_long_as_asked(bench: KubeBench, bed: Bed) -> None:
    """If this breaks, a busy API server ends a rollback, or is hammered."""
    bench.relay.faults = [(429, {"Retry-After": "7"})]

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("applied", 2, {"v41": 100.0}) == (receipt.status, receipt.attempts, bench.shares())
    assert 7.0 in bed.pauses


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_what_a_person_must_mend_ends_it(bench: KubeBench, bed: Bed, status: int) -> None:
    """If this breaks, an expired token or a missing right is tried until the command expires."""
    bench.relay.faults = [(status, {})] * 2

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    reason = "credentials" if status == 401 else "permanent"
    assert ("failed", reason, "none") == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["effect"],
    )
    assert (bench.start, []) == (bench.shares(), bed.pauses)


async def test_a_doubtful_answer_is_read_before_it_is_sent_again(
    bench: KubeBench, bed: Bed
) -> None:
    """If this breaks, a server error in the middle of a write is taken for a failure or a yes."""
    bench.relay.faults = [(500, {})]

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("applied", "full", 2) == (receipt.status, receipt.detail["effect"], receipt.attempts)


async def test_an_object_that_is_gone_is_said_to_be(bench: KubeBench, bed: Bed) -> None:
    """If this breaks, a deleted target is waited for, or taken for one without traffic."""
    path = bench.adapter().path  # type: ignore[attr-defined]
    bench.relay.read_faults = [(404, {})]

    receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("failed", "unreadable", []) == (
        receipt.status,
        receipt.detail["reason"],
        bench.writes(),
    )
    assert path.rsplit("/", 1)[1] in receipt.detail["text"] or "404" in receipt.detail["text"]


async def test_a_token_is_in_no_receipt_and_no_log(
    bench: KubeBench, bed: Bed, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, whoever reads an incident can write to the cluster."""
    bench.relay.faults = [(503, {})]
    with structlog.testing.capture_logs() as logs:
        receipt = await bed.execute(bench.adapter(), an_order(bench))
        other = await bed.execute(bench.lost(), an_order(bench, command_id="c2"))
    shown = f"{receipt} {other} {logs} {bench.adapter()!r} {capsys.readouterr()}"

    assert bench.token not in shown
    assert bench.token.rpartition(".")[2] not in shown
