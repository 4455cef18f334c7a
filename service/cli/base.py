"""What all commands share: the typer app, the consoles, the settings file, JSON or words."""

from __future__ import annotations

import getpass
import os
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console

from service.config import Config, load

app = typer.Typer(
    name="rollbackd", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Watch every model version in production and take a bad one out of traffic, with proof.",
)  # fmt: skip
out = Console(soft_wrap=True, width=None if sys.stdout.isatty() else 160)
err = Console(stderr=True, soft_wrap=True)

ConfigFile = Annotated[
    Path,
    typer.Option("--config", envvar="ROLLBACKD_CONFIG", help="Settings file.", show_default=True),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
DEFAULT_CONFIG = Path("rollbackd.yaml")


class Failure(RuntimeError):
    """A command cannot do what was asked; the text says why and what to do."""


def settings(file: Path) -> Config:
    """Read the settings, all faults at once."""
    return load(file)


def print_json(value: Any) -> None:
    """Print one JSON document."""
    typer.echo(msgspec.json.format(msgspec.json.encode(value), indent=2).decode())


def actor() -> str:
    """Who gives an order, for the audit."""
    try:
        return os.environ.get("ROLLBACKD_ACTOR") or getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
