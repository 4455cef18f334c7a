"""A person's orders: `hold`, `release`, `approve`, `reject`, `rollback`, `promote`.

They take the same path as automatic ones and leave the same records. A hold is set in storage at
once, where it is read immediately before anything would be sent, and told on its topic.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Literal

import msgspec
import typer

from schemas import ids
from schemas.commands import Hold, Order
from schemas.durations import parse_duration
from service.app import opened
from service.cli.base import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    Failure,
    actor,
    app,
    out,
    print_json,
    settings,
)
from service.config import Config
from service.engine.base import Message
from service.storage.checkpoints import CheckpointStore
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog

Reason = Annotated[str, typer.Option("--reason", help="Why; kept in the record.")]


@app.command()
def hold(
    reason: Reason,
    model: Annotated[str | None, typer.Argument(help="The model to leave alone.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="All models: the kill switch.")] = False,
    for_: Annotated[
        str | None, typer.Option("--for", help="Such as 2h; until released if left out.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Stop automatic action on a model, or on all."""
    try:
        length = parse_duration(for_) if for_ else None
    except ValueError as fault:
        raise typer.BadParameter(f"--for: {fault}") from None
    name = _one(model, everything)
    made = asyncio.run(_hold(settings(config), name, True, reason, length.ms if length else None))
    _said(made, as_json, f"Holding {_named(name)}: no automatic action"
          + (f" for {for_}." if for_ else " until released."))  # fmt: skip


@app.command()
def release(
    model: Annotated[str | None, typer.Argument(help="The model to release.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Release the kill switch.")] = False,
    reason: Reason = "released",
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Resume automatic action."""
    name = _one(model, everything)
    made = asyncio.run(_hold(settings(config), name, False, reason, None))
    _said(made, as_json, f"Released {_named(name)}.")


def _one(model: str | None, everything: bool) -> str:
    if (model is None) == (not everything):
        raise typer.BadParameter("name a model, or give --all")
    return model if model is not None else "*"


def _named(name: str) -> str:
    return "everything" if name == "*" else name


async def _hold(config: Config, model: str, active: bool, reason: str, for_ms: int | None) -> Hold:
    async with opened(config) as parts:
        now_ms = parts.clock.now_ms()
        made = Hold(model=model, active=active, reason=reason, actor=actor(), at=now_ms,
                    until=None if for_ms is None else now_ms + for_ms)  # fmt: skip
        # The store raises `at` where this machine's clock is slow; what it kept is what is told.
        made = await asyncio.to_thread(HoldStore(parts.database).set, made)
        message = Message(model.encode(), msgspec.json.encode(made))
        await parts.engine.append("holds", [message])
        return made


@app.command()
def approve(
    proposal: Annotated[str, typer.Argument(metavar="ID", help="Command or incident.")],
    reason: Reason = "approved",
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Approve a proposed command; works once, and only until it expires."""
    made = asyncio.run(_answer(settings(config), proposal, "approve", reason))
    _said(made, as_json, f"Approved {made.command_id}; the command follows.")


@app.command()
def reject(
    proposal: Annotated[str, typer.Argument(metavar="ID", help="Command or incident.")],
    reason: Reason = "rejected",
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Reject a proposed command; nothing is moved."""
    made = asyncio.run(_answer(settings(config), proposal, "reject", reason))
    _said(made, as_json, f"Rejected {made.command_id}.")


async def _answer(
    config: Config, proposal: str, kind: Literal["approve", "reject"], reason: str
) -> Order:
    async with opened(config) as parts:
        model, command = await asyncio.to_thread(_proposed, IncidentLog(parts.database), proposal)
        order = Order(order_id=ids.derive("order", kind, command), kind=kind, model=model,
                      command_id=command, actor=actor(), reason=reason,
                      at=parts.clock.now_ms())  # fmt: skip
        await parts.engine.append("orders", [Message(model.encode(), msgspec.json.encode(order))])
        return order


def _proposed(log: IncidentLog, wanted: str) -> tuple[str, str]:
    """The model and the command id of a proposal, found by its own or its incident's id."""
    for listed in log.incidents(200):
        incident = log.incident(listed.incident_id)
        for entry in incident.entries if incident else []:
            command = str(entry.data.get("command_id") or "")
            if entry.kind == "proposed" and (
                command.startswith(wanted) or entry.incident_id.startswith(wanted)
            ):
                return entry.model, command
    raise Failure(f"no proposal begins with {wanted}; `rollbackd incidents` lists what waits.")


@app.command()
def rollback(
    model: str,
    reason: Reason,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Order the canary of a model out of traffic."""
    made = asyncio.run(_order(settings(config), model, "rollback", reason))
    _said(made, as_json, f"Ordered the rollback of {model}; `rollbackd incidents` shows it.")


@app.command()
def promote(
    model: str,
    reason: Reason,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Order the canary of a model to become stable."""
    made = asyncio.run(_order(settings(config), model, "promote", reason))
    _said(made, as_json, f"Ordered the promotion of {model}; `rollbackd incidents` shows it.")


async def _order(
    config: Config, model: str, kind: Literal["rollback", "promote"], reason: str
) -> Order:
    async with opened(config) as parts:
        view = await asyncio.to_thread(CheckpointStore(parts.database).view, "watch", model)
        if view is None:
            raise Failure(f"no prediction of {model} has been seen; look for a typo.")
        if view["canary"] is None:
            raise Failure(f"{model} has no canary; there is nothing to {kind}.")
        now_ms = parts.clock.now_ms()
        order = Order(order_id=ids.derive("order", kind, model, actor(), now_ms), kind=kind,
                      model=model, actor=actor(), reason=reason, at=now_ms)  # fmt: skip
        await parts.engine.append("orders", [Message(model.encode(), msgspec.json.encode(order))])
        return order


def _said(made: Hold | Order, as_json: bool, text: str) -> None:
    if as_json:
        print_json(made)
    else:
        out.print(text, markup=False)
