"""Commands that set up and run: `run`, `init`, `check`, `topics`, `schema`, `demo`."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from schemas.policies import PROVABLE, Policy
from service.alert.audience import notes_of
from service.app import ROLES, audiences_of, detectors_known, opened, plugins_of, serve
from service.cli.base import DEFAULT_CONFIG, AsJson, ConfigFile, Failure, app, err, out, print_json
from service.cli.base import settings as settings_of
from service.cli.templates import TEMPLATES
from service.config import Config
from service.engine.base import EngineFault, TopicState
from service.storage.database import StorageFault
from service.telemetry import configure_logs
from service.watch.early import label_notes
from service.watch.named import notes_of_detectors


@app.command()
def run(
    role: Annotated[list[str] | None, typer.Option(help="Only these roles.")] = None,
    listen: Annotated[str | None, typer.Option(help="ADDRESS:PORT instead of http.listen.")] = None,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Run the daemon: all roles in one process, or the named ones."""
    unknown = sorted(set(role or ()) - set(ROLES))
    if unknown:
        raise typer.BadParameter(f"unknown role {unknown[0]}; known: {', '.join(ROLES)}")
    settings = settings_of(config)
    configure_logs(pretty=sys.stderr.isatty(), level=settings.log_level)
    asyncio.run(_run(settings, set(role or ROLES), listen))


async def _run(config: Config, roles: set[str], listen: str | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    await serve(config, roles, stop, listen)


@app.command()
def init(
    template: Annotated[str, typer.Option(help=f"One of {', '.join(TEMPLATES)}.")] = "binary",
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Write a commented settings file."""
    if template not in TEMPLATES:
        raise typer.BadParameter(f"unknown template {template}; known: {', '.join(TEMPLATES)}")
    if config.exists():
        raise Failure(f"{config} exists; choose another file with --config, or remove it first.")
    config.write_text(TEMPLATES[template], encoding="utf-8")
    out.print(f"Wrote {config}. Next: rollbackd check, then rollbackd run.")


@app.command()
def check(
    live: Annotated[bool, typer.Option("--live", help="Connect to everything as well.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Check the settings; with --live also engine, storage, adapters and alerts."""
    settings = settings_of(config)
    plugins_of(settings)
    notes = _notes(settings)
    missing = asyncio.run(_live(settings)) if live else []
    if as_json:
        print_json({"ok": not missing, "digest": settings.digest, "missing": missing,
                    "notes": notes})  # fmt: skip
    else:
        for note in notes:
            out.print(f"note: {note}", style="yellow", markup=False, highlight=False)
        for line in missing:
            err.print(line, style="red", markup=False, highlight=False)
    if missing:
        raise typer.Exit(1)
    if not as_json:
        out.print(f"{config} is valid (digest {settings.digest}).", style="green")


def _notes(config: Config) -> list[str]:
    """What is allowed, but may surprise."""
    notes = []
    adapters, _ = plugins_of(config)
    for index, policy in enumerate(config.policies):
        path = f"policies[{index}]"
        share = policy.guard_alpha()
        notes.append(f"{path}: each guard that can act has alpha {share:.4g} "
                     f"of {policy.alpha:g} for {policy.model}")  # fmt: skip
        notes += [f"{path}.labels: {line}" for line in label_notes(policy)]
        if policy.votes == "pair":
            notes.append(
                f"{path}.votes: limits against the stable and promotion count pairs whose answers "
                "differ; what both versions get wrong counts for neither, which is stricter than "
                "comparing rates. Limits against a number count predictions"
            )
        if policy.votes == "unit":
            notes.append(
                f"{path}.votes: a stable version is not compared with the one before it, and "
                "detectors named by a policy take predictions, not units"
            )
        if policy.promote is not None:
            notes += _promotion_notes(policy, adapters[policy.adapter or "dry_run"], path)
            if not any(g.signal in PROVABLE and g.detector is None for g in policy.guards):
                notes.append(
                    f"{path}.promote: no guard has a limit on a share of bad predictions, so "
                    "there is nothing to prove and pass rests on limits alone"
                )
        if policy.mode == "enforce" and policy.adapter is None:
            notes.append(f"{path}.adapter: none, so commands go to dry_run and move nothing")
        for guard in policy.guards:
            if guard.segment is not None:
                notes.append(
                    f"{path}: {guard.label}: all rows together have alpha "
                    f"{share * guard.part(sliced=False):.4g}, each of the first {guard.slices} "
                    f"values of {guard.segment} {share * guard.part(sliced=True):.4g}; "
                    f"together {share:.4g}"
                )
    heard = [each for audiences in audiences_of(config).values() for each in audiences]
    return notes + notes_of(heard) + notes_of_detectors(config.policies, detectors_known())


def _promotion_notes(policy: Policy, adapter: Any, path: str) -> Iterator[str]:
    if policy.mode == "observe":
        yield f"{path}.promote: the policy only observes, so steps are said and not carried out"
    lacks = [verb for verb in ("shift", "promote") if verb not in adapter.can]
    if lacks:
        name = policy.adapter or "dry_run"
        yield f"{path}.promote: {name} cannot {' or '.join(lacks)}; such steps are refused there"


async def _live(config: Config) -> list[str]:
    missing: list[str] = []
    try:
        async with opened(config) as parts:
            for topic in await parts.engine.topics():
                if not topic.partitions:
                    missing.append(
                        f"topic {topic.name} does not exist; run rollbackd topics --create"
                    )
            for name, adapter in parts.adapters.items():
                missing += [f"adapters.{name}: {line}" for line in await adapter.missing()]
    except (EngineFault, StorageFault, OSError) as fault:
        missing.append(str(fault))
    return missing


@app.command()
def topics(
    create: Annotated[bool, typer.Option("--create", help="Make those that are missing.")] = False,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Show or make topics; nothing is created in silence."""
    found = asyncio.run(_topics(settings_of(config), create))
    if as_json:
        print_json([topic._asdict() for topic in found])
        return
    table = Table("topic", "name", "partitions")
    for topic in found:
        state = str(topic.partitions) if topic.partitions else f"missing (wanted {topic.wanted})"
        table.add_row(topic.topic, topic.name, state)
    out.print(table)


async def _topics(config: Config, create: bool) -> list[TopicState]:
    async with opened(config) as parts:
        return list(await parts.engine.topics(create=create))


@app.command()
def schema(
    folder: Annotated[Path, typer.Option("--out", help="Folder to write to.")],
    as_json: AsJson = False,
) -> None:
    """Write JSON Schemas of all messages and one AsyncAPI document."""
    from service import documents

    written = documents.write(folder)
    if as_json:
        print_json([str(file) for file in written])
    else:
        out.print(f"Wrote {len(written)} documents to {folder}.")


@app.command()
def demo(
    once: Annotated[
        bool, typer.Option("--once", help="End when the rollback is verified.")
    ] = False,
    port: Annotated[int, typer.Option(help="Port of the page.")] = 8420,
) -> None:
    """Real recorded data, two models, a little router, a bad canary: see it caught."""
    from service.demo.run import run_demo

    configure_logs(pretty=False, level="error")
    raise typer.Exit(asyncio.run(run_demo(once, port, _daemon)))


@contextlib.asynccontextmanager
async def _daemon(config: Config) -> AsyncIterator[None]:
    """All roles in this process, for the demo."""
    stop, ready = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(serve(config, set(ROLES), stop, ready=ready))
    starting = asyncio.create_task(ready.wait())
    await asyncio.wait([task, starting], return_when=asyncio.FIRST_COMPLETED)
    starting.cancel()
    try:
        if task.done():
            await task
        yield None
    finally:
        stop.set()
        await task
