"""The record role on a real local engine and a real database."""

from pathlib import Path

import msgspec
import sqlalchemy as sa

from schemas.facts import DeadLetter
from service.clock import SetClock
from service.engine.base import Message
from service.record.worker import RecordWorker
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from tests.builders import (
    NOW,
    a_breach,
    a_command,
    a_hold,
    a_progress,
    a_proposal,
    a_receipt,
)
from tests.real import wait_until_async
from tests.service.running import a_local_engine, serving


def said(message: object) -> Message:
    model = getattr(message, "model", "m")
    return Message(model.encode(), msgspec.json.encode(message))


async def test_the_whole_story_is_recorded_once_from_its_topics(
    tmp_path: Path, store: sa.Engine
) -> None:
    """If this breaks, the incident log lacks a chapter, or has one twice after a replay."""
    log, holds, metrics = IncidentLog(store), HoldStore(store), Metrics()
    engine = a_local_engine(tmp_path / "log", store)
    RecordWorker(engine, SetClock(), metrics, log, holds).register()
    second = a_breach(guard="latency_ms", breach_id="another")

    async with serving(engine):
        for _ in range(2):
            await engine.append("breaches", [said(a_breach()), said(second)])
            await engine.append("commands", [said(a_command())])
            await engine.append("receipts", [said(a_receipt())])
            await engine.append("progress", [said(a_proposal()), said(a_progress())])
        await engine.append("holds", [said(a_hold())])
        await engine.append("holds", [Message(b"gone", b"")])
        done = metrics.received.labels("record")._value
        await wait_until_async(lambda: done.get() >= 13, 20)

    (incident,) = log.incidents(10)
    kinds = sorted(entry.kind for _, entry in log.story(incident.incident_id))
    assert ["command", "evidence", "opened", "proposed", "receipt", "verified"] == kinds
    assert ("verified", "v41") == (incident.state, incident.rolled_back_to)
    assert {"v42"} == {entry.version for _, entry in log.story(incident.incident_id)}
    assert holds.blocking("credit-risk", NOW) == a_hold()


async def test_what_cannot_be_read_is_refused_and_stops_nothing(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, one garbled message stops the incident log for good."""
    log = IncidentLog(sqlite_store)
    engine = a_local_engine(tmp_path / "log", sqlite_store)
    RecordWorker(engine, SetClock(), Metrics(), log, HoldStore(sqlite_store)).register()

    async with serving(engine):
        await engine.append("breaches", [Message(b"m", b'{"breach_id": 7'), said(a_breach())])
        await wait_until_async(lambda: log.last() > 0, 20)
        (letter,) = await engine.read("dead-letters")

    dead = msgspec.json.decode(letter.value, type=DeadLetter)
    assert ("breaches", 0, b'{"breach_id": 7') == (dead.topic, dead.offset, dead.value)
    assert dead.reason.startswith("record cannot read it: ")


async def test_storage_that_fails_for_a_while_loses_nothing(
    tmp_path: Path, sqlite_store: sa.Engine
) -> None:
    """If this breaks, a breach during a database's restart is missing from the record."""
    log, metrics = IncidentLog(sqlite_store), Metrics()
    engine = a_local_engine(tmp_path / "log", sqlite_store, metrics=metrics)
    RecordWorker(engine, SetClock(), metrics, log, HoldStore(sqlite_store)).register()
    with sqlite_store.begin() as connection:
        connection.execute(sa.text("ALTER TABLE incident_entries RENAME TO away"))

    async with serving(engine):
        await engine.append("breaches", [said(a_breach())])
        failed = metrics.errors.labels("record")._value
        await wait_until_async(lambda: failed.get() > 0, 20)
        with sqlite_store.begin() as connection:
            connection.execute(sa.text("ALTER TABLE away RENAME TO incident_entries"))
        await wait_until_async(lambda: log.last() > 0, 20)

    assert [a_breach().text] == [incident.text for incident in log.incidents(5)]
