"""The dead man's switch, with a real receiver, real databases and a real daemon."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from schemas.secrets import Secret
from schemas.times import to_text
from service.alert.heartbeat import AGAIN_S, LOOK_S, STILL_S, Heart, Signs, fault_of
from service.app import opened, serve
from service.clock import SetClock
from service.config import ConfigFaults, HeartbeatSettings, parse
from service.engine.base import Message, Position
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from tests.builders import NOW
from tests.real import wait_until_async
from tests.receiver import Answer, Receiver, receiving

WELL = {"ready": True, "lag_s": 0.2}


class Scene:
    """One heart over a store; `watch` moves when it is told to."""

    def __init__(self, store: sa.Engine, receiver: Receiver, every: float = 60.0) -> None:
        self.clock = SetClock(NOW)
        self.checkpoints = CheckpointStore(store)
        self.health: dict[str, Any] = WELL
        settings: Any = {"url": Secret(f"{receiver.url}/ping/t0ken"), "every": every}
        self.heart = Heart(
            HeartbeatSettings(**settings), self.clock, Metrics(), lambda: self.health,
            IncidentLog(store), self.checkpoints,
        )  # fmt: skip
        self._epoch = self.checkpoints.claim("watch", 0).epoch
        self._offset = 0

    def watch(self) -> None:
        """Let `watch` store that it came further."""
        self._offset += 1
        cursor = {"observations": Position("stream", self._offset, "")}
        assert self.checkpoints.save("watch", 0, self._epoch, cursor, {})

    async def live(self, seconds: float, moves: bool = True, told: bool = True) -> None:
        """Let time pass, one look after the other."""
        told_s = self.clock.monotonic_s()
        for _ in range(round(seconds / LOOK_S)):
            self.clock.move(LOOK_S)
            if moves:
                self.watch()
            await self.heart.beat(self.clock.monotonic_s() if told else told_s)


async def test_it_beats_while_watch_moves_and_stops_when_it_stands_still(store: sa.Engine) -> None:
    """If this breaks, everybody sleeps well while nothing is judged any more."""
    async with receiving() as receiver:
        scene = Scene(store, receiver)
        await scene.live(180)
        assert 3 == len(receiver.got)

        with structlog.testing.capture_logs() as lines:
            await scene.live(600, moves=False)
        assert 4 == len(receiver.got), "one more, within the minute that a tick may be late"
        (line,) = [line for line in lines if line["log_level"] == "error"]
        assert "watch takes nothing in; look whether ingest and watch run" == line["fault"]

        await scene.live(2 * LOOK_S)
        assert 5 == len(receiver.got), "back at once"

    assert {"/ping/t0ken"} == {got.path for got in receiver.got}
    assert {"service": "rollbackd"} == json.loads(receiver.got[0].body)


async def test_a_restart_proves_nothing(sqlite_store: sa.Engine) -> None:
    """If this breaks, a daemon that dies every minute keeps the switch from acting."""
    async with receiving() as receiver:
        before = Scene(sqlite_store, receiver)
        before.watch()
        after = Scene(sqlite_store, receiver)
        await after.live(50, moves=False)

    assert [] == receiver.got


async def test_without_any_event_yet_there_is_nothing_that_could_move(
    sqlite_store: sa.Engine,
) -> None:
    """If this breaks, a fresh installation raises the alarm before the first model is watched."""
    async with receiving() as receiver:
        await Scene(sqlite_store, receiver).live(120, moves=False)

    assert 2 == len(receiver.got)


async def test_a_log_that_is_not_told_stops_it(sqlite_store: sa.Engine) -> None:
    """If this breaks, breaches are recorded, nobody is told, and all looks well from outside."""
    async with receiving() as receiver:
        scene = Scene(sqlite_store, receiver)
        await scene.live(600, told=False)

    assert 1 == len(receiver.got)


async def test_storage_that_is_gone_stops_it_and_shows_no_address(sqlite_store: sa.Engine) -> None:
    """If this breaks, a lost database is noticed by nobody, or its address is in the log."""
    async with receiving() as receiver:
        scene = Scene(sqlite_store, receiver)
        await scene.live(10)
        with sqlite_store.begin() as connection:
            connection.execute(sa.text("DROP TABLE incident_entries"))
        with structlog.testing.capture_logs() as lines:
            await scene.live(600, moves=True)

    assert 1 == len(receiver.got)
    assert ["the incident log cannot be read (OperationalError)"] == [
        line["fault"] for line in lines if line["event"] == "heartbeat withheld"
    ]


async def test_a_receiver_that_fails_is_logged_once_and_never_shown(
    sqlite_store: sa.Engine,
) -> None:
    """If this breaks, a failing receiver fills the log, or whoever reads it can beat for us."""
    async with receiving(*[Answer(500, body=b"t0ken")] * 5, Answer(302), Answer()) as receiver:
        scene = Scene(sqlite_store, receiver)
        with structlog.testing.capture_logs() as lines:
            await scene.live(7 * AGAIN_S)

    assert 7 <= len(receiver.got), "it is tried again soon"
    assert [
        "heartbeat not taken, will be tried again", "heartbeat taken again",
    ] == [line["event"] for line in lines]  # fmt: skip
    assert "t0ken" not in str(lines)


async def test_a_receiver_that_is_not_there_is_logged_once(sqlite_store: sa.Engine) -> None:
    """If this breaks, the error of a connection shows the secret address."""
    async with receiving() as receiver:
        scene = Scene(sqlite_store, receiver)
    with structlog.testing.capture_logs() as lines:
        await scene.live(60)

    assert ["heartbeat not taken, will be tried again"] == [line["event"] for line in lines]
    assert "t0ken" not in str(lines)


@pytest.mark.parametrize(
    ("signs", "fault"),
    [
        (Signs(WELL, 0.0, 0.0), None),
        (Signs(WELL, None, STILL_S), None),
        (Signs(WELL | {"ready": False, "lag_s": 31.0}, 0, 0), "this process is not ready"),
        (Signs(WELL, STILL_S + 1, 0.0), "watch takes nothing in"),
        (Signs(WELL, 0.0, STILL_S + 1), "the incident log is not told"),
    ],
)
def test_what_counts_as_alive(signs: Signs, fault: str | None) -> None:
    """If this breaks, the switch acts on a slow minute, or never."""
    assert str(fault_of(signs)).startswith(str(fault))


def test_its_settings_are_checked() -> None:
    """If this breaks, the switch is misspelt and nobody notices until it is needed."""
    with pytest.raises(ConfigFaults) as found:
        parse(
            "policies: [{model: m}]\n"
            "heartbeat: {url: 'http://far.example/t0ken', every: 0s, allow_private: [x]}"
        )

    assert ["heartbeat.url", "heartbeat.every", "heartbeat.allow_private"] == [
        line.split(":")[0] for line in found.value.lines
    ]
    assert "t0ken" not in str(found.value)


async def test_a_whole_daemon_beats_once_events_flow(tmp_path: Path) -> None:
    """If this breaks, the ticks of `ingest` do not reach the switch, and it never closes."""
    async with receiving() as receiver:
        (tmp_path / "ping").write_text(f"{receiver.url}/ping/t0ken\n")
        config = parse(
            f"engine: local:{tmp_path}/log\nhttp: {{listen: 127.0.0.1:0}}\n"
            "policies: [{model: credit-risk}]\nheartbeat: {url_file: ping, every: 1s}",
            tmp_path,
        )
        async with opened(config) as parts:
            event = {
                "prediction_id": "p1", "model": "credit-risk", "version": "v41",
                "served_at": to_text(parts.clock.now_ms()), "score": 0.5,
            }  # fmt: skip
            message = Message(b"credit-risk", json.dumps(event).encode())
            await parts.engine.append("predictions", [message])
        stop = asyncio.Event()
        daemon = asyncio.create_task(serve(config, {"ingest", "watch", "record", "alert"}, stop))
        try:
            await wait_until_async(lambda: len(receiver.got) >= 3, 60)
        finally:
            stop.set()
            await daemon
        database = open_database(config.storage_url)
        cursor = CheckpointStore(database).cursors("watch")[0]
        database.dispose()
        receiver.got.clear()

        # Without ingest and watch nothing moves any more.
        stop = asyncio.Event()
        daemon = asyncio.create_task(serve(config, {"alert"}, stop))
        try:
            with pytest.raises(TimeoutError):
                await wait_until_async(lambda: bool(receiver.got), 6)
        finally:
            stop.set()
            await daemon

    assert cursor.positions["observations"].offset >= 3
    assert [] == receiver.got
