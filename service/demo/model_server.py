"""A model behind HTTP: `POST /predict` with features, answered with score, class and time taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from service.clock import Clock
from service.demo import http1
from service.demo.models import Model


class Asked(msgspec.Struct):
    """Body of a request."""

    features: dict[str, int]


class Answer(msgspec.Struct):
    """Body of a reply."""

    version: str
    score: float
    prediction: int
    latency_ms: float
    """From the request's last byte to the answer, inside this server."""


@asynccontextmanager
async def serve_model(model: Model, clock: Clock) -> AsyncIterator[int]:
    """Serve a model while the block lasts; gives the port."""

    async def handle(message: http1.Message) -> http1.Reply:
        if not message.route.startswith("POST /predict"):
            return 200, {}, b"ok"  # a router's look whether we live
        started_s = clock.monotonic_s()
        try:
            asked = msgspec.json.decode(message.body, type=Asked)
        except (msgspec.MsgspecError, UnicodeDecodeError):
            return 400, {}, b"the body is not {features: {name: code}}"
        score = model.score(asked.features)
        took_ms = 1000 * (clock.monotonic_s() - started_s)
        answer = Answer(model.version, round(score, 4), int(score > 0.5), round(took_ms, 3))
        return 200, {"content-type": "application/json"}, msgspec.json.encode(answer)

    listener = http1.listen()
    port: int = listener.getsockname()[1]
    server = await http1.serve(handle, listener)
    try:
        yield port
    finally:
        server.close()
        await asyncio.sleep(0)


__all__ = ["Answer", "Asked", "serve_model"]
