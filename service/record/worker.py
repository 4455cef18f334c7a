"""The shell of `record`: reads facts and orders, writes the incident log, folds holds.

Why a message is never lost and never stops the rest: the engine delivers it again until this
returns, and the log drops what it knows; only a message that cannot be read at all is refused, to
`dead-letters`, because no later try could read it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import structlog

from schemas.commands import Command, Hold
from schemas.facts import Breach, DeadLetter, Progress, Receipt
from schemas.incidents import Entry
from schemas.wire import MAX_EVENT_BYTES, UNREADABLE
from service.clock import Clock
from service.engine.base import Engine, Message, Record
from service.record import ledger
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics

STAGE = "record"
logs: Any = structlog.get_logger(STAGE)


class RecordWorker:
    """Everything `record` does; `register` hands it to the engine."""

    def __init__(
        self, engine: Engine, clock: Clock, metrics: Metrics, log: IncidentLog, holds: HoldStore
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._log = log
        self._holds = holds

    def register(self) -> None:
        """Ask the engine for every topic that belongs to an incident, and for holds."""
        self._each("breaches", Breach, self._entry_of_breach)
        self._each("commands", Command, self._entry_of_command)
        self._each("receipts", Receipt, self._entry_of_receipt)
        self._each("progress", Progress, self._entry_of_progress)
        self._engine.each("holds", self._hold, STAGE)

    def _each(self, topic: str, kind: Any, entry_of: Callable[[Any, int], Entry]) -> None:
        decoder = msgspec.json.Decoder(kind)

        async def handle(record: Record) -> None:
            await self._take(record, decoder, lambda said: self._write(entry_of, said))

        self._engine.each(topic, handle, STAGE)

    async def _take(
        self, record: Record, decoder: msgspec.json.Decoder[Any], take: Callable[[Any], None]
    ) -> None:
        self._metrics.received.labels(STAGE).inc()
        try:
            said = decoder.decode(record.value)
        except UNREADABLE as fault:
            await self._refuse(record, str(fault))
            return
        # What this raises the engine counts, logs and tries again.
        await asyncio.to_thread(take, said)

    def _write(self, entry_of: Callable[[Any, int], Entry], said: Any) -> None:
        entry = entry_of(said, self._clock.now_ms())
        if self._log.add([entry]):
            self._metrics.sent.labels(STAGE).inc()
            logs.info(
                f"incident {entry.kind}",
                incident=entry.incident_id, model=entry.model, version=entry.version,
                reason=entry.reason, text=entry.text,
            )  # fmt: skip

    def _entry_of_breach(self, breach: Breach, now_ms: int) -> Entry:
        story = self._log.story(breach.incident_id)
        opened = next((e for _, e in story if e.kind == "opened"), None)
        opened_by = str(opened.data.get("breach_id")) if opened else None
        return ledger.entry_of_breach(breach, opened_by, now_ms)

    def _entry_of_command(self, command: Command, now_ms: int) -> Entry:
        return ledger.entry_of_command(command, now_ms)

    def _entry_of_receipt(self, receipt: Receipt, now_ms: int) -> Entry:
        return ledger.entry_of_receipt(receipt, now_ms)

    def _entry_of_progress(self, progress: Progress, now_ms: int) -> Entry:
        story = self._log.story(progress.incident_id)
        named = progress.evidence.get("version")
        version = str(named) if named else story[0][1].version if story else _version_in(progress)
        return ledger.entry_of_progress(progress, version, now_ms)

    async def _hold(self, record: Record) -> None:
        # A compacted topic may hold the mark of a deleted key; there is nothing to fold in it.
        if record.value:
            await self._take(record, _HOLD, self._fold)

    def _fold(self, hold: Hold) -> None:
        if self._holds.fold(hold):
            logs.info(
                "hold" if hold.active else "release",
                model=hold.model, actor=hold.actor, reason=hold.reason,
            )  # fmt: skip

    async def _refuse(self, record: Record, reason: str) -> None:
        self._metrics.rejected.labels(STAGE, "unreadable").inc()
        letter = DeadLetter(
            reason=f"record cannot read it: {reason}",
            topic=record.topic, partition=record.partition, offset=record.offset,
            at=self._clock.now_ms(), key=record.key,
            value=record.value[:MAX_EVENT_BYTES], size=len(record.value),
        )  # fmt: skip
        message = Message(record.topic.encode(), msgspec.json.encode(letter))
        await self._engine.append("dead-letters", [message])


_HOLD: msgspec.json.Decoder[Any] = msgspec.json.Decoder(Hold)


def _version_in(progress: Progress) -> str:
    """The version of a proposal that came before its breach: topics have no common order."""
    command = progress.command if isinstance(progress.command, dict) else {}
    return str(command.get("from_version", ""))
