"""Commands about incidents: list and show them, check the hash chain, write a post-mortem.

`rollbackd incidents` lists, `rollbackd incidents ID` shows one; what is no name of a command below
is taken for an id.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from schemas.chain import Walked, walk
from schemas.incidents import Incident
from schemas.times import to_text
from service.anchors import TOPIC, Checked, from_lines, from_topic
from service.cli.base import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    Failure,
    app,
    out,
    print_json,
    settings,
)
from service.config import Config
from service.engine.base import Record
from service.report.forms import WRITERS, told
from service.signing import Verifier
from service.storage.database import open_database
from service.storage.history import VerdictHistory
from service.storage.incident_log import IncidentLog


class CommandOrId(TyperGroup):
    """A group whose first word may be an id instead of a command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `show` before anything that is no command of this group."""
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["show", *args]
        return super().parse_args(ctx, args)


group = typer.Typer(
    cls=CommandOrId, help="List incidents, show one (incidents ID), check the record.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.add_typer(group, name="incidents")


@group.command()
def show(
    incident: Annotated[str | None, typer.Argument(metavar="[ID]", help="Show this one.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    limit: Annotated[int, typer.Option(help="At most so many.")] = 50,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """List incidents, newest first, or show one with all its entries."""
    database = open_database(settings(config).storage_url)
    log = IncidentLog(database)
    try:
        if incident is None:
            found = log.incidents(limit, model)
            if as_json:
                print_json(found)
            else:
                out.print(_incident_table(found))
            return
        one = log.incident(incident)
    finally:
        database.dispose()
    if one is None:
        raise Failure(f"no incident begins with {incident}; `rollbackd incidents` lists them.")
    if as_json:
        print_json(one)
    else:
        show_incident(one)


def _incident_table(found: list[Incident]) -> Table:
    table = Table("id", "opened", "model", "version", "state", "what", box=box.SIMPLE_HEAD)
    for incident in found:
        table.add_row(
            incident.incident_id[:12], to_text(incident.opened_at)[:19], escape(incident.model),
            escape(incident.version), incident.state, escape(incident.text),
        )  # fmt: skip
    return table


def show_incident(incident: Incident) -> None:
    """Print an incident's story."""
    out.print(f"[bold]{escape(incident.model)} {escape(incident.version)}[/bold]: "
              f"{incident.state}  ({incident.incident_id})")  # fmt: skip
    out.print(escape(incident.text))
    table = Table("when", "what", "reason", "text", box=box.SIMPLE_HEAD)
    for entry in sorted(incident.entries, key=lambda e: e.at):
        table.add_row(to_text(entry.at), entry.kind, escape(entry.reason), escape(entry.text))
    out.print(table)


@group.command()
def verify(
    anchors: Annotated[
        list[Path] | None,
        typer.Option(help="Anchors kept in a file; besides audit.anchor_file and the topic."),
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Check the hash chain of the incident log, and hold it against its signed anchors."""
    settled = settings(config)
    checked = _anchors(settled, anchors or [])
    database = open_database(settled.storage_url)
    try:
        walked = walk(IncidentLog(database).links(), checked.anchors)
    finally:
        database.dispose()
    faults = [*walked.faults, *checked.faults]
    if as_json:
        print_json({"entries": walked.entries, "anchors": len(checked.anchors),
                    "vouched": walked.vouched, "intact": not faults, "faults": faults})  # fmt: skip
    else:
        _say(walked, checked, faults)
    if faults:
        raise typer.Exit(1)


def _say(walked: Walked, checked: Checked, faults: list[str]) -> None:
    for fault in faults:
        out.print(fault, style="red", markup=False, highlight=False)
    verdict = "[red]NOT INTACT[/red]" if faults else "[green]Intact[/green]"
    out.print(f"{verdict}: {walked.entries} entries, {len(checked.anchors)} anchors; the newest "
              f"one that fits vouches for entries 1 to {walked.vouched}.")  # fmt: skip
    if not checked.anchors:
        out.print("Without an anchor nobody can see that the end was cut off; `record` signs one "
                  "every few minutes.")  # fmt: skip


def _anchors(config: Config, files: list[Path]) -> Checked:
    """Anchors of the topic and of all files, by the keys that are trusted here."""
    from service.app import audit_key_file

    pems = [Path(file).read_bytes() for file in config.audit.public_key_files]
    own = audit_key_file(config).with_name(f"{audit_key_file(config).name}.pub")
    if not pems and own.exists():
        pems = [own.read_bytes()]
    verifier = Verifier(pems)
    records = asyncio.run(_records(config))
    gathered = [from_topic([(r.offset, r.value, r.headers) for r in records], verifier)]
    kept = Path(config.audit.anchor_file) if config.audit.anchor_file else None
    for file in [kept, *files] if kept is not None and kept.exists() else files:
        try:
            gathered.append(from_lines(file.read_bytes().splitlines(), verifier, str(file)))
        except OSError as fault:
            raise Failure(f"{file}: {fault.strerror}; name a file with anchors.") from None
    return Checked(
        [anchor for each in gathered for anchor in each.anchors],
        [fault for each in gathered for fault in each.faults],
    )


async def _records(config: Config) -> Sequence[Record]:
    from service.app import opened

    async with opened(config) as parts:
        return await parts.engine.read(TOPIC)


@group.command()
def report(
    incident: Annotated[str, typer.Argument(metavar="ID", help="Or a beginning only it has.")],
    file: Annotated[Path, typer.Option("--out", help="FILE.html, FILE.md or FILE.json.")],
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Write the post-mortem of an incident."""
    form = file.suffix.removeprefix(".")
    if form not in WRITERS:
        raise typer.BadParameter(
            f"found {file.name!r}, expected a name ending in .html, .md, .json"
        )
    database = open_database(settings(config).storage_url)
    try:
        found = told(IncidentLog(database), VerdictHistory(database), incident)
    finally:
        database.dispose()
    if found is None:
        raise Failure(f"no incident begins with {incident}; `rollbackd incidents` lists them.")
    file.write_text(WRITERS[form](*found), encoding="utf-8")
    out.print(f"Wrote {file}.", markup=False, highlight=False)
