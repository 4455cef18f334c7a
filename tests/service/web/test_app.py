"""The API over a real socket: what is read, who may do what, and what leaves with every answer."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import sqlalchemy as sa

from schemas.commands import Hold, Order
from service.clock import SetClock
from service.config import HttpSettings
from service.web.app import PAGES, create_app
from service.web.auth import right_of
from service.web.site import Site, Stores
from service.web.worker import ListenFault, WebWorker
from tests.builders import NOW
from tests.service.running import a_local_engine
from tests.service.web.seeds import (
    OPEN,
    TOKENS,
    a_site,
    a_story,
    a_version,
    a_view,
    bearer,
    seed,
    served,
    store_views,
    the_stores,
)

OPEN_ROUTES = {"/healthz", "/readyz", "/metrics", "/openapi.json", *PAGES}


@asynccontextmanager
async def api(
    folder: Path, database: sa.Engine, settings: HttpSettings = OPEN
) -> AsyncIterator[tuple[Site, Stores, httpx2.AsyncClient]]:
    async with a_site(folder, database, settings, SetClock(NOW)) as site:
        stores = the_stores(database)
        seed(stores, NOW)
        async with (
            served(site, stores) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            yield site, stores, client


async def test_models_are_shown_as_they_were_stored_and_how_long_ago(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, `GET /v1/models/{model}` differs from `status --json`."""
    async with api(tmp_path, sqlite_store) as (_, stores, client):
        store_views(stores, [a_view("a/b c", [a_version("v1", "stable")], NOW)])
        fleet = (await client.get("/v1/models")).json()["models"]
        one = (await client.get("/v1/models/a/b%20c")).json()
        missing = await client.get("/v1/models/nope")

    assert {"credit-risk", "fraud-detector", "search-ranking", "churn", "a/b c"} == {
        model["model"] for model in fleet
    }
    assert ("v1", 0.4) == (one["stable"], one["age_s"])
    assert a_view("a/b c", [a_version("v1", "stable")], NOW) == {
        name: value for name, value in one.items() if name != "age_s"
    }
    assert (404, 'no events of model "nope" were seen yet') == (
        missing.status_code, missing.json()["error"]
    )  # fmt: skip


async def test_the_verdict_is_the_canarys_if_there_is_one(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, Argo promotes a canary on the stable's verdict."""
    async with api(tmp_path, sqlite_store) as (_, stores, client):
        stores_view = a_view("new", [a_version("v1", "stable", verdict="pass")], NOW)
        store_views(stores, [{**stores_view, "verdicts": {}}])
        found = {
            path: (await client.get(f"/v1/verdicts/{path}"))
            for path in (
                "search-ranking", "search-ranking?version=r118", "churn", "nope", "new",
                "churn?version=v1",
            )
        }  # fmt: skip

    said = {path: reply.json() for path, reply in found.items()}
    assert ("r119", "breach", 0.4) == (
        said["search-ranking"]["version"], said["search-ranking"]["verdict"],
        said["search-ranking"]["age_s"],
    )  # fmt: skip
    assert "r118" == said["search-ranking?version=r118"]["version"]
    assert ("v9", "unknown") == (said["churn"]["version"], said["churn"]["verdict"])
    assert [404, 404, 404] == [
        found[path].status_code for path in ("nope", "new", "churn?version=v1")
    ]


async def test_incidents_are_listed_and_shown(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, nobody can read what happened."""
    async with api(tmp_path, sqlite_store) as (_, _stores, client):
        listed = (await client.get("/v1/incidents")).json()["incidents"]
        only = (await client.get("/v1/incidents?model=churn&limit=1")).json()["incidents"]
        whole = (await client.get(f"/v1/incidents/{listed[2]['incident_id'][:10]}")).json()
        missing = await client.get("/v1/incidents/zz")
        wrong = await client.get("/v1/incidents?limit=0")

    assert ["proposed", "withheld", "verified"] == [incident["state"] for incident in listed]
    assert [[]] == [incident["entries"] for incident in only]
    assert ["opened", "command", "receipt", "verified"] == [e["kind"] for e in whole["entries"]]
    assert 4210 == whole["entries"][0]["data"]["evidence"]["n"]
    assert (404, 400) == (missing.status_code, wrong.status_code)
    assert "limit" in wrong.json()["error"]


async def test_a_hold_is_in_force_at_once_and_told(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, the kill switch over HTTP does nothing until a broker answers."""
    async with api(tmp_path, sqlite_store) as (site, stores, client):
        body = {"model": "*", "reason": "all stop", "for": "2h"}
        made = await client.post("/v1/holds", json=body)
        assert stores.holds.blocking("anything", NOW) is not None
        listed = (await client.get("/v1/holds")).json()["holds"]
        gone = await client.delete("/v1/holds/*")
        assert stores.holds.blocking("anything", NOW) is None
        again = await client.delete("/v1/holds/*")
        told = [
            msgspec.json.decode(record.value, type=Hold)
            for record in await site.engine.read("holds")
        ]

    assert (201, 200, 404) == (made.status_code, gone.status_code, again.status_code)
    assert ["*", "fraud-detector"] == [hold["model"] for hold in listed]
    assert (NOW + 7_200_000, "local") == (listed[0]["until"], listed[0]["actor"])
    assert [(True, NOW), (False, NOW + 1)] == [(hold.active, hold.at) for hold in told]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"model": "m"}, "reason"), ({"reason": "r"}, "model"),
        ({"model": "m", "reason": "r", "for": "long"}, "for: expected a duration"),
        ({"model": "m", "reason": "r", "for": "1h", "until": NOW + 1}, "not both"),
        ({"model": "m", "reason": "r", "until": NOW - 1}, "in the past"),
        ({"model": "m", "reason": "r", "untill": NOW + 1}, "untill"),
        ({"model": "", "reason": "r"}, "model"),
    ],
)  # fmt: skip
async def test_a_wrong_hold_is_refused_with_its_fault(
    tmp_path: Path, sqlite_store: sa.Engine, body: dict[str, Any], words: str
) -> None:
    """If this breaks, a typing mistake makes a hold that ends never, or is on nothing."""
    async with api(tmp_path, sqlite_store) as (_, stores, client):
        reply = await client.post("/v1/holds", json=body)

    assert 400 == reply.status_code
    assert words in reply.json()["error"]
    assert ["fraud-detector"] == [hold.model for hold in stores.holds.all(NOW)]


async def test_a_kill_switch_is_tried_both_ways(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, a broken database keeps a hold from being told, and nobody hears of it."""
    async with api(tmp_path, sqlite_store) as (site, _stores, client):
        with sqlite_store.begin() as connection:
            connection.execute(sa.text("ALTER TABLE holds RENAME TO away"))
        reply = await client.post("/v1/holds", json={"model": "*", "reason": "all stop"})
        told = await site.engine.read("holds")

    assert (503, 1) == (reply.status_code, len(told))
    assert "storage did not take it" in reply.json()["error"]


async def test_an_approval_is_an_order_bound_to_its_proposal(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, an approval is lost, given twice, or given for something else."""
    async with api(tmp_path, sqlite_store, TOKENS) as (site, _stores, client):
        path = "/v1/commands/c-search-ranking/approve"
        made = await client.post(path, json={"reason": "seen"}, headers=bearer("operator"))
        twice = await client.post(path, headers=bearer("operator"))
        unknown = await client.post("/v1/commands/c-none/reject", headers=bearer("operator"))
        orders = [
            msgspec.json.decode(record.value, type=Order)
            for record in await site.engine.read("orders")
        ]

    assert (202, 202, 404) == (made.status_code, twice.status_code, unknown.status_code)
    assert {("approve", "search-ranking", "c-search-ranking", "otto")} == {
        (order.kind, order.model, order.command_id, order.actor) for order in orders
    }
    assert "seen" == orders[0].reason
    assert 1 == len({order.order_id for order in orders}), "a double click is one order"


async def test_what_was_answered_or_expired_cannot_be_approved(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a forwarded link from yesterday moves traffic."""
    async with api(tmp_path, sqlite_store) as (site, stores, client):
        path = "/v1/commands/c-search-ranking/approve"
        opened, proposed = a_story(NOW + 2_000_000, "search-ranking", "proposed")
        answered = msgspec.structs.replace(
            proposed, entry_id="x", kind="rejected", data={"command_id": "c-search-ranking"}
        )
        stores.log.add([answered])
        rejected = await client.post(path)
        other, asked = a_story(NOW - 4_000_000, "late", "proposed")
        stores.log.add([other, asked])
        expired = await client.post("/v1/commands/c-late/approve")
        orders = await site.engine.read("orders")

    assert (409, 409, 0) == (rejected.status_code, expired.status_code, len(orders))
    assert "it was rejected at" in rejected.json()["error"]
    assert "it expired at" in expired.json()["error"]
    assert opened.incident_id == proposed.incident_id


MATRIX = {
    "GET": {"viewer", "operator", "admin"},
    "POST": {"operator", "admin"},
    "DELETE": {"operator", "admin"},
    "events": {"producer", "operator", "admin"},
    "flagger": {"viewer", "operator", "admin"},
}


async def test_every_route_asks_for_its_role(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, someone reads or moves traffic without the right to."""
    async with api(tmp_path, sqlite_store, TOKENS) as (_, _stores, client):
        document = (await client.get("/openapi.json")).json()
        tried = 0
        for path, methods in document["paths"].items():
            if path in OPEN_ROUTES or path == "/v1/stream":
                continue
            for method in methods:
                url = path.replace("{model}", "churn").replace("{incident_id}", "x")
                url = url.replace("{command_id}", "x")
                own = {"/v1/events": "events"}.get(path, path.split("/")[1])
                may = MATRIX.get(own) or MATRIX[method.upper()]
                for role in ("viewer", "operator", "admin", "producer"):
                    reply = await client.request(method, url, headers=bearer(role))
                    refused = reply.status_code in (401, 403)
                    assert (role in may) == (not refused), (path, method, role)
                    tried += 1
                for headers in ({}, {"authorization": "Bearer wrong"}, {"authorization": "x"}):
                    reply = await client.request(method, url, headers=headers)
                    assert 401 == reply.status_code, (path, method, headers)

    assert tried >= 4 * 10


def test_no_route_is_open_by_being_forgotten(sqlite_store: sa.Engine, tmp_path: Path) -> None:
    """If this breaks, a new route is reachable without a token and nobody noticed."""
    from service.clock import WallClock
    from service.telemetry import Metrics

    engine = a_local_engine(tmp_path / "log", sqlite_store)
    app = create_app(Site(engine, WallClock(), Metrics(), TOKENS), the_stores(sqlite_store))
    rights = {}
    for route in _routes(app.routes):
        dependencies = getattr(route, "dependant", None)
        calls = [d.call for d in dependencies.dependencies] if dependencies else []
        rights[route.path] = {right_of(call) for call in calls} - {None}

    assert OPEN_ROUTES == {path for path, right in rights.items() if not right}
    assert {"send"} == rights["/v1/events"]
    assert len(rights) > 12


def _routes(routes: Any) -> Any:
    for route in routes:
        if hasattr(route, "path") and hasattr(route, "methods"):
            yield route
        else:
            yield from _routes(getattr(route, "routes", None) or _inside(route))


def _inside(route: Any) -> Any:
    included = getattr(route, "original_router", None) or getattr(route, "router", None)
    return included.routes if included is not None else ()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1", 200), ("localhost:8420", 200), ("[::1]:8420", 200),
        ("evil.example", 421), ("127.0.0.1.evil.example", 421), ("", 421),
        ("rollbackd.example", 200),
    ],
)  # fmt: skip
async def test_loopback_under_another_name_is_refused(
    tmp_path: Path, sqlite_store: sa.Engine, host: str, status: int
) -> None:
    """If this breaks, a web page reads and moves traffic through the operator's browser."""
    settings = HttpSettings(listen="127.0.0.1:0", public_url="https://rollbackd.example")
    async with api(tmp_path, sqlite_store, settings) as (_, _stores, client):
        reply = await client.get("/v1/models", headers={"host": host})

    assert status == reply.status_code


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"sec-fetch-site": "cross-site"}, 403),
        ({"sec-fetch-site": "same-site"}, 403),
        ({"sec-fetch-site": "same-origin"}, 201),
        ({"sec-fetch-site": "none"}, 201),
        ({"origin": "https://evil.example"}, 403),
        ({"origin": "null"}, 403),
        ({"origin": "http://127.0.0.1:1"}, 403),
        ({}, 201),
    ],
)
async def test_a_page_of_another_site_changes_nothing(
    tmp_path: Path, sqlite_store: sa.Engine, headers: dict[str, str], status: int
) -> None:
    """If this breaks, a page that an operator visits releases the kill switch."""
    async with api(tmp_path, sqlite_store) as (_, _stores, client):
        reply = await client.post("/v1/holds", json={"model": "m", "reason": "r"}, headers=headers)

    assert status == reply.status_code


async def test_every_answer_forbids_what_the_page_does_not_need(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a name that becomes markup after all can load or run something."""
    async with api(tmp_path, sqlite_store) as (site, _stores, client):
        replies = [
            await client.get(path)
            for path in ("/", "/app.js", "/v1/models", "/nope", "/metrics", "/openapi.json")
        ]
        metrics = replies[4].text
        foreign = await client.get("/v1/models", headers={"host": "evil.example"})

    for reply in [*replies, foreign]:
        assert reply.headers["content-security-policy"].startswith("default-src 'self';")
        assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
        assert "nosniff" == reply.headers["x-content-type-options"]
        assert "no-referrer" == reply.headers["referrer-policy"]
        assert "server" not in reply.headers
    assert [200, 200, 200, 404, 200, 200] == [reply.status_code for reply in replies]
    assert replies[0].headers["content-type"].startswith("text/html")
    for name in ("index.html", "app.js", "style.css"):
        text = (Path(__file__).parents[3] / "service/web/pages" / name).read_text()
        assert "http://" not in text.replace("http://www.w3.org", "")
        assert "https://" not in text
        assert "innerHTML" not in text
    assert 'route="/v1/models",status="200"' in metrics
    assert site.metrics.http_requests.labels("other", "404")._value.get() == 1


async def test_health_and_metrics_are_everywhere_and_the_api_is_not(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a worker without pages cannot be probed, or serves an API by accident."""
    health = {"ready": False, "lag_s": 0.0, "detail": {"watch": {"owned": False}}}
    async with a_site(tmp_path, sqlite_store, TOKENS) as made:
        site = Site(made.engine, made.clock, made.metrics, TOKENS, lambda: health)
        async with (
            served(site, None) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            seen = {
                path: (await client.get(path)).status_code
                for path in ("/healthz", "/metrics", "/", "/v1/models", "/openapi.json")
            }
            unready = await client.get("/readyz")
            health.update(ready=True, lag_s=9.9)
            ready = await client.get("/readyz")
            health.update(lag_s=10.0)
            late = await client.get("/readyz")

    assert {
        "/healthz": 200, "/metrics": 200, "/": 404, "/v1/models": 404, "/openapi.json": 404
    } == seen  # fmt: skip
    assert (503, 200, 503) == (unready.status_code, ready.status_code, late.status_code)
    assert {"watch": {"owned": False}} == unready.json()["detail"]


async def test_storage_that_does_not_answer_is_said(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a broken database looks like an empty fleet."""
    async with api(tmp_path, sqlite_store) as (_, _stores, client):
        with sqlite_store.begin() as connection:
            connection.execute(sa.text("ALTER TABLE checkpoints RENAME TO away"))
        reply = await client.get("/v1/models")

    assert (503, "storage does not answer at the moment") == (
        reply.status_code, reply.json()["error"]
    )  # fmt: skip


class Stream:
    """Server-sent events as they come."""

    def __init__(self, lines: AsyncIterator[str]) -> None:
        self._lines = lines

    async def next(self, kind: str) -> Any:
        """The next event of a kind."""
        async with asyncio.timeout(10):
            async for line in self._lines:
                if line == f"event: {kind}":
                    data = await anext(self._lines)
                    return json.loads(data.removeprefix("data: "))
        raise AssertionError("the stream ended")


async def test_the_stream_tells_everything_and_then_what_changes(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, an open page shows yesterday."""
    async with (
        api(tmp_path, sqlite_store) as (_, stores, client),
        client.stream("GET", "/v1/stream") as reply,
    ):
        stream = Stream(reply.aiter_lines())
        assert "text/event-stream; charset=utf-8" == reply.headers["content-type"]
        assert "churn" == (await stream.next("model"))["model"]
        await stream.next("ready")
        stores.log.add(a_story(NOW, "brand-new"))
        told = await stream.next("incident")
        stores.holds.set(Hold(model="*", active=True, reason="stop", actor="a", at=NOW))
        holds = await stream.next("holds")
        store_views(stores, [a_view("churn", [a_version("v10", "stable")], NOW)])
        while (model := await stream.next("model"))["stable"] != "v10":
            pass

    assert ("brand-new", "verified", []) == (told["model"], told["state"], told["entries"])
    assert ["*", "fraud-detector"] == [hold["model"] for hold in holds]
    assert "churn" == model["model"]


async def test_a_stop_ends_open_streams(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, an open page keeps the daemon from stopping (see `served`)."""
    listening = asyncio.Event()

    async def listen(client: httpx2.AsyncClient, url: str) -> int:
        count = 0
        async with client.stream("GET", f"{url}/v1/stream") as reply:
            async for _ in reply.aiter_lines():
                count += 1
                listening.set()
        return count

    async with (
        a_site(tmp_path, sqlite_store) as site,
        httpx2.AsyncClient(trust_env=False, timeout=20) as client,
    ):
        async with served(site, the_stores(sqlite_store)) as url:
            listener = asyncio.create_task(listen(client, url))
            await listening.wait()
        assert 0 < await asyncio.wait_for(listener, 5)


def test_an_address_for_others_needs_tokens(sqlite_store: sa.Engine, tmp_path: Path) -> None:
    """If this breaks, `--listen 0.0.0.0` opens the API to everyone."""
    for listen, settings, words in (
        ("0.0.0.0:0", OPEN, "set http.tokens"),
        ("nowhere", OPEN, "must be ADDRESS:PORT"),
        ("127.0.0.1:99999", OPEN, "cannot be opened"),
        ("203.0.113.7:80", TOKENS, "cannot be opened"),
    ):
        with pytest.raises(ListenFault) as caught:
            WebWorker(None, settings, listen).bind()  # type: ignore[arg-type]
        assert words in str(caught.value)
