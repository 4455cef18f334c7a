"""What can be read: models, verdicts, incidents, holds, and the stream of their changes."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from fastapi import APIRouter, Depends, Query
from starlette.responses import Response, StreamingResponse

from service.web.auth import need
from service.web.feed import Feed
from service.web.site import Site, Stores, answer, no

WATCH = "watch"


def reading(site: Site, stores: Stores, feed: Feed) -> APIRouter:
    """Make the routes that change nothing."""
    router = APIRouter(dependencies=[Depends(need(site.settings, "read"))])
    views = stores.checkpoints

    @router.get("/v1/models")
    async def models() -> Response:
        """Every model, as `{"models": […]}`; each as in `/v1/models/{model}`."""
        found = await asyncio.to_thread(views.views, WATCH)
        return answer({"models": [_aged(view, site) for view in found]})

    @router.get("/v1/models/{model:path}")
    async def one_model(model: str) -> Response:
        """One model: plan, versions with exact counts, verdicts; `age_s` since it was stored."""
        return answer(_aged(await _view_of(stores, model), site))

    @router.get("/v1/verdicts/{model:path}")
    async def verdict(model: str, version: str | None = None) -> Response:
        """The current verdict of the canary, or of stable where there is none.

        `age_s`: seconds since `watch` last confirmed it. `?version=` asks for another version.
        """
        view = await _view_of(stores, model)
        wanted = version or view.get("canary") or view.get("stable")
        found = view.get("verdicts", {}).get(wanted)
        if found is None:
            raise no(404, f"there is no verdict about version {wanted} of {model} yet")
        return answer({**found, "age_s": _age_s(view, site)})

    @router.get("/v1/incidents")
    async def incidents(
        model: str | None = None, limit: int = Query(100, ge=1, le=1000)
    ) -> Response:
        """The newest incidents without their entries, as `{"incidents": […]}`."""
        found = await asyncio.to_thread(stores.log.incidents, limit, model)
        return answer({"incidents": found})

    @router.get("/v1/incidents/{incident_id}")
    async def one_incident(incident_id: str) -> Response:
        """One incident with its entries, by its id or a beginning that only it has."""
        found = await asyncio.to_thread(stores.log.incident, incident_id)
        if found is None:
            raise no(404, "no incident, or more than one, has an id that begins like this")
        return answer(found)

    @router.get("/v1/holds")
    async def holds() -> Response:
        """The holds in force, as `{"holds": […]}`; model `*` is the kill switch."""
        found = await asyncio.to_thread(stores.holds.all, site.clock.now_ms())
        return answer({"holds": found})

    @router.get("/v1/stream")
    async def stream() -> Response:
        """Server-sent events `model`, `incident` and `holds`: first all, then what changes."""
        if feed.full:
            raise no(503, "too many listen already; poll /v1/models", {"retry-after": "30"})
        return StreamingResponse(
            feed.listen(), media_type="text/event-stream", headers={"x-accel-buffering": "no"}
        )

    return router


async def _view_of(stores: Stores, model: str) -> dict[str, Any]:
    view = await asyncio.to_thread(stores.checkpoints.view, WATCH, model)
    if view is None:
        raise no(404, f"no events of model {msgspec.json.encode(model).decode()} were seen yet")
    return view


def _aged(view: dict[str, Any], site: Site) -> dict[str, Any]:
    return {**view, "age_s": _age_s(view, site)}


def _age_s(view: dict[str, Any], site: Site) -> float | None:
    updated_at: int | None = view.get("updated_at")
    if updated_at is None:
        return None
    return max(0.0, round((site.clock.now_ms() - updated_at) / 1000, 3))
