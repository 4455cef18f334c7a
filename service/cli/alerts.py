"""`rollbackd alerts test`: a message to every endpoint, now, and what each answered."""

from __future__ import annotations

import asyncio
from typing import Any

import typer
from rich import box
from rich.table import Table

from schemas.ids import derive
from service.alert.notifiers.base import Letter, NotDelivered
from service.alert.route import Notice
from service.cli.base import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    actor,
    app,
    out,
    print_json,
    settings,
)
from service.clock import WallClock
from service.http import Http, HttpFault

group = typer.Typer(
    no_args_is_help=True, help="Try the endpoints that are told of incidents.",
    context_settings={"help_option_names": ["-h", "--help"]},
)  # fmt: skip
app.add_typer(group, name="alerts")


@group.callback()
def alerts() -> None:
    """Try the endpoints that are told of incidents."""


@group.command()
def test(as_json: AsJson = False, config: ConfigFile = DEFAULT_CONFIG) -> None:
    """Send a test message to every endpoint of the settings."""
    from service.app import plugins_of

    _, notifiers = plugins_of(settings(config))
    now_ms = WallClock().now_ms()
    answers = asyncio.run(_send_all(notifiers, now_ms))
    if as_json:
        print_json(answers)
    else:
        table = Table("endpoint", "answer", box=box.SIMPLE_HEAD)
        for name, fault in answers.items():
            table.add_row(name, "[green]taken[/green]" if fault is None else f"[red]{fault}[/red]")
        out.print(table)
    if any(answers.values()):
        raise typer.Exit(1)


async def _send_all(notifiers: dict[str, Any], now_ms: int) -> dict[str, str | None]:
    notice = a_test(now_ms)
    letters = [
        Letter(derive("test", name, str(now_ms)), made.render(notice), now_ms)
        for name, made in notifiers.items()
    ]
    faults = await asyncio.gather(
        *(_send(made, letter) for made, letter in zip(notifiers.values(), letters, strict=True))
    )
    return dict(zip(notifiers, faults, strict=True))


async def _send(notifier: Any, letter: Letter) -> str | None:
    try:
        await notifier.send(letter, Http(notifier.reach))
    except (NotDelivered, HttpFault) as fault:
        return str(fault)
    return None


def a_test(now_ms: int) -> Notice:
    """The message itself: nobody should take it for an incident."""
    return Notice(
        notice_id=derive("test", str(now_ms)), incident_id="", kind="test", tone="good",
        model="rollbackd", version="-", state="test", title="rollbackd: a test message",
        what=f"{actor()} tries whether messages arrive here.",
        why="Nothing has happened.", done="Nothing is to be done.", at=now_ms,
    )  # fmt: skip
