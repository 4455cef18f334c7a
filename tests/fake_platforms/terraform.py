"""A real Terraform with one module of its built-in resource, behind a program that takes notes.

Nothing here is a fake but the module: `terraform_data` stands for a router, and a file that a
`local-exec` writes for what really serves. The program in front writes down every command, refuses
what `deploy/iam/terraform.json` does not list, and dies by a script.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fake_platforms.serving import role_file
from tests.real import program

MODULE = """
variable "traffic" { type = map(number) }
variable "other" { default = "one" }
resource "terraform_data" "split" { input = var.traffic }
resource "terraform_data" "other" { input = var.other }
output "traffic" { value = terraform_data.split.output }
"""
FRONT = """#!{python}
import json, os, pathlib, subprocess, sys
home = pathlib.Path({home!r})
command = sys.argv[1]
if command not in {allowed!r}:
    sys.exit("Error: not in the role: " + command)
with (home / "calls").open("a") as calls:
    calls.write(command + "\\n")
script = home / "script"
todo = script.read_text() if command == "apply" and script.exists() else ""
if todo:
    script.unlink()
if todo == "lost":
    os.kill(os.getpid(), 9)
if todo.startswith("before "):
    subprocess.run([{real!r}, "apply", "-auto-approve", "-var=" + todo[7:]], check=True)
code = subprocess.run([{real!r}, *sys.argv[1:]]).returncode
if todo == "reset":
    os.kill(os.getpid(), 9)
if todo.startswith("after "):
    subprocess.run([{real!r}, "apply", "-auto-approve", "-var=" + todo[6:]], check=True,
                   stdout=subprocess.DEVNULL)
sys.exit(code)
"""


class Workspace:
    """An initialised working directory."""

    def __init__(self, home: Path, real: str) -> None:
        self.home = home
        self.directory = home / "module"
        self.real = real
        self.program = home / "terraform"

    def run(self, *args: str) -> str:
        """Run the real program as somebody else would."""
        told = [self.real, *args]
        env = {**os.environ, "CHECKPOINT_DISABLE": "1", "TF_IN_AUTOMATION": "1"}
        return subprocess.run(
            told, cwd=self.directory, check=True, capture_output=True, text=True, env=env
        ).stdout

    def set(self, shares: dict[str, float]) -> None:
        self.run("apply", "-auto-approve", "-input=false", f"-var={value_of(shares)}")

    def shares(self) -> dict[str, float]:
        found: dict[str, Any] = json.loads(self.run("output", "-json"))
        said: dict[str, float] = found["traffic"]["value"]
        return said

    def calls(self, name: str) -> list[str]:
        path = self.home / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        return [line for line in lines if line == name]

    def script(self, text: str) -> None:
        """Say what happens at the next apply."""
        (self.home / "script").write_text(text)


def value_of(shares: dict[str, float]) -> str:
    return f"traffic={json.dumps(shares)}"


@contextmanager
def terraforming(home: Path, **shares: float) -> Iterator[Workspace]:
    """Initialise a module while the block lasts; skips where there is no Terraform."""
    workspace = Workspace(home, program("terraform", "terraform", "tofu"))
    workspace.directory.mkdir()
    (workspace.directory / "main.tf").write_text(MODULE)
    told = {"python": sys.executable, "home": str(home), "real": workspace.real,
            "allowed": role_file("terraform")["commands"]}  # fmt: skip
    workspace.program.write_text(FRONT.format(**told))
    workspace.program.chmod(0o700)
    workspace.run("init", "-input=false")
    workspace.set(shares)
    yield workspace
