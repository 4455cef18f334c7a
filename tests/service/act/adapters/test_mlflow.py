"""MLflow's registry: a fake for what goes wrong, and the real server where it is installed."""

import json
import os
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from schemas.commands import Expected
from service.act.adapters.mlflow import MLflow
from tests.builders import a_command
from tests.fake_platforms.mlflow import ALIASES, NAME, NUMBERS, TOKEN, FakeMLflow
from tests.fake_platforms.serving import serving
from tests.real import free_port, port_answers, program, run_process
from tests.service.act.executing import Bed

PROMOTED = Expected("v42", None, None)


@pytest.fixture
async def fake(bed: Bed) -> AsyncIterator[FakeMLflow]:
    made = FakeMLflow(lambda: bed.clock.now_ms() / 1000)
    async with serving(made):
        yield made


def adapter_of(fake: FakeMLflow, **changes: Any) -> MLflow:
    settings: dict[str, Any] = {
        "url": fake.url, "name": NAME, "versions": NUMBERS, "token": TOKEN,
        "aliases": dict.fromkeys(ALIASES, 10.0), **changes,
    }  # fmt: skip
    return MLflow(**settings)


async def test_only_aliases_that_point_elsewhere_are_set(bed: Bed, fake: FakeMLflow) -> None:
    """If this breaks, a rollback rewrites what is right already, or leaves a challenger behind."""
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("applied", ["fraud@slot-9"]) == (receipt.status, receipt.detail["touches"])
    assert ["fraud@slot-9: 42"] == receipt.detail["undo"]
    assert "only traffic shows it" in receipt.detail["notes"][0]
    assert {"41"} == set(fake.state["aliases"].values())


async def test_a_promoted_version_is_taken_back(bed: Bed, fake: FakeMLflow) -> None:
    """If this breaks, the plain case fails: one alias, all traffic, back to the old number."""
    fake.state["aliases"] = {"champion": "42"}
    adapter = adapter_of(fake, aliases={"champion": 100.0})
    receipt = await bed.execute(adapter, a_command(expected=PROMOTED))

    assert ("applied", {"champion": "41"}) == (receipt.status, fake.state["aliases"])


async def test_a_part_that_was_set_is_told_and_the_rest_set_next_time(
    bed: Bed, fake: FakeMLflow
) -> None:
    """If this breaks, a half set of aliases counts as done, or is never finished."""
    fake.move(v41=50, v42=50)
    answer = fake.answer
    posts = 0

    def failing(action: str, request: Any, body: Any) -> Any:
        nonlocal posts
        posts += action.startswith("POST")
        refused = action.startswith("POST") and posts == 3
        return fake.refuse(403, "no") if refused else answer(action, request, body)

    fake.answer = failing  # type: ignore[method-assign]
    part = await bed.execute(adapter_of(fake), a_command())
    rest = await bed.execute(adapter_of(fake), a_command())

    assert ("partial", "mixed") == (part.status, part.detail["effect"])
    assert ("applied", 100.0) == (rest.status, fake.shares()["v41"])


async def test_an_alias_moved_in_between_is_a_conflict(bed: Bed, fake: FakeMLflow) -> None:
    """If this breaks, the registry's missing lock overwrites a person's choice."""
    reads = 0
    answer = fake.answer

    def moving(action: str, request: Any, body: Any) -> Any:
        nonlocal reads
        reads += action.startswith("GET") and action.endswith("alias")
        if reads == 11:
            fake.move(v43=100)
        return answer(action, request, body)

    fake.answer = moving  # type: ignore[method-assign]
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert ("superseded", [], 100.0) == (receipt.status, fake.written, fake.shares()["v43"])


@pytest.mark.parametrize("status", ["PENDING_REGISTRATION", "FAILED_REGISTRATION", None])
async def test_a_version_that_cannot_be_loaded_gets_no_alias(
    bed: Bed, fake: FakeMLflow, status: str | None
) -> None:
    """If this breaks, servers are told to load what is not there."""
    fake.state["aliases"] = {"champion": "42"}
    fake.state["versions"] |= {"41": status}
    if status is None:
        del fake.state["versions"]["41"]
    adapter = adapter_of(fake, aliases={"champion": 100.0})
    receipt = await bed.execute(adapter, a_command(expected=PROMOTED))

    assert ("refused", []) == (receipt.status, fake.written)


async def test_an_alias_that_is_not_set_is_nobodys(bed: Bed, fake: FakeMLflow) -> None:
    """If this breaks, a misspelt alias is created, and the real one keeps the bad version."""
    adapter = adapter_of(fake, aliases={"champoin": 100.0})
    receipt = await bed.execute(adapter, a_command(expected=PROMOTED))

    assert ("superseded", []) == (receipt.status, fake.written)
    assert ["fraud has no alias 'champoin'"] == await adapter.missing()


@pytest.mark.parametrize(
    ("fault", "status", "first"),
    [
        ((429, {"Retry-After": "7"}, ""), "applied", 7.0),
        (503, "applied", 1.0),
        ("cut", "already_there", 1.0),
        (403, "failed", None),
        (401, "applied", None),
    ],
)
async def test_every_kind_of_error_has_its_meaning(
    bed: Bed, fake: FakeMLflow, fault: Any, status: str, first: float | None
) -> None:
    """If this breaks, throttling ends a rollback, or a permanent error is repeated for minutes."""
    fake.faults = [fault]
    receipt = await bed.execute(adapter_of(fake), a_command())

    assert (status, first) == (receipt.status, bed.pauses[0] if bed.pauses else None)


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""}, {"name": "a/b"}, {"name": "*"}, {"name": ".."}, {"versions": {"v41": "1"}},
        {"versions": {"v41": "1", "v42": "latest"}}, {"aliases": {"latest": 100.0}},
        {"aliases": {"v7": 100.0}}, {"aliases": {"champion": 90.0}}, {"username": "ann"},
    ],
)  # fmt: skip
def test_settings_that_name_nothing_or_too_much_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a reserved alias or a wildcard in the settings is found out in an outage."""
    settings: dict[str, Any] = {"url": "https://m.example", "name": "a", "versions": NUMBERS}
    with pytest.raises(ValueError, match=next(iter(changes))):
        MLflow(**(settings | changes))


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run a real MLflow on SQLite, with three registered versions; ROLLBACKD_MLFLOW names it."""
    path = program("mlflow", os.environ.get("ROLLBACKD_MLFLOW", "mlflow"))
    home: Path = tmp_path_factory.mktemp("mlflow")
    port = free_port()
    command = [path, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{home / 'm.db'}",
               "--artifacts-destination", str(home / "artifacts")]  # fmt: skip
    with run_process(command, home / "log") as process:
        process.wait_until(lambda: port_answers(port), 240, "MLflow answers")
        url = f"http://127.0.0.1:{port}"
        post(url, "registered-models/create", {"name": NAME})
        for _ in NUMBERS:
            post(url, "model-versions/create", {"name": NAME, "source": "s3://models/fraud"})
        yield url


def post(url: str, path: str, body: dict[str, str]) -> None:
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/{path}", json.dumps(body).encode(),
        {"content-type": "application/json"},
    )  # fmt: skip
    urllib.request.urlopen(request, timeout=60).close()


@pytest.mark.slow
async def test_a_real_server_is_rolled_back_and_says_so(bed: Bed, real: str) -> None:
    """If this breaks, the fake above agrees with itself and the real registry does not."""
    numbers = {"v41": "1", "v42": "2", "v43": "3"}
    adapter = MLflow(real, NAME, numbers, deadline_s=60.0)
    unset = await adapter.missing()
    post(real, "registered-models/alias", {"name": NAME, "alias": "champion", "version": "2"})
    first = await bed.execute(adapter, a_command(expected=PROMOTED))
    again = await bed.execute(adapter, a_command(expected=PROMOTED))
    post(real, "registered-models/alias", {"name": NAME, "alias": "champion", "version": "3"})
    third = await bed.execute(adapter, a_command(command_id="c2", expected=PROMOTED))
    gone = MLflow(real, NAME, {**numbers, "v41": "9"}, deadline_s=60.0)
    stranger = await bed.execute(
        gone, a_command(command_id="c3", from_version="v43", expected=Expected("v43", None, None))
    )

    assert ["fraud has no alias 'champion'"] == unset
    assert ("applied", {"v41": 100.0}) == (first.status, first.after)
    assert ("already_there", "superseded") == (again.status, third.status)
    assert ("refused", "no_target") == (stranger.status, stranger.detail["reason"])
    assert ["version 'v41': fraud has no version 9"] == await gone.missing()
