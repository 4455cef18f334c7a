"""Polling a real Prometheus: values pass, everything else is dropped with its reason."""

from __future__ import annotations

import asyncio
import signal
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from schemas.durations import Duration
from schemas.observations import Observations, unpack
from schemas.policies import GuardSpec, Policy
from schemas.secrets import Secret
from service.clock import Clock, SetClock, WallClock
from service.config import PrometheusSettings
from service.engine.local import LocalEngine
from service.ingest.prometheus import STAGE, PrometheusPoller
from service.telemetry import Metrics
from tests.real import Process, run_prometheus_process, wait_until, wait_until_async
from tests.receiver import Answer, receiving
from tests.service.running import a_local_engine, serving
from tests.service.watch.traffic import START_MS, Traffic, a_book, a_policy, a_rollout

SCRAPES_ITSELF = """
global: {scrape_interval: 1s, scrape_timeout: 1s}
scrape_configs: [{job_name: self, static_configs: [{targets: ["localhost:PORT"]}]}]
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Process]]:
    """A real Prometheus that has scraped itself."""
    home = tmp_path_factory.mktemp("prometheus")
    with run_prometheus_process(SCRAPES_ITSELF, home) as (url, process):
        wait_until(lambda: _has_scraped(url), 15, what="a first scrape")
        yield url, process


def _has_scraped(url: str) -> bool:
    with urllib.request.urlopen(f"{url}/api/v1/query?query=up", timeout=5) as reply:
        return b'"value"' in reply.read()


@pytest.fixture
async def engine(tmp_path: Path, sqlite_store: sa.Engine) -> AsyncIterator[LocalEngine]:
    made = a_local_engine(tmp_path / "log", sqlite_store)
    await made.start()
    yield made
    await made.stop()


def a_guard(query: str = "sum(up)", **changes: Any) -> GuardSpec:
    """The query must not go above a half."""
    given: dict[str, Any] = {"signal": "prometheus", "query": query, "max": 0.5}
    return GuardSpec(**(given | changes))


class Poller:
    """A poller of one policy, its counts, and what it appended."""

    def __init__(
        self, engine: LocalEngine, url: str, *guards: GuardSpec, clock: Clock | None = None,
        **settings: Any,
    ) -> None:  # fmt: skip
        self.engine, self.metrics = engine, Metrics()
        policies = [a_policy(guards=list(guards or [a_guard()]))]
        self.poller = PrometheusPoller(
            engine, clock or WallClock(), self.metrics, PrometheusSettings(url=url, **settings),
            policies,
        )  # fmt: skip

    async def poll(self) -> list[Observations]:
        """Poll once; give everything that was ever appended."""
        await self.poller.poll()
        return [unpack(record.value) for record in await self.engine.read("observations")]

    def rejected(self, reason: str) -> float:
        labels = {"stage": STAGE, "reason": reason}
        return self.metrics.registry.get_sample_value("rollbackd_rejected_total", labels) or 0.0


@pytest.mark.prometheus
async def test_a_value_reaches_the_guard_of_its_model(
    engine: LocalEngine, server: tuple[str, Process]
) -> None:
    """If this breaks, a guard on a query says unknown for ever."""
    guards = [a_guard("sum(up)"), a_guard("scalar(up) / 4", name="low")]
    poller = Poller(engine, server[0], *guards)
    book = a_book(a_policy(guards=guards))
    book.roll_out(a_rollout(), START_MS)

    observed = await poller.poll()
    (record, _) = await engine.read("observations")
    for second, message in enumerate([*observed, Traffic().second({})]):
        book.observe(message, START_MS + second * 1000)

    assert (b"credit-risk", "credit-risk", -1, 0) == (
        record.key, observed[0].model, observed[0].partition, observed[0].watermark_ms,
    )  # fmt: skip
    values = {name: value for name, (value, _) in book.models["credit-risk"].metrics.items()}
    assert {"prometheus max=0.5": 1.0, "low": 0.25} == values
    verdict = book.models["credit-risk"].versions["v42"].verdict
    assert verdict is not None
    assert {"prometheus max=0.5": "breach", "low": "pass"} == {
        guard.name: guard.verdict for guard in verdict.guards
    }


@pytest.mark.prometheus
@pytest.mark.parametrize(
    ("query", "reason", "words"),
    [
        ("nosuch", "no_data", "no series"),
        ("sum(nosuch) or vector(0)", "no_data", "age of the samples: the query gives no series"),
        ("(up - up) / 0", "nan", "NaN"), ("up / 0", "inf", "+Inf"), ("-up / 0", "inf", "-Inf"),
        ("prometheus_http_requests_total", "ambiguous", "series, not one"),
        ("up[5m]", "query_error", "a matrix"), ('"up"', "query_error", "a string"),
        ("sum(up", "query_error", "parse error"), ("nosuch(up)", "query_error", "parse error"),
        ("label_replace(up, '0', '', '', '')", "query_error", "invalid destination label"),
        ("1 + 1", "stale", "nothing in the query has an age"),
        ("vector(1)", "stale", "nothing in the query has an age"),
    ],
)  # fmt: skip
async def test_what_is_no_single_value_is_dropped_logged_and_counted(
    engine: LocalEngine, server: tuple[str, Process], query: str, reason: str, words: str
) -> None:
    """If this breaks, a wrong query acquits an ill version, and nobody is told."""
    poller = Poller(engine, server[0], a_guard(query))
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(0))

    with structlog.testing.capture_logs() as logs:
        assert [] == await poller.poll()

    (line,) = logs
    assert ("prometheus_unusable", "credit-risk", "prometheus max=0.5", reason) == (
        line["event"], line["model"], line["guard"], line["reason"],
    )  # fmt: skip
    assert words in line["text"]
    assert 1 == poller.rejected(reason)


@pytest.mark.prometheus
async def test_samples_older_than_allowed_are_stale(
    engine: LocalEngine, server: tuple[str, Process]
) -> None:
    """If this breaks, a stopped exporter is healthy as long as a range of its query lasts."""
    guard = a_guard("count_over_time(up[1h]) * 0 + 1", every=Duration(0))
    poller = Poller(engine, server[0], guard, max_age=Duration(0.005))

    async def stale() -> bool:
        await poller.poll()
        return poller.rejected("stale") > 0

    await wait_until_async(stale, 5, 0.02, "a poll between two scrapes")


@pytest.mark.prometheus
async def test_a_server_that_hangs_costs_its_deadline_and_nothing_else(
    engine: LocalEngine, server: tuple[str, Process]
) -> None:
    """If this breaks, one dead Prometheus stops joining and deciding."""
    url, process = server
    guards = [a_guard(every=Duration(0)), a_guard(name="other", every=Duration(0))]
    poller = Poller(engine, url, *guards, deadline=Duration(0.5))
    gaps: list[float] = []

    async def beat() -> None:
        loop = asyncio.get_running_loop()
        last_s = loop.time()
        while True:
            await asyncio.sleep(0.01)
            gaps.append(loop.time() - last_s)
            last_s = loop.time()

    beating = asyncio.create_task(beat())
    process.send(signal.SIGSTOP)
    try:
        started_s = asyncio.get_running_loop().time()
        assert [] == await poller.poll()
        took_s = asyncio.get_running_loop().time() - started_s
    finally:
        process.send(signal.SIGCONT)
        beating.cancel()

    assert 2 == poller.rejected("source_down")
    assert 0.4 < took_s < 1.5
    assert len(gaps) > 5
    assert max(gaps) < 0.4

    async def answered() -> bool:
        return len(await poller.poll()) > 0

    await wait_until_async(answered, 5, 0.1, "a value once it goes on")


@pytest.mark.prometheus
async def test_the_leader_of_a_real_engine_polls(
    tmp_path: Path, sqlite_store: sa.Engine, server: tuple[str, Process]
) -> None:
    """If this breaks, nobody polls, although every part of it works."""
    engine = a_local_engine(tmp_path / "served", sqlite_store)
    poller = Poller(engine, server[0], a_guard(every=Duration(1)))
    poller.poller.register()

    async def said() -> bool:
        return len(await engine.read("observations")) > 0

    async with serving(engine):
        await wait_until_async(said, 10, what="an observation")


async def test_what_the_client_would_do_by_itself_is_switched_off(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a redirect carries the token away, or one failure costs three more tries."""
    async with receiving(Answer(500)) as elsewhere, receiving(
        Answer(302, {"Location": f"{elsewhere.url}/x"}), Answer(500)
    ) as server:  # fmt: skip
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
            monkeypatch.setenv(name, elsewhere.url)
        monkeypatch.delenv("no_proxy", raising=False)
        poller = Poller(engine, f"{server.url}/base/", a_guard(every=Duration(0)),
                        token=Secret("hunter2"))  # fmt: skip

        assert [] == await poller.poll()
        assert [] == await poller.poll()

    assert [] == elsewhere.got
    assert ["/base/api/v1/query"] * 2 == [request.path for request in server.got]
    assert {"Bearer hunter2"} == {request.headers["authorization"] for request in server.got}
    assert 2 == poller.rejected("source_down")


DRIP = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (DRIP, b"x"),
        (b"HTTP/1.1 200 OK\r\n\r\n", b"x" * 500_000),
        (b"", b""),
        (b"nonsense\r\n", b""),
    ],
    ids=["drips", "has no end", "says nothing", "is no HTTP"],
)
async def test_an_answer_that_does_not_end_well_ends_at_the_deadline(
    engine: LocalEngine, first: bytes, then: bytes
) -> None:
    """If this breaks, a byte a second holds a query for hours."""
    writers: list[asyncio.StreamWriter] = []

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        writer.write(first)
        for _piece in range(60):
            writer.write(then)
            await asyncio.sleep(0.05)

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        poller = Poller(engine, f"http://127.0.0.1:{port}", deadline=Duration(0.3))
        started_s = asyncio.get_running_loop().time()

        assert [] == await poller.poll()

        took_s = asyncio.get_running_loop().time() - started_s
        threads = poller.poller._under_way.values()
        await wait_until_async(lambda: all(each.done() for each in threads), 2, what="its end")
        for writer in writers:
            writer.transport.abort()
    assert 1 == poller.rejected("source_down")
    assert took_s < 1.0


async def test_nobody_at_home_is_said_at_once(engine: LocalEngine) -> None:
    """If this breaks, a refused connection costs ten seconds of retries."""
    poller = Poller(engine, "http://127.0.0.1:9", deadline=Duration(5))
    started_s = asyncio.get_running_loop().time()

    assert [] == await poller.poll()

    assert asyncio.get_running_loop().time() - started_s < 1
    assert 1 == poller.rejected("source_down")


async def test_each_query_is_asked_at_its_own_pace(engine: LocalEngine) -> None:
    """If this breaks, a query of a minute is asked every second, or never again."""
    clock = SetClock()
    async with receiving(Answer(400)) as server:
        often = a_guard(name="often", every=Duration(1))
        seldom = a_guard(name="seldom", every=Duration(5))
        poller = Poller(engine, server.url, often, seldom, clock=clock)
        for _ in range(10):
            await poller.poll()
            clock.move(0.99)

    assert 12 == len(server.got)
    assert 12 == poller.rejected("query_error")


async def test_only_policies_in_force_are_polled(engine: LocalEngine) -> None:
    """If this breaks, a policy that never holds still asks, and its value counts."""
    plain = Policy(model="a", guards=[GuardSpec(signal="error_rate", max=0.1)])
    hidden = Policy(model="a", guards=[a_guard("hidden")])
    asked = Policy(model="b", guards=[a_guard("up"), a_guard("down", name="other")])
    async with receiving(Answer(400)) as server:
        settings = PrometheusSettings(url=server.url)
        policies = [plain, hidden, asked]

        await PrometheusPoller(engine, WallClock(), Metrics(), settings, policies).poll()

    assert 2 == len(server.got)
