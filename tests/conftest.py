"""Fixtures for the real programs; a test that asks for one gets the marker of the same name.

`kafka`, `postgres` and the paths are shared by the whole session, so a test makes its own topics
and asks for `database`. `broker` is a Kafka of one's own, to be killed.
"""

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from hypothesis import settings

from tests.broker import Broker, run_broker
from tests.kube import Kube, the_server
from tests.real import program, run_postgres, run_prometheus

# The same examples each time, and no test fails because the machine was busy.
settings.register_profile("rollbackd", deadline=None, derandomize=True)
settings.load_profile("rollbackd")

MARKED_BY_FIXTURE = {
    "kafka": "kafka",
    "broker": "kafka",
    "postgres": "postgres",
    "database": "postgres",
    "haproxy": "haproxy",
    "prometheus": "prometheus",
    "chromium": "chromium",
    "kube": "kube",
}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test by the real programs it asks for, and all of tests/e2e as end to end."""
    e2e = Path(__file__).parent / "e2e"
    for item in items:
        for fixture in getattr(item, "fixturenames", ()):
            if fixture in MARKED_BY_FIXTURE:
                item.add_marker(MARKED_BY_FIXTURE[fixture])
        if e2e in item.path.parents:
            item.add_marker("e2e")


@pytest.fixture(scope="session")
def kafka() -> Iterator[str]:
    """Bootstrap address of a real Kafka, shared: use topic names of your own."""
    if given := os.environ.get("ROLLBACKD_TEST_KAFKA"):
        yield given
        return
    with run_broker() as broker:
        yield broker.bootstrap


@pytest.fixture
def broker() -> Iterator[Broker]:
    """A real Kafka that only this test uses, and may kill and resume. Costs about 5 seconds."""
    with run_broker() as own:
        yield own


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """`postgresql://…` of a superuser on a real server, shared: see `database`."""
    if given := os.environ.get("ROLLBACKD_TEST_POSTGRES"):
        yield given
        return
    with run_postgres() as url:
        yield url


@pytest.fixture
def database(postgres: str) -> Iterator[str]:
    """`postgresql://…` of an empty database that only this test uses."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(postgres, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {name}")
        yield postgres.rpartition("/")[0] + f"/{name}"
        admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def haproxy() -> str:
    """Path of the haproxy program."""
    return program("haproxy")


@pytest.fixture(scope="session")
def kube() -> Kube:
    """A real Kubernetes API server, as its administrator; see `tests/kube.py`."""
    return the_server()


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the chromium program; start it with `tests.real.CHROMIUM_FLAGS`."""
    return program("chromium", "chromium", "chromium-browser", "google-chrome")


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Callable[[str], str]]:
    """`prometheus(config)` starts a real Prometheus with this YAML and gives its address."""
    with ExitStack() as running:
        count = iter(range(100))

        def start(config: str) -> str:
            home = tmp_path / f"prometheus-{next(count)}"
            return running.enter_context(run_prometheus(config, home))

        yield start
