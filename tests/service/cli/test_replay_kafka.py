"""`replay` of a range of a real Kafka: as the same events from a file, and the same bytes twice."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from typer.testing import CliRunner

from schemas.events import TOPIC_OF
from service.cli import app
from service.engine.partitioner import murmur2_partition
from tests.service.replay.recordings import POLICY, START_MS, a_prediction, packed, traffic

PARTITIONS = 3
Line = dict[str, Any]


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    def lines(self) -> list[Line]:
        return [json.loads(line) for line in self.out.splitlines()]


def replay(*arguments: str) -> Said:
    result = CliRunner().invoke(app, ["replay", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Said(result.exit_code, result.stdout, result.stderr)


async def fill(bootstrap: str, prefix: str, events: Sequence[tuple[int, Line]]) -> None:
    """Make topics, and put events on them as they came: (log time, event), by key."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        # Never compacted: a test must not depend on when the broker cleans.
        names = [prefix + topic for topic in TOPIC_OF.values()]
        await admin.create_topics([NewTopic(name, PARTITIONS, 1) for name in names])
    finally:
        await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=bootstrap, enable_idempotence=True)
    await producer.start()
    try:
        for time_ms, event in events:
            bare = {name: value for name, value in event.items() if name != "type"}
            key = event.get("prediction_id") or event.get("model") or "?"
            await producer.send(
                prefix + TOPIC_OF[event["type"]], json.dumps(bare).encode(), key.encode(),
                timestamp_ms=time_ms,
            )  # fmt: skip
        await producer.flush()
    finally:
        await producer.stop()


def arriving(lines: list[Line]) -> list[tuple[int, Line]]:
    """One event a millisecond, in the order of a file."""
    return [(START_MS + at, line) for at, line in enumerate(lines)]


def a_release() -> list[Line]:
    """A bad canary, and what is refused."""
    lines = traffic(canary_fails=0.4, canary_wrong=0.5, seconds=60)
    lines.insert(300, a_prediction("odd", 3.0, error=False))
    return lines


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollbackd.yaml").write_text(POLICY)
    return tmp_path


def test_a_range_is_replayed_as_a_file_of_the_same_events(kafka: str, home: Path) -> None:
    """If this breaks, a replay from the cluster promises other decisions than one of its dump."""
    lines, prefix = a_release(), f"{uuid.uuid4().hex}."
    (home / "dump.jsonl").write_bytes(b"".join(packed(lines)))
    asyncio.run(fill(kafka, prefix, arriving(lines)))
    options = (f"kafka://{kafka}", "--prefix", prefix)

    expected, found, again = replay("dump.jsonl"), replay(*options), replay(*options)

    assert {"verdict", "breach", "command"} <= {line.get("kind") for line in expected.lines()}
    assert 1 == expected.lines()[-1]["summary"]["refused"]
    assert (0, expected.out) == (found.code, found.out)
    assert found == again


def test_edges_by_time_and_by_offset_give_the_same_messages(kafka: str, home: Path) -> None:
    """If this breaks, a range that was named once cannot be replayed again."""
    lines, prefix = a_release(), f"{uuid.uuid4().hex}."
    asyncio.run(fill(kafka, prefix, arriving(lines)))
    (home / "part.jsonl").write_bytes(b"".join(packed(lines[200:800])))
    address = (f"kafka://{kafka}", "--prefix", prefix)

    def at(line: int) -> str:
        return dt.datetime.fromtimestamp((START_MS + line) / 1000, dt.UTC).isoformat()

    by_time = replay(*address, "--from", at(200), "--to", at(800))
    named = by_time.err.split("Read ")[1].split()[:4]
    by_offset = replay(*address, *named)

    assert ["--from", "--to"] == named[::2]
    assert replay("part.jsonl").out == by_time.out == by_offset.out
    assert 600 == by_time.lines()[-1]["summary"]["read"]
    nothing = replay(*address, "--from", "100000")
    assert 0 == nothing.lines()[-1]["summary"]["read"]


def test_of_one_millisecond_the_cause_comes_first_and_no_partition_is_reordered(
    kafka: str, home: Path
) -> None:
    """If this breaks, the order depends on which broker answers first."""
    lines, prefix = traffic(canary_fails=0.4, seconds=20), f"{uuid.uuid4().hex}."
    # All at once, but for a producer whose clock goes back: its messages stay in their order.
    times = [START_MS if at < len(lines) // 2 else START_MS - 5 for at in range(len(lines))]
    asyncio.run(fill(kafka, prefix, list(zip(times, lines, strict=True))))

    def place(line: Line) -> tuple[int, int]:
        key = str(line.get("prediction_id") or line["model"]).encode()
        word = line["type"]
        return ("rollout", "prediction", "outcome").index(word), murmur2_partition(key, PARTITIONS)

    (home / "merged.jsonl").write_bytes(b"".join(packed(sorted(lines, key=place))))

    found = replay(f"kafka://{kafka}", "--prefix", prefix)

    assert replay("merged.jsonl").out == found.out
    assert found.lines()[-1]["summary"]["read"] == len(lines)


def test_what_is_ahead_of_its_arrival_is_refused_as_live(kafka: str, home: Path) -> None:
    """If this breaks, replay counts events that the daemon sent to dead letters."""
    prefix = f"{uuid.uuid4().hex}."
    events = [(START_MS, a_prediction("a", 0.0)), (START_MS + 1, a_prediction("b", 301.0)),
              (START_MS + 2, a_prediction("c", 299.0))]  # fmt: skip
    asyncio.run(fill(kafka, prefix, events))

    found = replay(f"kafka://{kafka}", "--prefix", prefix)

    summary = found.lines()[-1]["summary"]
    assert (3, 1, 2) == (summary["read"], summary["refused"], summary["accepted"])
    assert "ahead of its arrival" in found.err


def test_what_is_not_there_is_named(kafka: str, home: Path) -> None:
    """If this breaks, a misspelt prefix is an empty recording, or makes topics."""
    prefix = f"{uuid.uuid4().hex}."
    missing = CliRunner().invoke(app, ["replay", f"kafka://{kafka}", "--prefix", prefix])

    assert f"{prefix}rollouts" in str(missing.exception)
    asyncio.run(fill(kafka, prefix, []))
    beyond = CliRunner().invoke(app, ["replay", f"kafka://{kafka}", "--prefix", prefix, "--from",
                                      "predictions/9=1"])  # fmt: skip
    assert "no partition predictions/9" in str(beyond.exception)


@pytest.mark.parametrize("text", ["yesterday", "2026-11-24T09:00:00", "predictions/0", "holds/0=1"])
def test_an_edge_that_is_none_is_refused(text: str, home: Path) -> None:
    """If this breaks, a mistake in the range replays another one."""
    said = CliRunner().invoke(app, ["replay", "kafka://127.0.0.1:1", "--from", text])

    assert f"--from: found {text!r}" in str(said.exception)
