"""The real Terraform (or OpenTofu) on a module of its built-in resource."""

import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.act.adapters.base import PlatformFault
from service.act.adapters.terraform import Terraform, fault_of_changes, read_output
from tests.builders import a_command
from tests.fake_platforms.terraform import MODULE, Workspace, terraforming, value_of
from tests.service.act.executing import Bed

SHARES = {"v41": 90.0, "v42": 10.0, "v43": 0.0}
VERSIONS = {version: version for version in SHARES}


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    with terraforming(tmp_path, **SHARES) as made:
        yield made


def adapter_of(workspace: Workspace, **changes: Any) -> Terraform:
    settings: dict[str, Any] = {"resources": ["terraform_data.split"], **changes}
    return Terraform(str(workspace.directory), VERSIONS, program=str(workspace.program), **settings)


async def test_only_the_map_changes_and_a_key_is_never_lost(bed: Bed, workspace: Workspace) -> None:
    """If this breaks, a rollback takes a version out of the module's configuration."""
    receipt = await bed.execute(adapter_of(workspace), a_command())

    assert ("applied", "full", "saved plan") == (
        receipt.status, receipt.detail["effect"], receipt.detail["lock"]
    )  # fmt: skip
    assert {"v41": 100, "v42": 0, "v43": 0} == workspace.shares()


async def test_a_state_that_changed_after_the_plan_makes_it_stale(
    bed: Bed, workspace: Workspace
) -> None:
    """If this breaks, a pipeline's apply in the same second is overwritten."""
    workspace.script("before " + value_of({"v41": 0, "v42": 0, "v43": 100}))
    receipt = await bed.execute(adapter_of(workspace), a_command())

    assert ("superseded", {"v41": 0, "v42": 0, "v43": 100}) == (
        receipt.status, workspace.shares()
    )  # fmt: skip


async def test_a_held_lock_is_waited_out(bed: Bed, workspace: Workspace) -> None:
    """If this breaks, a pipeline that is just applying ends a rollback."""
    state = (workspace.directory / "terraform.tfstate").open("r+")
    fcntl.lockf(state, fcntl.LOCK_EX)

    def release() -> None:
        if len(bed.pauses) == 2:
            fcntl.lockf(state, fcntl.LOCK_UN)

    bed.on_pause = release
    with state:
        receipt = await bed.execute(adapter_of(workspace), a_command())

    assert ("applied", 1, [5.0, 5.0]) == (receipt.status, receipt.attempts, bed.pauses)


async def test_a_lock_that_is_never_released_ends_with_the_command(
    bed: Bed, workspace: Workspace
) -> None:
    """If this breaks, a left-over lock is broken, or waited for without an end."""
    with (workspace.directory / "terraform.tfstate").open("r+") as state:
        fcntl.lockf(state, fcntl.LOCK_EX)
        soon = bed.clock.now_ms() + 20_000
        receipt = await bed.execute(adapter_of(workspace), a_command(expires_at=soon))

    assert ("expired", "none", []) == (
        receipt.status, receipt.detail["effect"], workspace.calls("apply")
    )  # fmt: skip


async def test_a_plan_that_touches_more_is_not_applied(bed: Bed, workspace: Workspace) -> None:
    """If this breaks, a rollback applies somebody's half-finished changes along with it."""
    text = MODULE.replace('default = "one"', 'default = "two"')
    (workspace.directory / "main.tf").write_text(text)
    receipt = await bed.execute(adapter_of(workspace), a_command())
    one_line = 'resource "terraform_data" "split" { input = var.traffic }'
    replacing = one_line.replace("{ ", "{\n").replace(" }", "\ntriggers_replace = var.traffic\n}")
    (workspace.directory / "main.tf").write_text(MODULE.replace(one_line, replacing))
    replaced = await bed.execute(adapter_of(workspace), a_command(command_id="c2"))

    assert "failed" == receipt.status
    assert "terraform_data.other; that is not in `resources`" in receipt.detail["text"]
    assert "would delete or replace terraform_data.split" in replaced.detail["text"]
    assert [] == workspace.calls("apply")


async def test_a_module_without_the_output_says_so(bed: Bed, workspace: Workspace) -> None:
    """If this breaks, a misspelt name ends in retries instead of a sentence."""
    adapter = adapter_of(workspace, output="trafic")
    receipt = await bed.execute(adapter, a_command())

    assert ("failed", []) == (receipt.status, bed.pauses)
    assert "no output 'trafic'" in receipt.detail["text"]
    assert "no output 'trafic'" in (await adapter.missing())[0]


async def test_the_program_gets_no_secrets_of_others(
    bed: Bed, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a provider's plugin can read rollbackd's own keys."""
    monkeypatch.setenv("ROLLBACKD_CANARY", "canary")
    monkeypatch.setenv("TF_CLI_ARGS_apply", "-destroy")
    monkeypatch.setenv("MODULE_NEEDS", "yes")
    workspace.program.write_text(f"#!/bin/sh\nenv > {workspace.home}/env\nexit 1\n")
    with pytest.raises(PlatformFault):
        await adapter_of(workspace, pass_env=["MODULE_NEEDS"])._output()

    told = (workspace.home / "env").read_text()
    assert "MODULE_NEEDS=yes" in told
    assert not any(name in told for name in ("CANARY", "TF_CLI_ARGS"))


def test_a_world_that_drifted_is_not_taken_for_the_state() -> None:
    """If this breaks, what the state remembers is reported as what serves."""
    found = {"v41": 100.0, "v42": 0.0}
    versions = {"v41": "v41", "v42": "v42"}

    assert ["v42"] == read_output(found, versions, True, False).lingering
    assert [] == read_output(found, versions, False, False).lingering


@pytest.mark.parametrize(
    ("actions", "fault"),
    [
        (["no-op"], ""), (["read"], ""), (["update"], ""), (["delete"], "delete"),
        (["delete", "create"], "delete"), (["create", "delete"], "delete"),
    ],
)  # fmt: skip
def test_every_action_of_a_plan_has_its_answer(actions: list[str], fault: str) -> None:
    """If this breaks, a replace passes as an update."""
    shown = json.dumps({"resource_changes": [{"address": "a.b", "change": {"actions": actions}}]})

    assert fault in fault_of_changes(shown, ["a.b"])
    assert bool(fault) == bool(fault_of_changes(shown, ["a.b"]))


@pytest.mark.parametrize(
    "changes",
    [
        {"resources": []}, {"resources": ["a b"]}, {"versions": {"v41": "a", "v42": "-b c"}},
        {"directory": "here"}, {"variable": "a=b"}, {"output": ""}, {"program": "-chdir=/"},
    ],
)  # fmt: skip
def test_settings_that_could_become_an_argument_are_refused(changes: dict[str, Any]) -> None:
    """If this breaks, a name in the settings becomes a flag of the program."""
    settings: dict[str, Any] = {
        "directory": os.sep, "versions": VERSIONS, "resources": ["terraform_data.split"],
    }  # fmt: skip
    with pytest.raises(ValueError, match=next(iter(changes))):
        Terraform(**(settings | changes))
