"""The page in a real Chromium."""

import asyncio
import html
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import sqlalchemy as sa

from service.clock import WallClock
from service.config import HttpSettings
from service.web.site import Stores
from tests.builders import a_breach
from tests.real import CHROMIUM_FLAGS
from tests.service.web.seeds import (
    OPEN,
    TOKENS,
    a_fleet,
    a_site,
    a_story,
    a_version,
    a_view,
    seed,
    served,
    store_views,
    the_stores,
)

ATTACK = "<img src=x onerror=alert(1)>"


async def dump(
    chromium: str, folder: Path, store: sa.Engine, path: str = "/", settings: HttpSettings = OPEN
) -> tuple[str, str]:
    """The page's document after three seconds of its own time, and what Chromium complained of."""
    async with a_site(folder, store, settings) as site, served(site, the_stores(store)) as url:
        program = await asyncio.create_subprocess_exec(
            chromium, *CHROMIUM_FLAGS, f"--user-data-dir={folder / 'profile'}",
            "--enable-logging=stderr", "--v=0", "--virtual-time-budget=3000", "--dump-dom",
            f"{url}{path}",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        try:
            out, err = await asyncio.wait_for(program.communicate(), 60)
        except TimeoutError:
            program.kill()
            raise
    return out.decode(), err.decode()


def seeded(store: sa.Engine, now: int) -> Stores:
    stores = the_stores(store)
    seed(stores, now)
    return stores


def text_of(document: str) -> str:
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", document)))


async def test_the_page_shows_fleet_incidents_and_holds(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, people see an empty page, or numbers that are not those of the API."""
    seeded(sqlite_store, WallClock().now_ms())

    document, complaints = await dump(chromium, tmp_path, sqlite_store)

    text = text_of(document)
    for words in (
        "4 models, 1 in breach, 1 unknown", "search-ranking last event", "r119 canary breach",
        "latency_ms p95 is 341 [327, 356], 300 allowed; stable has 212", "25% plan 25% 741,220 99%",
        "churn last event", "14 s", "roles inferred from traffic", "fraud-detector", "held",
        "2025-11-19 canary inconclusive", "9.9% plan 10% 91,340 41%",
        "waits for approval search-ranking · v42", "not acted on churn · v42",
        "rolled back credit-risk · v42 → v41", "label backfill runs until noon",
    ):  # fmt: skip
        assert words in text, words
    assert text.index("search-ranking") < text.index("churn") < text.index("credit-risk")
    assert 'id="live" data-state="live"' in document
    assert "Content Security Policy" not in complaints
    assert "Uncaught" not in complaints


async def test_a_name_that_is_markup_is_shown_as_text(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, whoever may send events runs scripts in an operator's browser."""
    now = WallClock().now_ms()
    stores = seeded(sqlite_store, now)
    attacked = a_view(ATTACK, [a_version(ATTACK, "stable", text=ATTACK, verdict="breach")], now)
    store_views(stores, [*a_fleet(now), attacked])
    stores.log.add(a_story(now, ATTACK))
    incident = a_breach(model=ATTACK).incident_id

    document, complaints = await dump(chromium, tmp_path, sqlite_store, f"/#incident={incident}")

    page = Page()
    page.feed(document)
    assert ["/icon.svg"] == page.images, "only our own icon"
    # Model, version and reason in the fleet, model in the list, model in the dialog.
    assert 5 == sum(text.startswith(ATTACK) for text in page.texts)
    assert "Content Security Policy" not in complaints


class Page(HTMLParser):
    """Which pictures and which texts a document has."""

    def __init__(self) -> None:
        super().__init__()
        self.images: list[str | None] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.images.append(dict(attrs).get("src"))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


async def test_the_story_of_an_incident_is_shown(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, the link in a chat message leads to nothing."""
    seeded(sqlite_store, WallClock().now_ms())
    incident = a_breach(model="search-ranking").incident_id

    document, _ = await dump(chromium, tmp_path, sqlite_store, f"/#incident={incident}")

    text = text_of(document[document.index("<dialog") :])
    for words in (
        "search-ranking · v42", "rollbackd approve c-search-ranking", "What the guards saw",
        "error_rate breach 0.081 0.072 to 0.093 0.05 0.039 5.1 of 4.6 4,210",
        "latency_ms p95 pass", "Rollback proposed Rollback from v42 to v41 waits for approval",
    ):  # fmt: skip
        assert words in text, words


@pytest.mark.parametrize("settings", [TOKENS])
async def test_with_tokens_the_page_asks_for_one_and_shows_nothing(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine, settings: HttpSettings
) -> None:
    """If this breaks, the page shows the fleet to whoever finds the address."""
    seeded(sqlite_store, WallClock().now_ms())

    document, _ = await dump(chromium, tmp_path, sqlite_store, settings=settings)

    assert '<form id="sign-in">' in document
    assert "search-ranking" not in document
    assert "Not signed in" in document


async def test_an_empty_service_says_what_to_do(
    chromium: str, tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, the first thing a new user sees is a blank page."""
    document, _ = await dump(chromium, tmp_path, sqlite_store)

    text = text_of(document)
    assert "No events have come yet" in text
    assert 'id="no-incidents">' in document
    assert 'id="no-models">' in document
    assert "0 models, no breach" in text
