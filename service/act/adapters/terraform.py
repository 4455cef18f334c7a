"""Terraform or OpenTofu on this machine: traffic as a variable of one working directory.

How. The module has a variable, a map of percents by version, and an output of the same shape. The
shares are read from the output, and a plan with the same values shows whether the world has drifted
from the state. To write: plan into a file, look at what it would touch, apply that file.

The saved plan is the lock: when the state changed in between, the apply refuses it as stale. The
state's own lock keeps a second apply away; while somebody holds it the platform counts as moving.

What this platform does that others do not:

- It takes seconds to minutes. Where a router can be reached, move traffic there first, and let this
  be the second step that makes it last.
- A plan may touch more than traffic. Whatever is not in `resources`, and every delete or replace,
  ends it before anything is applied.
- A killed apply leaves the state locked; to break that lock is a person's task.

A started apply is never killed: it runs in a session of its own and writes to a file, so that
neither a time limit nor the end of this process leaves half of it.

Refused here: `destroy`, `force-unlock`, `-target`, a shell, `TF_CLI_ARGS`.

References
----------
Terraform CLI 1.11: plan, apply, output, JSON output format.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import msgspec

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Adapter, Ask, FaultKind, Pace, PlatformFault
from service.act.adapters.targets import check_name, check_versions, decide, words_of_shares
from service.act.plans import Applied, Current, Plan, Refusal
from service.crash import crash_point
from service.telemetry import clean

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,127}")
KEY = re.compile(r"[A-Za-z0-9_.-]{1,128}")
ADDRESS = re.compile(r"[A-Za-z0-9_.\-\[\]\"]{3,512}")
_PASSED = ("PATH", "HOME", "LANG", "TMPDIR", "SSL_CERT_FILE", "HTTPS_PROXY", "NO_PROXY")
_FAMILIES = ("TF_", "AWS_", "ARM_", "GOOGLE_")
_LOCKED = "Error acquiring the state lock"
_STALE = "Saved plan is stale"
_CHANGES = 2
_QUIET = ("-input=false", "-no-color")


class _End(NamedTuple):
    """How one run ended."""

    code: int
    out: str
    err: str


@plugin("terraform")
@dataclass
class Terraform(Adapter):
    """One working directory, initialised.

    Parameters
    ----------
    directory : str
        Where `init` was run.
    versions : dict
        Version -> its key in the map of percents.
    resources : list of str
        Addresses that an apply may change. Anything else ends it.
    variable, output : str
        Names of the map in and out.
    model : str, optional
        The one model that this serves.
    program : str
        `terraform`, `tofu`, or a path.
    var_files : list of str
        Files with the module's other variables.
    pass_env : list of str
        Variables of this process that the program gets besides TF_*, AWS_*, ARM_*, GOOGLE_*.
    deadline_s, settle_s : float
        Total time of one step; how long its effect may take to show. Seconds.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    directory: str
    versions: dict[str, str]
    resources: list[str]
    variable: str = "traffic"
    output: str = "traffic"
    model: str | None = None
    program: str = "terraform"
    var_files: list[str] = field(default_factory=list)
    pass_env: list[str] = field(default_factory=list)
    deadline_s: float = 240.0
    settle_s: float = 60.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Refuse what could become another argument, or an apply without a list."""
        check_versions("versions", self.versions, KEY)
        check_name("variable", self.variable, NAME)
        check_name("output", self.output, NAME)
        if not self.resources:
            raise ValueError("resources: expected the addresses that an apply may change")
        for address in self.resources:
            check_name("resources", address, ADDRESS)
        if not Path(self.directory).is_absolute():
            raise ValueError("directory: expected an absolute path")
        for path in (self.program, *self.var_files):
            if not path or path.startswith("-"):
                raise ValueError(f"program, var_files: found {path!r}, expected a path")

    @property
    def pace(self) -> Pace:
        """A plan and an apply take seconds to minutes."""
        return Pace(self.deadline_s, self.settle_s, poll_s=5.0)

    async def current(self, ask: Ask) -> Current:
        """Read the output, and whether the world still is as the state says."""
        said = await self._output()
        with tempfile.TemporaryDirectory(prefix="rollbackd-") as home:
            saved, drifted = f"{home}/plan", False
            end = await self._plan(saved, said)
            if end.code not in (0, _CHANGES) and _LOCKED not in end.err:
                raise fault_of(end, "plan", "transient")
            if end.code == _CHANGES:
                touched = changes_of(await self._show(saved))
                drifted = any(address in self.resources for address in touched)
        return read_output(said, self.versions, drifted, _LOCKED in end.err)

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Give the variable another value."""
        wanted = decide(now, command, self.versions, self.model)
        if isinstance(wanted, Plan | Refusal):
            return wanted
        said: dict[str, float] = now.raw["said"]
        value = dict.fromkeys(said, 0.0)  # a key that was there stays, without traffic
        value |= {self.versions[version]: share for version, share in wanted.items()}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[
                {
                    "run": "plan, then apply",
                    "value": msgspec.json.encode(value).decode(),
                    "was": msgspec.json.encode(said, order="sorted").decode(),
                }
            ],
            diff=f"{self.variable}: {words_of_shares(said)} to {words_of_shares(value)}",
            touches=list(self.resources),
            lock="saved plan",
            undo=[f"{self.variable}: {words_of_shares(said)}"],
            notes=["change the value in the sources as well, or the next apply brings it back"],
        )

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Plan into a file, look at it, apply it."""
        request = plan.requests[0]
        value = msgspec.json.decode(request["value"], type=dict[str, float])
        with tempfile.TemporaryDirectory(prefix="rollbackd-") as home:  # a plan holds secrets
            saved = f"{home}/plan"
            planned = await self._plan(saved, value)
            if planned.code not in (0, _CHANGES):
                raise fault_of(planned, "plan", "permanent")
            if msgspec.json.encode(await self._output(), order="sorted").decode() != request["was"]:
                raise PlatformFault("conflict", "the state was changed since it was read")
            if planned.code == 0:
                return Applied(log=[{"run": "plan", "exit": 0}])
            if fault := fault_of_changes(await self._show(saved), self.resources):
                raise PlatformFault("permanent", fault)
            end = await self._run("apply", saved, writes=True)
        if end.code != 0:
            raise fault_of(end, "apply", "permanent", done=1)
        return Applied(log=[{"run": "plan", "exit": planned.code}, {"run": "apply", "exit": 0}])

    async def missing(self) -> list[str]:
        """Check the program, the directory and the output."""
        try:
            said = await self._output()
        except PlatformFault as fault:
            return [str(fault)]
        return [
            f"version {version!r}: output {self.output} has no key {key!r}"
            for version, key in self.versions.items()
            if key not in said
        ]

    async def _plan(self, saved: str, value: Mapping[str, float]) -> _End:
        files = [f"-var-file={path}" for path in self.var_files]
        given = f"-var={self.variable}={msgspec.json.encode(value).decode()}"
        return await self._run("plan", "-detailed-exitcode", f"-out={saved}", *files, given)

    async def _show(self, saved: str) -> str:
        return (await self._run("show", "-json", saved, quiet=("-no-color",))).out

    async def _output(self) -> dict[str, float]:
        end = await self._run("output", "-json", quiet=("-no-color",))
        if end.code != 0:
            raise fault_of(end, "output", "transient")
        try:
            outputs = msgspec.json.decode(end.out)
            return msgspec.convert(outputs[self.output]["value"], dict[str, float])
        except (msgspec.MsgspecError, KeyError, TypeError):
            text = f"{self.directory} has no output {self.output!r} that maps versions to percents"
            raise PlatformFault("permanent", text) from None

    async def _run(
        self, command: str, *args: str, quiet: tuple[str, ...] = _QUIET, writes: bool = False
    ) -> _End:
        """Run one command; what it says goes to files, so that it outlives a reader."""
        environment = {
            name: text
            for name, text in os.environ.items()
            if name in (*_PASSED, *self.pass_env) or name.startswith(_FAMILIES)
        }
        environment = {n: t for n, t in environment.items() if not n.startswith("TF_CLI_ARGS")}
        environment |= {"TF_IN_AUTOMATION": "1", "CHECKPOINT_DISABLE": "1"}
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            try:
                child = await asyncio.create_subprocess_exec(
                    self.program, command, *quiet, *args,
                    cwd=self.directory, env=environment, start_new_session=True,
                    stdin=asyncio.subprocess.DEVNULL, stdout=out, stderr=err,
                )  # fmt: skip
            except OSError as fault:
                text = f"{self.program} cannot be run in {self.directory}: {fault.strerror}"
                raise PlatformFault("transient", text) from None
            if writes:
                crash_point("K9")
            try:
                await child.wait()
            finally:
                if child.returncode is None and not writes:
                    with contextlib.suppress(ProcessLookupError):
                        child.kill()
            return _End(child.returncode or 0, _text(out), _text(err))


def _text(file: Any) -> str:
    file.seek(0)
    return str(file.read().decode("utf-8", "replace"))


def fault_of(end: _End, command: str, otherwise: FaultKind, done: int = 0) -> PlatformFault:
    """Say what a failed run means."""
    kind = otherwise
    if end.code < 0:
        kind, done = ("unknown" if done else "transient"), 0
    elif _STALE in end.err:
        kind, done = "conflict", 0
    elif _LOCKED in end.err:
        kind, done = "busy", 0
    found = re.search(r"^.*Error: (.*)$", end.err, re.MULTILINE)
    words = f": {str(clean(found[1]))[:200]}" if found else ""
    return PlatformFault(kind, f"{command} ended with {end.code}{words}", None, done)


def changes_of(shown: str) -> dict[str, list[str]]:
    """Read what a saved plan would do: address -> actions, without what stays as it is.

    Raises
    ------
    PlatformFault
    """
    try:
        changes = msgspec.json.decode(shown).get("resource_changes", [])
        found = {one["address"]: list(one["change"]["actions"]) for one in changes}
    except (msgspec.MsgspecError, KeyError, TypeError, AttributeError):
        raise PlatformFault("permanent", "the saved plan cannot be read") from None
    return {a: actions for a, actions in found.items() if actions not in (["no-op"], ["read"])}


def fault_of_changes(shown: str, allowed: list[str]) -> str:
    """Say what a plan would touch that it must not; empty: nothing."""
    for address, actions in changes_of(shown).items():
        if "delete" in actions:
            return f"the plan would delete or replace {address}"
        if address not in allowed:
            return f"the plan would also change {address}; that is not in `resources`"
    return ""


def read_output(
    said: dict[str, float], versions: Mapping[str, str], drifted: bool, locked: bool
) -> Current:
    """Read who serves; a key without a version counts as a stranger."""
    version_of = {key: version for version, key in versions.items()}
    shares = {version_of.get(key, f"key:{key}"): share for key, share in said.items()}
    idle = sorted(version for version, share in shares.items() if share == 0)
    return Current(
        shares=shares,
        # The world is not as the state says: what has no share there may well serve.
        lingering=idle if drifted else [],
        transition=locked,
        raw={"said": said, "drifted": drifted},
    )
