"""The shell that keeps verdicts over time: whole batches from the topic, one write each.

Refused here: a verdict that cannot be read; it is counted and passed over, since `watch` says the
next one within seconds.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

import msgspec

from schemas.verdicts import Verdict
from schemas.wire import UNREADABLE
from service.clock import Clock
from service.engine.base import Batch, Ends, Engine, Position
from service.storage.history import VerdictHistory
from service.telemetry import Metrics

TOPIC, GROUP = "verdicts", "history"
THIN_EVERY_S = 600.0

_decoder = msgspec.json.Decoder(Verdict)


class HistoryKeeper:
    """Reads `verdicts` in bulk; one leader thins what is old."""

    def __init__(
        self, engine: Engine, clock: Clock, metrics: Metrics, history: VerdictHistory
    ) -> None:
        self._engine, self._clock, self._metrics, self._history = engine, clock, metrics, history

    def register(self) -> None:
        """Ask the engine for the topic."""
        self._engine.bulk([TOPIC], self, GROUP)
        self._engine.lead("thin", THIN_EVERY_S, self.thin)

    async def assign(
        self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
    ) -> Mapping[str, int]:
        """Go on where the last owner stopped."""
        return {
            topic: committed[topic].offset if topic in committed else end.first
            for topic, end in ends.items()
        }

    async def handle(self, partition: int, batches: Sequence[Batch]) -> Mapping[str, Position]:
        """Write the verdicts of some batches."""
        verdicts = [verdict for batch in batches for verdict in self._read(batch)]
        await asyncio.to_thread(self._history.add, verdicts)
        return {batch.topic: Position(batch.stream, batch.offsets[-1] + 1) for batch in batches}

    async def revoke(self, partition: int) -> None:
        """Nothing is kept here."""

    async def thin(self) -> None:
        """Drop what is too old and too fine."""
        await asyncio.to_thread(self._history.thin, self._clock.now_ms())

    def _read(self, batch: Batch) -> list[Verdict]:
        found = []
        for value in filter(None, batch.values):
            try:
                found.append(_decoder.decode(value))
            except UNREADABLE:
                self._metrics.rejected.labels(GROUP, "unreadable").inc()
        return found
