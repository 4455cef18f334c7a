"""The HTTP application of a process: health and metrics everywhere, API and pages where asked.

Every route belongs to one of four sets: open (health, metrics, the page's own files), `read`,
`send`, `operate`; see `auth.py`. Answers that refuse are `{"error": "one sentence"}`.

Refused here: anything from another host. The page, its script and its style are files beside this
one, and the answer's headers forbid the rest.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from importlib.resources import files
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from service.engine.base import EngineFault
from service.web.auth import HEADERS, fault_of_origin, need
from service.web.curves import drawing
from service.web.events import EventsIntake
from service.web.feed import Feed
from service.web.flagger import asked_by_flagger
from service.web.operate import operating
from service.web.reads import reading
from service.web.site import STAGE, Site, Stores, answer

Scope = MutableMapping[str, Any]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

logs: Any = structlog.get_logger(STAGE)

READY_LAG_S = 10.0
PAGES = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/app.js": ("app.js", "text/javascript; charset=utf-8"),
    "/model.js": ("model.js", "text/javascript; charset=utf-8"),
    "/vendor/uPlot.iife.min.js": ("vendor/uPlot.iife.min.js", "text/javascript; charset=utf-8"),
    "/vendor/uPlot.min.css": ("vendor/uPlot.min.css", "text/css; charset=utf-8"),
    "/style.css": ("style.css", "text/css; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}


def create_app(site: Site, stores: Stores | None = None) -> FastAPI:
    """Make the application; without stores it has health and metrics only."""
    app = FastAPI(
        title="rollbackd", version="1", docs_url=None, redoc_url=None,
        openapi_url="/openapi.json" if stores else None,
        description="Errors are {\"error\": \"one sentence\"}.",
    )  # fmt: skip
    app.add_middleware(Gate, site=site)
    app.add_exception_handler(HTTPException, _refuse)
    app.add_exception_handler(RequestValidationError, _refuse_parameters)
    for kind, what in ((SQLAlchemyError, "storage"), (EngineFault, "the engine")):
        app.add_exception_handler(kind, _unable(what))
    _add_health(app, site)
    if stores is not None:
        feed = Feed(stores, site.clock)
        app.state.feed = feed
        _add_events(app, site)
        app.include_router(reading(site, stores, feed))
        app.include_router(drawing(site, stores))
        app.include_router(operating(site, stores))
        app.include_router(asked_by_flagger(site, stores))
        _add_pages(app)
    return app


def _add_health(app: FastAPI, site: Site) -> None:
    @app.get("/healthz", tags=["open"])
    async def healthz() -> Response:
        """200 while the process answers."""
        return answer({"ok": True})

    @app.get("/readyz", tags=["open"])
    async def readyz() -> Response:
        """200 when this process's roles own their share and lag by less than 10 s, else 503."""
        health = dict((site.health or site.engine.health)())
        ready = bool(health.get("ready")) and health.get("lag_s", 0.0) < READY_LAG_S
        return answer({**health, "ready": ready}, 200 if ready else 503)

    @app.get("/metrics", tags=["open"])
    async def metrics() -> Response:
        """For Prometheus."""
        text = generate_latest(site.metrics.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})


def _add_events(app: FastAPI, site: Site) -> None:
    intake = EventsIntake(site)

    @app.post(
        "/v1/events",
        status_code=202,
        dependencies=[Depends(need(site.settings, "send"))],
        openapi_extra={"requestBody": _EVENTS_BODY},
    )
    async def events(request: Request) -> Response:
        """Send events, one JSON object a line or a JSON array; at most 8 MiB.

        Acknowledged means durable. 202 when at least one was accepted, 400 when none.
        """
        return await intake.post(request)


_EVENT = {"type": "object", "properties": {"type": {"type": "string"}}, "required": ["type"]}
_EVENTS_BODY = {
    "content": {
        "application/x-ndjson": {"schema": {"type": "string"}},
        "application/json": {"schema": {"type": "array", "items": _EVENT}},
    }
}


def _add_pages(app: FastAPI) -> None:
    folder = files("service.web") / "pages"
    for path, (name, kind) in PAGES.items():
        app.add_api_route(
            path, _page((folder / name).read_bytes(), kind), tags=["open"], include_in_schema=False
        )


def _page(body: bytes, kind: str) -> Callable[[], Awaitable[Response]]:
    async def page() -> Response:
        return Response(body, headers={"content-type": kind, "cache-control": "no-cache"})

    return page


async def _refuse(_: Request, fault: Any) -> Response:
    return answer({"error": str(fault.detail)}, fault.status_code, fault.headers)


async def _refuse_parameters(_: Request, fault: Any) -> Response:
    first: Mapping[str, Any] = fault.errors()[0]
    where = ".".join(str(part) for part in first.get("loc", ()))
    return answer({"error": f"{where}: {first.get('msg')}"}, 400)


def _unable(what: str) -> Callable[[Request, Any], Awaitable[Response]]:
    async def refuse(request: Request, fault: Any) -> Response:
        logs.error("not answered", path=request.url.path, fault=str(fault).partition("\n")[0])
        return answer({"error": f"{what} does not answer at the moment"}, 503, {"retry-after": "2"})

    return refuse


class Gate:
    """Stands before every route: where requests come from, what leaves with answers, counts."""

    def __init__(self, app: Any, site: Site) -> None:
        self._app = app
        self._site = site

    async def __call__(self, scope: Scope, receive: Any, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = {
            name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]
        }

        async def send_guarded(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *_GUARDS]
                self._count(scope, message["status"])
            await send(message)

        fault = fault_of_origin(self._site.settings, scope["method"], headers)
        if fault is not None:
            await answer({"error": fault[1]}, fault[0])(scope, receive, send_guarded)
            return
        await self._app(scope, receive, send_guarded)

    def _count(self, scope: Scope, status: int) -> None:
        # The route's own path: a caller's path would make a metric of every model's name.
        route = getattr(scope.get("route"), "path", None) or "other"
        self._site.metrics.http_requests.labels(route, str(status)).inc()


_GUARDS = [(name.encode(), value.encode()) for name, value in HEADERS]
