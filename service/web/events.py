"""`POST /v1/events`: events in, checked one by one, durable before they are acknowledged.

Why. A small team sends events over HTTP and must be able to trust the answer: what is counted as
accepted is on the log, what is not is named by its line and put with its reason into
`dead-letters`. A sender that gets no answer sends again; repeats are dropped by id.

How. A body is NDJSON or a JSON array; each event is read by `schemas/wire.py` with the server's
clock as its arrival, and appended bare (a CloudEvent's `data`) under its topic and key. Events that
are accepted but not yet durable are counted; above `http.queue` the answer is 429, before a body is
read. Long bodies are checked in slices, so that other requests are not kept waiting.

Refused here: bodies over 8 MiB, packed bodies, and half of an event.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec
import structlog
from fastapi import Request
from msgspec import Struct
from starlette.responses import Response

from schemas.events import TOPIC_OF
from schemas.facts import DeadLetter
from schemas.wire import (
    MAX_EVENT_BYTES,
    UNREADABLE,
    InvalidEvent,
    decode_one,
    fault_of,
    key_of,
    sort_of,
)
from service.engine.base import Message
from service.web.site import STAGE, Site, answer, no

MAX_BODY_BYTES = 8 * 1024 * 1024
MAX_ERRORS = 1000
"""Most lines named in one answer, and put into `dead-letters`; all are counted."""
MAX_READING = 64
"""Most bodies read at once; each may take 8 MiB of memory."""
SLICE = 500
"""Events checked before other requests get their turn."""

logs: Any = structlog.get_logger(STAGE)


class _Envelope(Struct):
    specversion: str
    data: msgspec.Raw


class Fault(NamedTuple):
    """One refused line."""

    line: int
    reason: str
    value: bytes


_raws = msgspec.json.Decoder(list[msgspec.Raw])
_envelopes = msgspec.json.Decoder(_Envelope)
_LINE = re.compile(rb"[^\n]+")


class EventsIntake:
    """Takes bodies in; one for each process."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._pending = 0
        self._reading = 0

    async def post(self, request: Request) -> Response:
        """Take in one request."""
        if self._pending >= self._site.settings.queue or self._reading >= MAX_READING:
            raise no(
                429, "too many events wait to be stored; send them again", {"retry-after": "1"}
            )
        self._reading += 1
        try:
            body = await _read(request)
        finally:
            self._reading -= 1
        actor = str(request.state.actor)
        lines = _lines(body)
        if isinstance(lines, Fault):
            return _answer(0, 0, [lines])
        return await self._take(lines, actor)

    async def _take(self, lines: Iterator[tuple[int, bytes]], actor: str) -> Response:
        now = self._site.clock.now_ms()
        messages: dict[str, list[Message]] = {}
        refused: list[Fault] = []
        count, refusals = 0, 0
        for line, value in lines:
            count += 1
            if count % SLICE == 0:
                await asyncio.sleep(0)
            try:
                topic, message = _message(value, now)
            except InvalidEvent as fault:
                refusals += 1
                if len(refused) < MAX_ERRORS:
                    refused.append(Fault(line, str(fault), value))
            else:
                messages.setdefault(topic, []).append(message)
        if not count:
            return _answer(0, 0, [Fault(1, "the body holds no event", b"")])
        await self._append(messages, refused, actor, now)
        self._site.metrics.received.labels(STAGE).inc(count)
        self._site.metrics.rejected.labels(STAGE, "invalid").inc(refusals)
        return _answer(count - refusals, refusals, refused)

    async def _append(
        self, messages: dict[str, list[Message]], refused: Sequence[Fault], actor: str, now: int
    ) -> None:
        batches: dict[str, list[Message]] = dict(messages)
        if refused:
            batches["dead-letters"] = [_letter(fault, actor, now) for fault in refused]
        accepted = sum(map(len, messages.values()))
        self._pending += accepted
        try:
            await asyncio.gather(
                *(self._site.engine.append(topic, batch) for topic, batch in batches.items())
            )
        except Exception as fault:
            self._site.metrics.errors.labels(STAGE).inc()
            logs.error("events cannot be stored", fault=str(fault))
            raise no(
                503,
                "events cannot be stored at the moment; send them all again, repeats are dropped",
                {"retry-after": "2"},
            ) from None
        finally:
            self._pending -= accepted
        self._site.metrics.sent.labels(STAGE).inc(accepted)


async def _read(request: Request) -> bytes:
    if request.headers.get("content-encoding", "identity") != "identity":
        raise no(415, "send the body without content-encoding")
    declared = request.headers.get("content-length", "")
    if declared.isdigit() and int(declared) > MAX_BODY_BYTES:
        raise _too_large()
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > MAX_BODY_BYTES:
            raise _too_large()
        parts.append(part)
    return b"".join(parts)


def _too_large() -> Exception:
    return no(413, f"the body is larger than {MAX_BODY_BYTES} bytes; send it in parts")


def _lines(body: bytes) -> Iterator[tuple[int, bytes]] | Fault:
    """Number the events of a body from 1; empty lines count as lines and hold no event."""
    if body.lstrip()[:1] == b"[":
        try:
            return ((at, bytes(raw)) for at, raw in enumerate(_raws.decode(body), 1))
        except UNREADABLE as fault:
            return Fault(1, f"the body is not a JSON array: {fault}", b"")
    return _numbered(body)


def _numbered(body: bytes) -> Iterator[tuple[int, bytes]]:
    # By a scan, not by a split: eight million empty lines must not become a list.
    line, end = 1, 0
    for found in _LINE.finditer(body):
        line += found.start() - end
        end = found.end()
        value = found.group().strip()
        if value:
            yield line, value


def _message(value: bytes, now: int) -> tuple[str, Message]:
    """Check one event; give its topic and what is appended there."""
    word = sort_of(value)
    event = decode_one(word, value)
    if fault := fault_of(event, now):
        raise InvalidEvent(fault)
    return TOPIC_OF[word], Message(key_of(event), _bare(word, value, event))


def _bare(word: str, value: bytes, event: Any) -> bytes:
    """The event itself, out of its CloudEvents envelope if it came in one."""
    if b"specversion" not in value:
        return value
    try:
        inner = bytes(_envelopes.decode(value).data)
        # A bare event may hold such fields too; only what was checked may be appended.
        return inner if decode_one(word, inner) == event else value
    except (*UNREADABLE, InvalidEvent):
        return value


def _letter(fault: Fault, actor: str, now: int) -> Message:
    letter = DeadLetter(
        reason=fault.reason, topic="http", partition=0, offset=fault.line, at=now,
        key=actor.encode(), value=fault.value[:MAX_EVENT_BYTES], size=len(fault.value),
    )  # fmt: skip
    return Message(b"http", msgspec.json.encode(letter))


def _answer(accepted: int, refused: int, faults: Sequence[Fault]) -> Response:
    errors = [{"line": fault.line, "reason": fault.reason} for fault in faults]
    said = {"accepted": accepted, "refused": refused, "errors": errors}
    return answer(said, 202 if accepted else 400)
