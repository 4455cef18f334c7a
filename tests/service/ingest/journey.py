"""Drive one partition of `ingest` by hand: logs that grow, reads, crashes, lost disks."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from structlog.testing import capture_logs

from schemas.durations import Duration
from schemas.observations import Observations, dtype_of, unpack
from schemas.policies import Policy
from service.clock import SetClock
from service.config import IngestSettings
from service.engine.base import Batch, Ends, Position
from service.ingest.worker import IngestWorker
from service.telemetry import Metrics
from tests.fakes import FakeEngine, PowerCut

NOW = 1_767_225_600_000
TOPICS = ("predictions", "outcomes")


class Row(NamedTuple):
    """One row as `watch` reads it."""

    model: str
    kind: str
    topic: str
    offset: int
    values: dict[str, Any]


def policy(model: str = "m", horizon_s: float = 10.0, **more: Any) -> Policy:
    """A policy that is only a horizon."""
    return Policy(model=model, horizon=Duration(horizon_s), **more)


def prediction(key: str, at_s: float = 0.0, **more: Any) -> bytes:
    """A prediction served so many seconds after `NOW`."""
    served_at = NOW + int(at_s * 1000)
    said = {"prediction_id": key, "model": "m", "version": "v1", "served_at": served_at}
    return json.dumps(said | more).encode()


def outcome(key: str, at_s: float = 0.0, label: Any = 1, **more: Any) -> bytes:
    """An outcome observed so many seconds after `NOW`."""
    said = {"prediction_id": key, "observed_at": NOW + int(at_s * 1000), "label": label}
    return json.dumps(said | more).encode()


def key_of(value: bytes) -> bytes:
    """The key under which an event travels; none when it is not readable."""
    try:
        return str(json.loads(value)["prediction_id"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError):
        return b"?"


class Journey:
    """Two topics of one partition, a worker on them, and what the engine would have committed."""

    def __init__(self, root: Path, policies: Sequence[Policy] = (), **settings: Any) -> None:
        self.root = root
        self.roots = [root, root / "other-machine"]
        self.policies = list(policies) or [policy()]
        self.settings = IngestSettings(**settings)
        self.clock = SetClock(NOW)
        self.engine = FakeEngine()
        self.metrics = Metrics()
        self.logs: dict[str, list[bytes]] = {topic: [] for topic in TOPICS}
        self.streams = {topic: f"stream-{topic}" for topic in TOPICS}
        self.committed: dict[str, Position] = {}
        self.next: dict[str, int] = {}
        self.worker: IngestWorker | None = None
        self.may_be_damaged = False
        self.said_again: set[int] = set()
        """Outcomes of windows that were said and whose positions were never committed."""
        self.warned: list[str] = []
        """Events of warnings when the partition was last opened."""

    def write(self, topic: str, *values: bytes) -> None:
        """Put messages on a topic."""
        self.logs[topic] += values

    async def open(self, read_up_to: int = 0) -> None:
        """Assign the partition as the engine does; read what is there, topic by topic.

        `read_up_to` is the most that is read at once; 0: nothing is read yet.
        """
        self.crash()  # whoever had it lets go of the files now, not when its memory is freed
        self.worker = IngestWorker(
            self.engine,
            self.clock,
            self.metrics,
            self.settings,
            self.policies,
            self.root,  # type: ignore[arg-type]
        )
        ends = {t: Ends(self.streams[t], 0, len(self.logs[t])) for t in TOPICS}
        with capture_logs() as logs:
            self.next = dict(await self.worker.assign(0, dict(self.committed), ends))
        self.warned = [log["event"] for log in logs if log["log_level"] == "warning"]
        damaged = [log for log in logs if log["event"] == "state_of_ingest_damaged"]
        assert damaged == ([] if not self.may_be_damaged else damaged)
        if read_up_to:
            for topic in TOPICS:
                while self.next[topic] < ends[topic].next:
                    most = min(read_up_to, ends[topic].next - self.next[topic])
                    await self.read({topic: most})

    async def read(self, counts: dict[str, int], commit: bool = True) -> None:
        """Hand over the next messages of the topics, in one call."""
        batches = [b for topic, count in counts.items() if (b := self._batch(topic, count))]
        assert self.worker is not None
        positions = await self.worker.handle(0, batches)
        for batch in batches:
            self.next[batch.topic] = batch.offsets[-1] + 1
        if commit:
            self.committed.update(positions)
        else:
            self._note_unsettled(batches)

    async def read_all(self) -> None:
        """Hand over all that is left."""
        await self.read({topic: len(self.logs[topic]) for topic in TOPICS})

    async def tick(self, seconds: float = 1.0) -> None:
        """Let wall time pass, then tick."""
        self.clock.move(seconds)
        await self.read({})

    async def pass_time(self, seconds: float) -> None:
        """Let event time pass in ticks, and everything due be said."""
        for _ in range(int(seconds / 5) + 1):
            await self.tick(5.0)
        assert self.worker is not None
        part = self.worker._held[0].part
        while len(part.due) or part.ended != part.intent:
            await self.tick(0.0)

    def crash(self, lose_disk: bool = False) -> None:
        """Drop everything in memory; with `lose_disk` also the state on disk."""
        if self.worker is not None:
            for held in self.worker._held.values():
                held.store.close()
        self.worker = None
        if lose_disk:
            shutil.rmtree(self.root / "ingest", ignore_errors=True)

    def move(self) -> None:
        """Crash, and go on on the other of two machines, with whatever its disk still has."""
        self.crash()
        self.roots.reverse()
        self.root = self.roots[0]

    async def crash_while_saying(self, counts: dict[str, int], said: bool) -> None:
        """End in the middle of a step, before or after its messages are on the log."""
        if said:
            self.engine.fail_after = PowerCut()
        else:
            self.engine.fail_before = PowerCut()
        with contextlib.suppress(PowerCut):
            await self.read(counts, commit=False)
        self.engine.fail_before = self.engine.fail_after = None
        if said:
            self._note_unsettled(b for t, n in counts.items() if (b := self._batch(t, n)))
        self.crash()

    def _note_unsettled(self, batches: Iterable[Batch]) -> None:
        for batch in batches:
            if batch.topic == "outcomes":
                self.said_again.update(batch.offsets)

    def _batch(self, topic: str, count: int) -> Batch | None:
        start = self.next[topic]
        values = self.logs[topic][start : start + count]
        if not values:
            return None
        return Batch(
            topic, 0, self.streams[topic], range(start, start + len(values)),
            [NOW + 10**9] * len(values), [key_of(v) for v in values], values,
        )  # fmt: skip

    def observations(self) -> list[Observations]:
        """All observation messages, in order."""
        return [unpack(m.value) for m in self.engine.messages("observations")]

    def rows(self) -> list[Row]:
        """All rows in the order in which they were said, repeats and all."""
        return [row for message in self.observations() for row in rows_of(message)]

    def read_rows(self) -> list[Row]:
        """Rows as `watch` keeps them: those above the highest of their model, kind and topic."""
        highest: dict[tuple[str, str, str], int] = {}
        kept = []
        for message in self.observations():
            for block in message.blocks:
                key = (message.model, block.kind, block.topic)
                rows = [r for r in rows_of(message, block.kind, block.topic)
                        if r.offset > highest.get(key, -1)]  # fmt: skip
                if rows:
                    highest[key] = rows[-1].offset
                kept += rows
        return kept

    def letters(self) -> list[dict[str, Any]]:
        """All dead letters."""
        return [json.loads(m.value) for m in self.engine.messages("dead-letters")]


def rows_of(message: Observations, kind: str = "", topic: str = "") -> list[Row]:
    """Unpack a message, NaN and absent columns left out, classes and versions as names."""
    found = []
    for block in message.blocks:
        if (kind and block.kind != kind) or (topic and block.topic != topic):
            continue
        columns = {
            name: np.frombuffer(data, dtype_of(name)).tolist()
            for name, data in block.columns.items()
        }
        assert {len(column) for column in columns.values()} == {block.count}
        assert columns["offset"] == sorted(columns["offset"])
        for at in range(block.count):
            values = {name: column[at] for name, column in columns.items()}
            found.append(_row(message, block.kind, block.topic, values))
    return found


def _row(message: Observations, kind: str, topic: str, values: dict[str, Any]) -> Row:
    offset = values.pop("offset")
    values["version"] = message.versions[values["version"]]
    segments = [name for name in values if name.startswith("segment:")]
    for name in ("class", "label_class", *segments):
        code = values.pop(name, 0)
        if code:
            values[name] = message.classes[code - 1]
    kept = {name: value for name, value in values.items() if value == value}
    return Row(message.model, kind, topic, offset, kept)
