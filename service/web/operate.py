"""What people may order over HTTP: holds, releases, approvals and rejections.

Why both ways. A hold is written to the store, where every decision reads it, before it is told on
its topic for machines with another store: the kill switch must not wait for a broker. Either way
alone is tried even when the other fails, and the answer says so.

An approval is no command: it is an `Order` on its topic, bound to the id of the proposal, and
`watch` decides whether it still holds.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Depends, Request
from msgspec import Meta, Struct
from starlette.responses import Response

from schemas.commands import Hold, Order
from schemas.durations import parse_duration
from schemas.ids import derive
from schemas.incidents import Entry
from schemas.times import WireTime, to_ms, to_text
from schemas.wire import UNREADABLE
from service.engine.base import Message
from service.web.auth import need
from service.web.site import STAGE, Site, Stores, answer, no

MAX_BODY_BYTES = 64 * 1024
Reason = Annotated[str, Meta(min_length=1, max_length=1000)]

logs: Any = structlog.get_logger(STAGE)


class NewHold(Struct, frozen=True, forbid_unknown_fields=True, rename={"for_": "for"}):
    """Body of `POST /v1/holds`."""

    model: Annotated[str, Meta(min_length=1, max_length=128)]
    """A model's name, or `*` for all (the kill switch)."""
    reason: Reason
    for_: str | float | None = None
    """How long, such as `2h`; until released when left out."""
    until: WireTime | None = None
    """Or when it ends."""


class Answer(Struct, frozen=True, forbid_unknown_fields=True):
    """Body of approve and reject; may be left out."""

    reason: Reason = "over HTTP"


def operating(site: Site, stores: Stores) -> APIRouter:
    """Make the routes that change something."""
    router = APIRouter(dependencies=[Depends(need(site.settings, "operate"))])

    @router.post("/v1/holds", status_code=201, openapi_extra=_body(NewHold))
    async def hold(request: Request) -> Response:
        """Stop automatic action for a model, or with model `*` for all."""
        wanted = await _read(request, NewHold)
        now = site.clock.now_ms()
        made = Hold(
            model=wanted.model, active=True, reason=wanted.reason,
            actor=str(request.state.actor), at=now, until=_until(wanted, now),
        )  # fmt: skip
        return answer(await _spread(site, stores, made), 201)

    @router.delete("/v1/holds/{model:path}")
    async def release(request: Request, model: str, reason: str = "released") -> Response:
        """Resume automatic action for a model (`*`: the kill switch)."""
        now = site.clock.now_ms()
        in_force = await asyncio.to_thread(stores.holds.all, now)
        if not any(found.model == model for found in in_force):
            raise no(404, f"there is no hold on {model} in force")
        made = Hold(
            model=model, active=False, reason=reason[:1000],
            actor=str(request.state.actor), at=now,
        )  # fmt: skip
        return answer(await _spread(site, stores, made))

    @router.post("/v1/commands/{command_id}/approve", status_code=202, openapi_extra=_body(Answer))
    async def approve(request: Request, command_id: str) -> Response:
        """Approve a proposed command, once."""
        return await _order(site, stores, request, command_id, "approve")

    @router.post("/v1/commands/{command_id}/reject", status_code=202, openapi_extra=_body(Answer))
    async def reject(request: Request, command_id: str) -> Response:
        """Reject a proposed command."""
        return await _order(site, stores, request, command_id, "reject")

    return router


async def _spread(site: Site, stores: Stores, hold: Hold) -> Hold:
    """Store a hold and tell it; raise 503 unless both were done."""
    failed: list[str] = []
    try:
        hold = await asyncio.to_thread(stores.holds.set, hold)
    except Exception as fault:
        logs.error("hold is not stored", fault=str(fault))
        failed.append("storage")
    try:
        await site.engine.append("holds", [Message(hold.model.encode(), msgspec.json.encode(hold))])
    except Exception as fault:
        logs.error("hold is not told", fault=str(fault))
        failed.append("the engine")
    if failed:
        raise no(503, f"{' and '.join(failed)} did not take it; try again until this says done")
    logs.info(
        "hold" if hold.active else "release",
        model=hold.model, actor=hold.actor, reason=hold.reason,
    )  # fmt: skip
    return hold


async def _order(
    site: Site, stores: Stores, request: Request, command_id: str, kind: Any
) -> Response:
    said = await _read(request, Answer)
    proposed = await asyncio.to_thread(stores.log.proposal, command_id)
    if proposed is None:
        raise no(404, "no command with this id was proposed; see /v1/incidents")
    now = site.clock.now_ms()
    if fault := await asyncio.to_thread(_fault_of_proposal, stores, proposed, command_id, now):
        raise no(409, fault)
    order = Order(
        order_id=derive("order", kind, command_id), kind=kind, model=proposed.model,
        command_id=command_id, actor=str(request.state.actor), reason=said.reason, at=now,
    )  # fmt: skip
    await site.engine.append("orders", [Message(order.model.encode(), msgspec.json.encode(order))])
    logs.info("order", order=kind, model=order.model, actor=order.actor, command=command_id)
    return answer(order, 202)


def _fault_of_proposal(stores: Stores, proposed: Entry, command_id: str, now: int) -> str | None:
    for _, entry in stores.log.story(proposed.incident_id):
        of_it = entry.data.get("command_id") == command_id
        if of_it and entry.kind in ("approved", "rejected", "command"):
            return f"it was {_DONE[entry.kind]} at {to_text(entry.at)}"
    command = proposed.data.get("command")
    expires_at = command.get("expires_at") if isinstance(command, dict) else None
    if isinstance(expires_at, int) and expires_at <= now:
        return f"it expired at {to_text(expires_at)}; a new one follows if it is still wanted"
    return None


_DONE = {"approved": "approved", "rejected": "rejected", "command": "sent"}


async def _read(request: Request, kind: Any) -> Any:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY_BYTES:
            raise no(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except UNREADABLE as fault:
        raise no(400, f"the body: {fault}") from None


def _until(wanted: NewHold, now: int) -> int | None:
    if wanted.until is not None and wanted.for_ is not None:
        raise no(400, "the body: give for or until, not both")
    if wanted.for_ is not None:
        try:
            return now + parse_duration(wanted.for_).ms
        except ValueError as fault:
            raise no(400, f"the body: for: {fault}") from None
    if wanted.until is None:
        return None
    until = to_ms(wanted.until)
    if until <= now:
        raise no(400, "the body: until lies in the past")
    return until


def _body(kind: Any) -> dict[str, Any]:
    schema = msgspec.json.schema(kind)
    (found,) = schema["$defs"].values() if len(schema["$defs"]) == 1 else (schema,)
    return {"requestBody": {"content": {"application/json": {"schema": found}}}}
