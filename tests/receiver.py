"""A real HTTP receiver on loopback that answers by a script and remembers what came."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import NamedTuple

from aiohttp import web


class Answer(NamedTuple):
    """What the receiver says to one request."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b"ok"
    after_s: float = 0.0
    breaks_off: bool = False
    """Close the connection in place of an answer."""


class Got(NamedTuple):
    """One request as it came."""

    method: str
    path: str
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes


class Receiver:
    """Answers by `script` in order, then by its last entry for ever."""

    def __init__(self, script: Sequence[Answer] = (Answer(),)) -> None:
        self.script = list(script)
        self.got: list[Got] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Remember, then answer."""
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.got.append(Got(request.method, request.path, headers, await request.read()))
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if answer.after_s:
            await asyncio.sleep(answer.after_s)
        if answer.breaks_off and request.transport is not None:
            request.transport.abort()
        return web.Response(status=answer.status, headers=answer.headers, body=answer.body)


@asynccontextmanager
async def receiving(*script: Answer) -> AsyncIterator[Receiver]:
    """Listen while the block lasts; `url` ends without a slash."""
    receiver = Receiver(script or (Answer(),))
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", receiver.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield receiver
    finally:
        await runner.cleanup()
