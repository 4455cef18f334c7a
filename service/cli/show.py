"""`status`, and `send`, which feeds a recording to the engine."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from service.cli.base import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    Failure,
    app,
    err,
    out,
    print_json,
    settings,
)
from service.cli.recordings import Sent, send_all
from service.config import Config
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database

COLOURS = {"pass": "green", "breach": "red", "inconclusive": "cyan", "unknown": "yellow"}


@app.command()
def status(
    model: Annotated[str | None, typer.Argument(help="Only this model.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Show models, versions, roles, verdicts and lag."""
    database = open_database(settings(config).storage_url)
    store = CheckpointStore(database)
    if model is not None:
        view = store.view("watch", model)
        if view is None:
            raise Failure(f"no prediction of {model} has been seen; send some, or look for a typo.")
        views = [view]
    else:
        views = store.views("watch")
    database.dispose()
    if as_json:
        print_json(views[0] if model is not None else views)
        return
    out.print(_status_table(views))
    for sentence in _sentences(views):
        out.print(sentence, markup=False, highlight=False)


def _status_table(views: list[dict[str, Any]]) -> Table:
    table = Table("model", "version", "role", "weight", "share", "predictions", "outcomes",
                  "unlabelled", "coverage", "verdict", box=box.SIMPLE_HEAD)  # fmt: skip
    for view in sorted(views, key=lambda v: str(v["model"])):
        for version in view["versions"]:
            verdict = version["verdict"] or "-"
            colour = COLOURS.get(verdict, "white")
            is_canary = version["role"] == "canary"
            table.add_row(
                escape(view["model"]), escape(version["version"]), version["role"],
                _percent(view["weight"] if is_canary else None), _percent(version["share"]),
                str(version["predictions"]), str(version["outcomes"]), str(version["unlabelled"]),
                _percent(version["coverage"]), f"[{colour}]{verdict}[/{colour}]",
            )  # fmt: skip
    return table


def _sentences(views: list[dict[str, Any]]) -> list[str]:
    return [
        version["text"] for view in sorted(views, key=lambda v: str(v["model"]))
        for version in view["versions"] if version.get("text")
    ]  # fmt: skip


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


@app.command()
def send(
    files: Annotated[list[Path], typer.Argument(help="Recordings; - for standard input.")],
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Send recordings to the engine, a line an event."""
    sent = asyncio.run(_send(settings(config), files))
    if as_json:
        print_json(msgspec.to_builtins(sent))
    else:
        out.print(f"Sent {sent.sent} of {sent.read} events "
                  f"({sent.refused} refused, kept in dead-letters).")  # fmt: skip


async def _send(config: Config, files: list[Path]) -> Sent:
    from service.app import opened

    async with opened(config) as parts:
        return await send_all(parts.engine, parts.clock, files, err)
