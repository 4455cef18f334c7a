"""What pages draw from, over HTTP and in a real Chromium."""

from __future__ import annotations

import contextlib
import html
import re
from collections.abc import AsyncIterator
from pathlib import Path

import httpx2
import pytest
import sqlalchemy as sa

from schemas.verdicts import GuardVerdict, Verdict
from service.clock import WallClock
from service.storage.history import VerdictHistory
from service.storage.incident_log import IncidentLog
from service.web.curves import MOST_POINTS
from tests.builders import NOW, an_entry
from tests.service.web.seeds import OPEN, a_site, served, the_stores
from tests.service.web.test_page import ATTACK, dump


def said(at: int, n: int, version: str = "v2", model: str = "m") -> Verdict:
    """A verdict with one guard."""
    guard = GuardVerdict("error_rate max=0.05", "error_rate", "inconclusive", estimate=n / 1000,
                         lower=0.0, upper=0.2, evidence=n / 100, threshold=5.0, n=n,
                         limit=0.05)  # fmt: skip
    return Verdict(
        model=model, version=version, rollout_id="r", verdict="inconclusive", reason="too_few",
        text="t", guards=[guard], roles="declared", decided_at=at, position={},
        role="canary" if version == "v2" else "stable", predictions=n, share=0.5, coverage=None,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def a_client(folder: Path, store: sa.Engine) -> AsyncIterator[httpx2.AsyncClient]:
    """Someone who asks a real server."""
    async with (
        a_site(folder, store, OPEN) as site,
        served(site, the_stores(store)) as url,
        httpx2.AsyncClient(base_url=url) as client,
    ):
        yield client


async def test_history_comes_as_columns_with_the_incidents_moments(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, the model's page draws nothing, or half a story."""
    stores = the_stores(sqlite_store)
    stores.history.add([said(NOW + n, n, "v1" if n % 2 else "v2", "a/b") for n in range(4)])
    stores.log.add([an_entry(kind="opened", model="a/b", at=NOW + 2)])
    async with a_client(tmp_path, sqlite_store) as client:
        told = (await client.get(f"/v1/history/a%2Fb?to={NOW + 3}")).json()
        none = (await client.get(f"/v1/history/other?to={NOW}")).json()
        bad = await client.get("/v1/history/a?hours=0")

    v2, v1 = told["versions"]
    assert ([NOW, NOW + 2], [NOW + 1, NOW + 3]) == (v2["at"], v1["at"])
    (guard,) = v2["guards"]
    assert [0.0, 0.002] == guard["estimate"]
    assert [None, None] == guard["stable_estimate"]
    assert [("opened", NOW + 2)] == [(mark["kind"], mark["at"]) for mark in told["marks"]]
    assert ([], 400) == (none["versions"], bad.status_code)


async def test_long_histories_are_thinned_to_the_newest(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a week of a busy model makes the page slow, or ends it in the past."""
    stores = the_stores(sqlite_store)
    stores.history.add([said(NOW + n, n) for n in range(2 * MOST_POINTS + 1)])
    async with a_client(tmp_path, sqlite_store) as client:
        told = (await client.get(f"/v1/history/m?to={NOW + 5000}")).json()

    (version,) = told["versions"]
    assert MOST_POINTS >= len(version["at"]) > MOST_POINTS / 2
    assert NOW + 2 * MOST_POINTS == version["at"][-1]


@pytest.mark.parametrize("form", ["html", "md", "json"])
async def test_the_post_mortem_is_a_file(
    tmp_path: Path, sqlite_store: sa.Engine, form: str
) -> None:
    """If this breaks, the report can only be had on the server's own shell."""
    IncidentLog(sqlite_store).add([an_entry(kind="opened", text="errors rose")])
    async with a_client(tmp_path, sqlite_store) as client:
        path = f"/v1/incidents/{an_entry().incident_id}/report"
        reply = await client.get(path, params={"form": form})
        missing = await client.get("/v1/incidents/none/report")

    assert (200, 404) == (reply.status_code, missing.status_code)
    assert "attachment" in reply.headers["content-disposition"]
    assert "errors rose" in reply.text


async def test_a_models_page_draws_its_curves_and_runs_nothing(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, nobody sees how canary and stable went apart, or a name runs a script."""
    now = WallClock().now_ms()
    history = VerdictHistory(sqlite_store)
    history.add([said(now - 60_000 + 1000 * n, n, version, ATTACK)
                 for n in range(30) for version in ("v1", "v2")])  # fmt: skip

    document, complaints = await dump(
        chromium, tmp_path, sqlite_store, "/#model=" + ATTACK.replace(" ", "%20")
    )

    text = html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document)))
    assert "error_rate max=0.05 of v2" in text
    assert "Evidence of error_rate" in text
    assert 4 <= document.count("<canvas") + 1
    assert "<img src=x" not in document
    assert "Refused to" not in complaints
    assert "Uncaught" not in complaints
