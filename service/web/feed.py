"""`GET /v1/stream`: what changes, as it changes, to everyone who watches.

Why. A hundred open pages must not ask the database a hundred times. One poller, running only while
someone listens, reads about four times a second and gives what differs to all.

How. Server-sent events. A listener first gets everything (`model`, `incident`, `holds`, then
`ready`), later only what changed. Each has a bounded queue: one that does not keep up is dropped
and comes back by itself to a fresh beginning, so nobody's memory grows and nobody misses a change.

Refused here: waiting for a slow listener.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import structlog

from schemas.commands import Hold
from service.clock import Clock
from service.storage.incident_log import IncidentLog
from service.web.site import STAGE, Stores

POLL_S = 0.25
PING_S = 15.0
QUEUE = 1000
"""Changes that a listener may be behind."""
MAX_LISTENERS = 200
FIRST_INCIDENTS = 100

logs: Any = structlog.get_logger(STAGE)
Listener = asyncio.Queue[bytes | None]


class Feed:
    """One poller and its listeners."""

    def __init__(self, stores: Stores, clock: Clock) -> None:
        self._stores = stores
        self._clock = clock
        self._listeners: set[Listener] = set()
        self._poller: asyncio.Task[None] | None = None
        self._models: dict[str, dict[str, Any]] = {}
        self._holds: list[Hold] = []
        self._position = 0
        self._closed = False
        self._starting = asyncio.Lock()

    @property
    def full(self) -> bool:
        """Whether no more listeners are taken."""
        return self._closed or len(self._listeners) >= MAX_LISTENERS

    async def listen(self) -> AsyncIterator[bytes]:
        """Give everything, then every change, until the listener goes or falls behind."""
        listener: Listener = asyncio.Queue(QUEUE)
        self._listeners.add(listener)
        try:
            yield b"retry: 2000\n\n"
            # Before reading the beginning: a change in between comes twice rather than never.
            await self._start()
            for part in await asyncio.to_thread(self._beginning):
                yield part
            while not self._closed and listener in self._listeners:
                try:
                    async with asyncio.timeout(PING_S):
                        change = await listener.get()
                except TimeoutError:
                    yield b": still here\n\n"
                    continue
                if change is None:
                    return
                yield change
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        """End every stream."""
        self._closed = True
        for listener in list(self._listeners):
            self._drop(listener)
        if self._poller is not None:
            self._poller.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._poller

    async def _start(self) -> None:
        async with self._starting:
            if self._poller is None and not self._closed:
                await asyncio.to_thread(self._catch_up)
                self._poller = asyncio.create_task(self._poll())

    async def _poll(self) -> None:
        while self._listeners:
            await asyncio.sleep(POLL_S)
            try:
                changes = await asyncio.to_thread(self._changes)
            except Exception as fault:
                logs.warning("the stream pauses", fault=str(fault))
                await asyncio.sleep(2.0)
                continue
            for change in changes:
                for listener in list(self._listeners):
                    self._give(listener, change)
        self._poller = None

    def _give(self, listener: Listener, change: bytes) -> None:
        try:
            listener.put_nowait(change)
        except asyncio.QueueFull:
            self._drop(listener)

    def _drop(self, listener: Listener) -> None:
        self._listeners.discard(listener)
        while not listener.empty():
            listener.get_nowait()
        listener.put_nowait(None)

    def _beginning(self) -> list[bytes]:
        now = self._clock.now_ms()
        parts = [_said("model", view) for view in self._stores.checkpoints.views("watch")]
        incidents = self._stores.log.incidents(FIRST_INCIDENTS)
        parts += [_said("incident", incident) for incident in reversed(incidents)]
        parts.append(_said("holds", self._stores.holds.all(now)))
        return [*parts, _said("ready", {"now": now})]

    def _catch_up(self) -> None:
        """Take incidents and holds as known: every listener reads them as its beginning."""
        self._models, self._position = {}, self._stores.log.last()
        self._holds = self._stores.holds.all(self._clock.now_ms())

    def _changes(self) -> list[bytes]:
        now = self._clock.now_ms()
        parts: list[bytes] = []
        for view in self._stores.checkpoints.views("watch"):
            if self._models.get(view["model"]) != view:
                self._models[view["model"]] = view
                parts.append(_said("model", view))
        parts += self._new_incidents(self._stores.log)
        holds = self._stores.holds.all(now)
        if holds != self._holds:
            self._holds = holds
            parts.append(_said("holds", holds))
        return parts

    def _new_incidents(self, log: IncidentLog) -> list[bytes]:
        entries = log.since(self._position, 500)
        if not entries:
            return []
        self._position = entries[-1][0]
        changed = dict.fromkeys(entry.incident_id for _, entry in entries)
        found = [log.incident(name) for name in changed]
        return [
            _said("incident", msgspec.structs.replace(incident, entries=[]))
            for incident in found
            if incident is not None
        ]


def _said(event: str, value: Any) -> bytes:
    return b"event: " + event.encode() + b"\ndata: " + msgspec.json.encode(value) + b"\n\n"
