"""The real programs really start, answer, survive what they should, and go when told."""

import http.server
import signal
import subprocess
import sys
import threading
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path

import aiokafka
import aiokafka.admin
import aiokafka.errors
import psycopg
import pytest

from tests.broker import Broker, kafka_answers
from tests.real import (
    CHROMIUM_FLAGS,
    free_port,
    require,
    run_process,
    url_answers,
    wait_until,
    wait_until_async,
)


async def create_topic(bootstrap: str, topic: str) -> None:
    admin = aiokafka.admin.AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([aiokafka.admin.NewTopic(topic, 1, 1)])
    finally:
        await admin.close()


async def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    producer = aiokafka.AIOKafkaProducer(bootstrap_servers=bootstrap, acks="all")
    await producer.start()
    try:
        for value in values:
            await producer.send_and_wait(topic, value)
    finally:
        await producer.stop()


async def consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = aiokafka.AIOKafkaConsumer(
        topic, bootstrap_servers=bootstrap, auto_offset_reset="earliest"
    )
    await consumer.start()
    try:
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def test_kafka_keeps_what_it_acknowledged(kafka: str) -> None:
    """If this breaks, every Kafka test below runs against something that is not a broker."""
    topic = f"real-{uuid.uuid4().hex}"
    await create_topic(kafka, topic)
    await produce(kafka, topic, [b"one", b"two"])

    assert [b"one", b"two"] == await consume(kafka, topic, 2)


async def test_kafka_makes_no_topic_by_itself(broker: Broker) -> None:
    """If this breaks, a daemon that writes to a misspelt topic passes its tests."""
    producer = aiokafka.AIOKafkaProducer(
        bootstrap_servers=broker.bootstrap, request_timeout_ms=2_000, metadata_max_age_ms=500
    )
    await producer.start()
    try:
        with pytest.raises(aiokafka.errors.KafkaError):
            await producer.send_and_wait("nobody-made-this", b"lost")
    finally:
        await producer.stop()


async def test_killed_broker_resumes_on_its_data(broker: Broker) -> None:
    """If this breaks, the fault tests lose data that a real broker would have kept."""
    await create_topic(broker.bootstrap, "kept")
    await produce(broker.bootstrap, "kept", [b"before"])

    broker.kill()
    assert not kafka_answers(broker.bootstrap)
    broker.resume()
    await produce(broker.bootstrap, "kept", [b"after"])

    assert [b"before", b"after"] == await consume(broker.bootstrap, "kept", 2)


def test_postgres_gives_each_test_an_empty_database(postgres: str, database: str) -> None:
    """If this breaks, tests of storage see each other's incidents."""
    with psycopg.connect(database) as connection:
        connection.execute("CREATE TABLE incidents (id text PRIMARY KEY)")
        connection.execute("INSERT INTO incidents VALUES ('a')")

    with psycopg.connect(database) as again, psycopg.connect(postgres) as other:
        assert [("a",)] == again.execute("SELECT id FROM incidents").fetchall()
        seen = other.execute("SELECT to_regclass('public.incidents')").fetchone()
        assert (None,) == seen


def test_postgres_wants_its_password(database: str) -> None:
    """If this breaks, a daemon that drops its database password passes its tests."""
    address = urllib.parse.urlsplit(database)
    without = f"host={address.hostname} port={address.port} user={address.username} dbname=postgres"

    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(without, password="wrong").close()


def test_haproxy_answers(haproxy: str, tmp_path: Path) -> None:
    """If this breaks, the tests of the HAProxy adapter have no HAProxy."""
    port, config = free_port(), tmp_path / "haproxy.cfg"
    config.write_text(
        "defaults\n mode http\n timeout client 5s\n timeout server 5s\n timeout connect 5s\n"
        f"frontend front\n bind 127.0.0.1:{port}\n"
        ' http-request return status 200 content-type text/plain string "from haproxy"\n'
    )

    with run_process([haproxy, "-W", "-db", "-f", config], tmp_path / "log") as process:
        url = f"http://127.0.0.1:{port}/"
        process.wait_until(lambda: url_answers(url), 10, "HAProxy answers")
        with urllib.request.urlopen(url, timeout=5) as reply:
            assert b"from haproxy" == reply.read()
    assert not url_answers(url)


def test_prometheus_scrapes_itself(prometheus: Callable[[str], str]) -> None:
    """If this breaks, the tests of Prometheus guards judge an empty server."""
    url = prometheus("global: {scrape_interval: 1s}\n")
    query = f"{url}/api/v1/query?query=" + urllib.parse.quote("vector(42)")

    with urllib.request.urlopen(query, timeout=5) as reply:
        assert b'"42"' in reply.read()


def test_chromium_runs_a_page(chromium: str, tmp_path: Path) -> None:
    """If this breaks, the tests of the dashboard look at nothing."""
    (tmp_path / "index.html").write_text(
        "<p id=p>before</p><script>p.textContent = 'sum ' + (40 + 2)</script>"
    )
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = f"http://127.0.0.1:{server.server_address[1]}/index.html"
        command = [chromium, *CHROMIUM_FLAGS, f"--user-data-dir={tmp_path / 'user'}"]
        done = subprocess.run(
            [*command, "--dump-dom", page], capture_output=True, text=True, timeout=60, check=False
        )
        server.shutdown()

    assert '<p id="p">sum 42</p>' in done.stdout


def test_process_is_gone_with_its_children_after_its_block(tmp_path: Path) -> None:
    """If this breaks, a failed test leaves daemons behind that disturb the next one."""
    port = free_port()
    deaf = f"(trap '' TERM; exec {sys.executable} -m http.server {port} --bind 127.0.0.1)"

    with run_process(["sh", "-c", f"{deaf} & wait"], tmp_path / "log") as process:
        url = f"http://127.0.0.1:{port}/"
        process.wait_until(lambda: url_answers(url), 10, "the child's child answers")
    assert not process.alive
    wait_until(lambda: not url_answers(url), 5, what="the child's child is gone")


def test_process_that_ends_early_says_why(tmp_path: Path) -> None:
    """If this breaks, a daemon that dies at its start looks like a slow one, without a reason."""
    command = [sys.executable, "-c", "raise SystemExit('no such broker')"]

    with (
        run_process(command, tmp_path / "log") as process,
        pytest.raises(RuntimeError, match=r"exit code 1 before: ready(.|\n)*no such broker"),
    ):
        process.wait_until(lambda: False, 10, "ready")


def test_stopped_process_still_ends(tmp_path: Path) -> None:
    """If this breaks, a test of a frozen owner hangs the whole run at its end."""
    command = [sys.executable, "-c", "import time; time.sleep(600)"]
    with run_process(command, tmp_path / "log") as process:
        process.send(signal.SIGSTOP)
    assert -signal.SIGTERM == process.child.returncode


async def test_waiting_ends_with_the_answer_or_by_name() -> None:
    """If this breaks, tests wait for ever, or pass before what they wait for is true."""
    answers = iter([0, 0, 7])
    assert 7 == wait_until(lambda: next(answers), 1, every_s=0)

    async def never() -> bool:
        return False

    with pytest.raises(TimeoutError, match=r"0.01 s: the rollback"):
        await wait_until_async(never, 0.01, every_s=0, what="the rollback")


@pytest.mark.parametrize("required", ["all", "kafka,postgres", "postgres"])
def test_missing_component_fails_where_it_is_required(
    required: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, CI is green although it tested without a broker or a database."""
    monkeypatch.setenv("ROLLBACKD_REQUIRE", required)
    with pytest.raises(pytest.fail.Exception, match="no server here"):
        require("postgres", "no server here")

    monkeypatch.setenv("ROLLBACKD_REQUIRE", "haproxy")
    with pytest.raises(pytest.skip.Exception, match="no server here"):
        require("postgres", "no server here")
