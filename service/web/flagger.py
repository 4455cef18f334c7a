"""Flagger's webhooks: may this canary go on, must it go back?

Why so strict. To Flagger any status up to 202 means yes, and on the hook `rollback` yes takes the
canary out. So it gets 200 only while `act` carries out a rollback of exactly this Canary: it was
ordered, is not expired, passed the last questions before a write, and has no receipt yet. On the
confirming hooks yes lets the canary proceed, so it gets 200 only on a fresh `pass` without a hold.
In any other case, unknown names and doubt included, the answer is 409, which changes nothing.

Flagger sends no headers of ours, so the token stands in the webhook's `metadata`, with the model's
name: `{model: credit-risk, token: …}`.

References
----------
Flagger: webhooks, `{name, namespace, phase, checksum, metadata}`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request
from msgspec import Meta, Struct
from starlette.responses import Response

from schemas.wire import UNREADABLE
from service.config import HttpSettings
from service.web.auth import LOCAL_ACTOR, may, uses_tokens
from service.web.site import Site, Stores, answer, no

MAX_BODY_BYTES = 64 * 1024
FRESH_S = 60.0
"""A verdict that `watch` confirmed longer ago than this lets nobody go on."""
INCIDENTS = 20
"""How many of a model's newest incidents may hold the command."""
CANARY = "/apis/flagger.app/v1beta1/namespaces/{}/canaries/{}"
Name = Annotated[str, Meta(min_length=1, max_length=253)]


class Hook(Struct, frozen=True):
    """What Flagger posts."""

    name: Name
    namespace: Name
    phase: str = ""
    checksum: str = ""
    metadata: dict[str, str] = {}

    @property
    def model(self) -> str:
        """The model, by the webhook's metadata; else the Canary's own name."""
        return self.metadata.get("model") or self.name


def asked_by_flagger(site: Site, stores: Stores) -> APIRouter:
    """Make the two routes."""
    router = APIRouter(dependencies=[Depends(_need_token(site.settings))], tags=["flagger"])

    @router.post("/flagger/rollback", openapi_extra=_BODY)
    async def rollback(request: Request) -> Response:
        """200: roll back, a command for exactly this Canary is being carried out; else 409."""
        hook: Hook = request.state.hook
        command_id = await asyncio.to_thread(_under_way, stores, hook, site.clock.now_ms())
        if command_id is None:
            raise no(409, f"no rollback of {hook.namespace}/{hook.name} is under way")
        return answer({"rollback": True, "command_id": command_id})

    @router.post("/flagger/confirm-promotion", openapi_extra=_BODY)
    async def confirm(request: Request) -> Response:
        """200: go on, the canary's verdict is a fresh `pass` and nobody holds it; else 409."""
        hook: Hook = request.state.hook
        fault = await asyncio.to_thread(_fault_of_going_on, stores, hook, site.clock.now_ms())
        if fault is not None:
            raise no(409, fault)
        return answer({"proceed": True, "model": hook.model})

    return router


def _need_token(settings: HttpSettings) -> Callable[[Request], Awaitable[None]]:
    async def check(request: Request) -> None:
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MAX_BODY_BYTES:
                raise no(413, f"the body is larger than {MAX_BODY_BYTES} bytes")
        hook: Hook | None = None
        with contextlib.suppress(*UNREADABLE):
            hook = msgspec.json.decode(body, type=Hook)
        request.state.actor = LOCAL_ACTOR
        if uses_tokens(settings):
            given = "" if hook is None else hook.metadata.get("token", "")
            header = request.headers.get("authorization") or f"Bearer {given}"
            token = may(settings, "read", header)
            if token is None:
                raise no(401, "give the webhook's metadata a token that may read")
            request.state.actor = token.name
        if hook is None:
            raise no(400, "the body must be what Flagger's webhooks send")
        request.state.hook = hook

    check.right = "read"  # type: ignore[attr-defined]
    return check


def _under_way(stores: Stores, hook: Hook, now_ms: int) -> str | None:
    """Find the command that `act` is carrying out on this Canary. Blocking."""
    if stores.receipts is None:
        return None
    target = CANARY.format(hook.namespace, hook.name)
    for incident in stores.log.incidents(INCIDENTS, hook.model):
        for _, entry in stores.log.story(incident.incident_id):
            data = entry.data
            if entry.kind != "command" or data.get("action") != "rollback":
                continue
            command_id, expires_at = str(data.get("command_id", "")), data.get("expires_at")
            if not isinstance(expires_at, int) or expires_at <= now_ms:
                continue
            mark = stores.receipts.writing(command_id)
            if mark is None or stores.receipts.receipt(command_id) is not None:
                continue
            if target in mark.get("plan", {}).get("touches", []):
                return command_id
    return None


def _fault_of_going_on(stores: Stores, hook: Hook, now_ms: int) -> str | None:
    """Say why a canary must wait, or None. Blocking."""
    view = stores.checkpoints.view("watch", hook.model)
    if view is None or not view.get("canary"):
        return f"no canary of {hook.model} is known here"
    if (hold := stores.holds.blocking(hook.model, now_ms)) is not None:
        return f"{hold.actor} holds {hook.model}: {hold.reason}"
    updated_at: Any = view.get("updated_at")
    if not isinstance(updated_at, int) or now_ms - updated_at > FRESH_S * 1000:
        return f"what is known of {hook.model} is older than {FRESH_S:g} s"
    version = view["canary"]
    verdict = view.get("verdicts", {}).get(version, {}).get("verdict", "unknown")
    return None if verdict == "pass" else f"the verdict of {version} is {verdict}"


_SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
_BODY = {"requestBody": {"content": {"application/json": {"schema": _SCHEMA}}}}
