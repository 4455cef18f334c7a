"""`POST /v1/events` over a real socket onto a real log."""

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import msgspec
import pytest
import sqlalchemy as sa

from schemas.facts import DeadLetter
from service.clock import SetClock
from service.config import HttpSettings
from service.engine.base import Message
from service.web.site import Site
from tests.builders import NOW
from tests.real import wait_until_async
from tests.service.web.seeds import OPEN, TOKENS, a_site, bearer, served, the_stores

PREDICTION = {
    "type": "prediction", "prediction_id": "p1", "model": "m", "version": "v1", "served_at": NOW,
}  # fmt: skip
OUTCOME = {"type": "outcome", "prediction_id": "p1", "observed_at": NOW, "label": 1}
ROLLOUT = {
    "type": "rollout", "model": "m", "stable": "v1", "canary": "v2", "weight": 0.1, "at": NOW,
}  # fmt: skip


@asynccontextmanager
async def intake(
    folder: Path, store: sa.Engine, settings: HttpSettings = OPEN
) -> AsyncIterator[tuple[Site, httpx2.AsyncClient]]:
    async with (
        a_site(folder, store, settings, SetClock(NOW)) as site,
        served(site, the_stores(store)) as url,
        httpx2.AsyncClient(base_url=url, trust_env=False) as client,
    ):
        yield site, client


def lines(*events: object) -> bytes:
    return b"\n".join(e if isinstance(e, bytes) else json.dumps(e).encode() for e in events)


async def on_topic(site: Site, topic: str) -> list[tuple[bytes, Any]]:
    return [(record.key, json.loads(record.value)) for record in await site.engine.read(topic)]


async def test_events_go_to_their_topics_under_their_keys(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, an outcome lies in another partition than its prediction."""
    async with intake(tmp_path, sqlite_store) as (site, client):
        reply = await client.post("/v1/events", content=lines(PREDICTION, OUTCOME, ROLLOUT))

        assert (202, {"accepted": 3, "refused": 0, "errors": []}) == (
            reply.status_code, reply.json()
        )  # fmt: skip
        assert [(b"p1", PREDICTION)] == await on_topic(site, "predictions")
        assert [(b"p1", OUTCOME)] == await on_topic(site, "outcomes")
        assert [(b"m", ROLLOUT)] == await on_topic(site, "rollouts")


async def test_an_array_and_an_envelope_are_the_same_events(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, senders of CloudEvents or of arrays are refused, or arrive in an envelope."""
    bare = {name: value for name, value in PREDICTION.items() if name != "type"}
    envelope = {
        "specversion": "1.0", "id": "1", "source": "s", "type": "com.example.prediction",
        "data": bare,
    }  # fmt: skip
    async with intake(tmp_path, sqlite_store) as (site, client):
        reply = await client.post(
            "/v1/events", content=b" \n[" + lines(envelope) + b",\n" + lines(OUTCOME) + b"]"
        )

        assert {"accepted": 2, "refused": 0, "errors": []} == reply.json()
        assert [(b"p1", bare)] == await on_topic(site, "predictions")


async def test_only_what_was_checked_is_appended(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, a bare event smuggles another one in its `data` past the check."""
    inner = {**PREDICTION, "model": "other"}
    both = {**PREDICTION, "specversion": "1.0", "data": inner}
    async with intake(tmp_path, sqlite_store) as (site, client):
        await client.post("/v1/events", content=lines(both))

        assert [(b"p1", both)] == await on_topic(site, "predictions")


async def test_each_refused_line_is_named_and_kept(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, a producer cannot find which of a thousand lines was wrong, and why."""
    big = lines({**PREDICTION, "unit": "x" * 70_000})
    future = {**PREDICTION, "served_at": NOW + 301_000}
    body = lines(
        b"", PREDICTION, b"not json", b"\r", {"type": "guess"}, big, future, OUTCOME, b"\xff{}"
    )
    async with intake(tmp_path, sqlite_store) as (site, client):
        reply = await client.post("/v1/events", content=body)

        said = reply.json()
        assert (202, 2, 5) == (reply.status_code, said["accepted"], said["refused"])
        assert [3, 5, 6, 7, 9] == [error["line"] for error in said["errors"]]
        for words, error in zip(
            ["not JSON", "expected prediction", "at most 65536", "ahead", ""], said["errors"],
            strict=True,
        ):  # fmt: skip
            assert words in error["reason"]
        letters = [
            msgspec.json.decode(record.value, type=DeadLetter)
            for record in await site.engine.read("dead-letters")
        ]

    assert [(3, b"not json"), (5, b'{"type": "guess"}')] == [
        (letter.offset, letter.value) for letter in letters[:2]
    ]
    assert (len(big), 65_536) == (letters[2].size, len(letters[2].value))
    assert {"http"} == {letter.topic for letter in letters}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "no event"), (b"\n\n \n", "no event"), (b"[]", "no event"),
        (b"[{]", "not a JSON array"), (b"nonsense", "not JSON"), (b'{"type":"prediction"}', ""),
    ],
)  # fmt: skip
async def test_a_body_of_which_nothing_is_accepted_is_400(
    tmp_path: Path, sqlite_store: sa.Engine, body: bytes, words: str
) -> None:
    """If this breaks, a sender of nonsense believes that all is well."""
    async with intake(tmp_path, sqlite_store) as (_, client):
        reply = await client.post("/v1/events", content=body)

    assert (400, 0) == (reply.status_code, reply.json()["accepted"])
    assert words in reply.json()["errors"][0]["reason"]
    assert 1 == reply.json()["errors"][0]["line"]


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_over_8_mib_is_413(
    tmp_path: Path, sqlite_store: sa.Engine, declared: bool
) -> None:
    """If this breaks, one sender can take all memory, or a body of exactly 8 MiB is refused."""
    limit = 8 * 1024 * 1024
    whole = lines(PREDICTION) + b"\n"

    async def parts(size: int) -> AsyncIterator[bytes]:
        yield whole
        for _ in range((size - len(whole)) // 65_536):
            yield b"\n" * 65_536
        yield b"\n" * ((size - len(whole)) % 65_536)

    async with intake(tmp_path, sqlite_store) as (site, client):
        for size, status in ((limit, 202), (limit + 1, 413)):
            content: Any = whole.ljust(size, b"\n") if declared else parts(size)
            reply = await client.post("/v1/events", content=content, timeout=30)
            assert (size, status) == (size, reply.status_code)
        assert 1 == len(await site.engine.read("predictions"))
    assert "8388608" in reply.json()["error"]


async def test_millions_of_wrong_lines_give_a_short_answer(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, one small body makes an answer of hundreds of megabytes."""
    async with intake(tmp_path, sqlite_store) as (_, client):
        reply = await client.post("/v1/events", content=b"x\n" * 20_000, timeout=30)

    assert (20_000, 1000) == (reply.json()["refused"], len(reply.json()["errors"]))


class SlowEngine:
    """A real engine whose appends wait for a gate; for pressure, which has no other handle."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine
        self.gate = asyncio.Event()
        self.fault: Exception | None = None

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        await self._engine.append(topic, messages)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)


async def test_above_the_queue_the_answer_is_429_and_durable_ones_make_room(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a slow disk takes all memory, or a full queue never empties."""
    settings = HttpSettings(listen="127.0.0.1:0", queue=2)
    async with a_site(tmp_path, sqlite_store, settings, SetClock(NOW)) as real:
        slow = SlowEngine(real.engine)
        site = Site(slow, real.clock, real.metrics, settings)  # type: ignore[arg-type]
        async with (
            served(site, the_stores(sqlite_store)) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            first = asyncio.create_task(
                client.post("/v1/events", content=lines(PREDICTION, OUTCOME), timeout=30)
            )

            async def full() -> bool:
                reply = await client.post("/v1/events", content=b"")
                return reply.status_code == 429 and reply.headers["retry-after"] == "1"

            await wait_until_async(full, 10)
            assert not first.done(), "acknowledged means durable"
            slow.gate.set()
            assert 202 == (await first).status_code
            assert 202 == (await client.post("/v1/events", content=lines(OUTCOME))).status_code


async def test_events_that_cannot_be_stored_are_not_acknowledged(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, events are lost with a 202 in the sender's hand."""
    async with a_site(tmp_path, sqlite_store, OPEN, SetClock(NOW)) as real:
        slow = SlowEngine(real.engine)
        slow.gate.set()
        slow.fault = OSError("No space left on device")
        site = Site(slow, real.clock, real.metrics, OPEN)  # type: ignore[arg-type]
        async with (
            served(site, the_stores(sqlite_store)) as url,
            httpx2.AsyncClient(base_url=url, trust_env=False) as client,
        ):
            reply = await client.post("/v1/events", content=lines(PREDICTION))
            slow.fault = None
            again = await client.post("/v1/events", content=lines(PREDICTION))

    assert (503, "2", 202) == (reply.status_code, reply.headers["retry-after"], again.status_code)
    assert "send them all again" in reply.json()["error"]


async def test_a_packed_body_is_refused(tmp_path: Path, sqlite_store: sa.Engine) -> None:
    """If this breaks, a small packed body unpacks into all memory."""
    async with intake(tmp_path, sqlite_store) as (_, client):
        reply = await client.post(
            "/v1/events", content=b"\x1f\x8b", headers={"content-encoding": "gzip"}
        )

    assert 415 == reply.status_code


@pytest.mark.parametrize(
    ("role", "status"), [("producer", 202), ("operator", 202), ("admin", 202), ("viewer", 403)]
)
async def test_who_may_send(
    tmp_path: Path, sqlite_store: sa.Engine, role: str, status: int
) -> None:
    """If this breaks, whoever may read can cause a rollback."""
    async with intake(tmp_path, sqlite_store, TOKENS) as (_, client):
        reply = await client.post("/v1/events", content=lines(PREDICTION), headers=bearer(role))

    assert status == reply.status_code
