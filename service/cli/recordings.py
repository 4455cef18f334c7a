"""Read recordings (`*.jsonl`, `*.jsonl.gz`, standard input) and append their events as they are.

What an event must look like is `ingest`'s affair. Here only its kind and key are found; a line for
which that cannot be done goes to `dead-letters` with its reason, so that nothing is lost.
"""

from __future__ import annotations

import asyncio
import gzip
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO

import msgspec
from msgspec import Struct
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from schemas.events import TOPIC_OF
from schemas.facts import DeadLetter
from schemas.wire import MAX_EVENT_BYTES, UNREADABLE, InvalidEvent, sort_of
from service.clock import Clock
from service.engine.base import Engine, Message

CHUNK = 5000
ORDER = ("rollouts", "predictions", "outcomes", "dead-letters")
"""Within a chunk plans go first: they take effect by their own time."""


class Sent(Struct):
    """What became of a recording's lines."""

    read: int = 0
    sent: int = 0
    refused: int = 0


class _Keyed(Struct):
    prediction_id: str | None = None
    model: str | None = None
    data: msgspec.Raw | None = None


_keyed = msgspec.json.Decoder(_Keyed)
_encode = msgspec.json.Encoder().encode


async def send_all(engine: Engine, clock: Clock, files: list[Path], console: Console) -> Sent:
    """Append every line of every file, in order, in chunks, each durable before the next."""
    sent = Sent()
    columns = (TextColumn("{task.description}"), BarColumn(),
               TextColumn("{task.completed} events"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("sending", total=None)
        for file in files:
            lines = _lines(file)
            while chunk := await asyncio.to_thread(list, islice(lines, CHUNK)):
                await _append(engine, clock, str(file), chunk, sent)
                bar.update(task, completed=sent.read)
    return sent


async def _append(
    engine: Engine, clock: Clock, source: str, chunk: list[tuple[int, bytes]], sent: Sent
) -> None:
    messages: dict[str, list[Message]] = {topic: [] for topic in ORDER}
    for number, line in chunk:
        sent.read += 1
        try:
            word = sort_of(line)
            messages[TOPIC_OF[word]].append(Message(_key_of(word, line), line))
            sent.sent += 1
        except InvalidEvent as fault:
            sent.refused += 1
            letter = DeadLetter(
                reason=str(fault), topic=f"recording:{source}", partition=0, offset=number,
                at=clock.now_ms(), value=line[:MAX_EVENT_BYTES], size=len(line),
            )  # fmt: skip
            messages["dead-letters"].append(Message(b"recording", _encode(letter)))
    for topic in ORDER:
        if messages[topic]:
            await engine.append(topic, messages[topic])


def _key_of(word: str, line: bytes) -> bytes:
    """The key under which an event travels; refuses an event without one."""
    try:
        event = _keyed.decode(line)
        if event.data is not None and event.prediction_id is None and event.model is None:
            event = _keyed.decode(event.data)
    except UNREADABLE as fault:
        raise InvalidEvent(f"{word} has no readable key: {fault}") from None
    key = event.model if word == "rollout" else event.prediction_id
    if not key:
        needed = "model" if word == "rollout" else "prediction_id"
        raise InvalidEvent(f"{word}.{needed}: found nothing, expected a text")
    return key.encode()


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    """Lines of a recording with their numbers, from 1; empty ones are left out."""
    if str(file) == "-":
        yield from _numbered(sys.stdin.buffer)
        return
    with open(file, "rb") as start:
        packed = start.read(2) == b"\x1f\x8b"
    stream: IO[bytes] = gzip.open(file, "rb") if packed else open(file, "rb")  # type: ignore[assignment]  # noqa: SIM115
    with stream:
        yield from _numbered(stream)


def _numbered(stream: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    for number, line in enumerate(stream, 1):
        if text := line.strip():
            yield number, text
