"""The checkpoints of the keyed stages, on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from service.engine.base import Claim, Position, Snapshot
from service.storage.checkpoints import CheckpointStore, Cursor
from service.storage.database import APPLICATION, open_database

CURSOR = {"observations": Position("stream-1", 12, "noté"), "rollouts": Position("stream-2", 3)}


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'storage.db'}"
    return str(request.getfixturevalue("database"))


@pytest.fixture
def store(url: str) -> Iterator[CheckpointStore]:
    engine = open_database(url)
    yield CheckpointStore(engine)
    engine.dispose()


def test_a_new_partition_is_empty_and_epochs_grow(store: CheckpointStore) -> None:
    """If this breaks, the first start of a cluster fails, or an old fence looks young."""
    claims = [store.claim("watch", 0) for _ in range(3)]

    assert [Claim(1, {}, {}), Claim(2, {}, {}), Claim(3, {}, {})] == claims
    assert Claim(1, {}, {}) == store.claim("watch", 1)
    assert Claim(1, {}, {}) == store.claim("other", 0)


def test_the_next_owner_finds_states_and_cursor(store: CheckpointStore) -> None:
    """If this breaks, a restart forgets evidence or reads from the wrong place."""
    epoch = store.claim("watch", 0).epoch
    first = {"a": Snapshot(b"\x00\xff" * 100_000, b'{"n":1}'), "b": Snapshot(b"old")}

    stored = store.save("watch", 0, epoch, {"observations": Position("stream-1", 5)}, first)
    stored &= store.save("watch", 0, epoch, CURSOR, {"b": Snapshot(b"new"), "": Snapshot(b"p")})

    assert stored
    expected = Claim(2, CURSOR, {"a": b"\x00\xff" * 100_000, "b": b"new", "": b"p"})
    assert expected == store.claim("watch", 0)


def test_a_fenced_owner_stores_nothing(store: CheckpointStore) -> None:
    """If this breaks, a worker that was paused overwrites what its successor decided."""
    zombie = store.claim("watch", 0)
    owner = store.claim("watch", 0)
    assert store.save("watch", 0, owner.epoch, CURSOR, {"a": Snapshot(b"mine")})

    stored = store.save("watch", 0, zombie.epoch, {}, {"a": Snapshot(b"zombie", b"{}")})

    assert not stored
    assert Claim(3, CURSOR, {"a": b"mine"}) == store.claim("watch", 0)
    assert [] == store.views("watch")


def test_nobody_stores_what_was_never_claimed(store: CheckpointStore) -> None:
    """If this breaks, a lost database is filled by an owner that nobody can fence."""
    assert not store.save("watch", 0, 1, CURSOR, {"a": Snapshot(b"x")})
    assert {} == store.cursors("watch")


def test_readers_see_views_and_cursors(store: CheckpointStore) -> None:
    """If this breaks, `rollbackd status` and the dashboard show nothing, or another stage's."""
    for partition, key in ((1, "b"), (0, "a")):
        epoch = store.claim("watch", partition).epoch
        view = Snapshot(b"", f'{{"model":"{key}"}}'.encode())
        store.save("watch", partition, epoch, CURSOR, {key: view, "": Snapshot(b"none")})

    assert [{"model": "a"}, {"model": "b"}] == store.views("watch")
    assert {"model": "b"} == store.view("watch", "b")
    assert (None, None) == (store.view("watch", ""), store.view("other", "a"))
    assert {0: Cursor(1, CURSOR), 1: Cursor(1, CURSOR)} == store.cursors("watch")


def test_of_many_owners_at_once_only_the_last_can_store(url: str) -> None:
    """If this breaks, two workers that start together both believe that they own a model."""
    stores = [CheckpointStore(open_database(url)) for _ in range(4)]
    results: list[tuple[int, bool]] = []
    lock = threading.Lock()

    def own(store: CheckpointStore) -> None:
        for _ in range(10):
            epoch = store.claim("watch", 0).epoch
            stored = store.save("watch", 0, epoch, {}, {"who": Snapshot(str(epoch).encode())})
            with lock:
                results.append((epoch, stored))

    threads = [threading.Thread(target=own, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    epochs = [epoch for epoch, _ in results]
    assert list(range(1, 41)) == sorted(epochs)
    last = max(epoch for epoch, stored in results if stored)
    assert 40 == last
    assert {"who": b"40"} == stores[0].claim("watch", 0).states


@pytest.mark.postgres
def test_a_frozen_owner_in_the_middle_of_a_save_is_overtaken(database: str) -> None:
    """If this breaks, a machine that sleeps at the wrong moment keeps its partition for ever."""
    store = CheckpointStore(open_database(database))
    store.claim("watch", 3)
    frozen = psycopg.connect(database, application_name=APPLICATION)
    # As psycopg sends many rows: statements without the end of their pipeline. The server waits
    # for more inside the transaction, and its time-out for idle ones does not run.
    frozen.pgconn.enter_pipeline_mode()
    for statement in (b"BEGIN", b"UPDATE cursors SET cursor = '{}' WHERE partition = 3"):
        frozen.pgconn.send_query_params(statement, None)
    frozen.pgconn.send_flush_request()
    frozen.pgconn.flush()

    assert 2 == store.claim("watch", 3).epoch
    frozen.close()
