"""What all fakes of platforms share: a door, a role, scripted faults, a list of calls.

A fake keeps a state, has a clock that the test moves, allows exactly what the role file in
`deploy/iam/` allows, and plays faults by a script. It is judged by the vendor's own client or
schema where there is one; each fake says which.
"""

import asyncio
import copy
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

SLOW_S = 8.0
ROLES = Path(__file__).parents[2] / "deploy" / "iam"


def role_file(kind: str) -> Any:
    """Read a role as it is shipped."""
    return json.loads((ROLES / f"{kind}.json").read_text())


class FakePlatform:
    """A platform behind HTTP. What differs is in `action_of`, `allows`, `proves` and `answer`.

    Parameters
    ----------
    now_s : callable
        Its clock, epoch seconds.
    """

    mutating: frozenset[str] = frozenset()
    """Actions that change something."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self.now_s = now_s
        self.state: dict[str, Any] = {}
        self.calls: list[str] = []
        """Every action that came, faults included."""
        self.written: list[str] = []
        """Every mutating call that came: action and body."""
        self.forbidden: list[str] = []
        """What came outside the role."""
        self.unproven = 0
        self.faults: list[Any] = []
        """Answers to the next writes in place of doing them: a status, (status, headers, body),
        `reset` (done, then no answer), `lost` (not done, no answer), `lie` (says yes, does
        nothing), `cut` (done, the answer breaks off), `slow` (done, the answer comes too late)."""
        self.read_faults: list[Any] = []
        self.before_write: Callable[[], None] | None = None
        """Somebody else's hand, between our last read and our write."""
        self.url = ""

    def action_of(self, request: web.Request, body: Any) -> str:
        """Name the action that a request is, as the role file names it."""
        raise NotImplementedError

    def allows(self, action: str, request: web.Request, body: Any) -> bool:
        """Ask the role file."""
        raise NotImplementedError

    def proves(self, request: web.Request, body: bytes) -> bool:
        """Check the credentials."""
        raise NotImplementedError

    def answer(self, action: str, request: web.Request, body: Any) -> web.Response:
        """Do it."""
        raise NotImplementedError

    def refuse(self, status: int, text: str) -> web.Response:
        """Say no in this platform's form."""
        return web.json_response({"error": {"code": status, "message": text}}, status=status)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        content = await request.read()
        body = json.loads(content) if content else None
        action = self.action_of(request, body)
        self.calls.append(action)
        if not self.proves(request, content):
            self.unproven += 1
            return self.refuse(401, "the credentials are not accepted")
        if not self.allows(action, request, body):
            self.forbidden.append(action)
            return self.refuse(403, f"{action} is not allowed")
        script = self.read_faults
        if action in self.mutating:
            self.written.append(f"{action} {content.decode()}")
            script = self.faults
            if self.before_write is not None:
                hand, self.before_write = self.before_write, None
                hand()
        fault = script.pop(0) if script else None
        if isinstance(fault, tuple):
            status, headers, text = fault
            return web.Response(status=status, headers=headers, text=text)
        if isinstance(fault, int):
            return self.refuse(fault, "scripted")
        if fault == "lost":
            return _break_off(request)
        before = copy.deepcopy(self.state)
        answer = self.answer(action, request, body)
        if fault == "lie":
            self.state = before
        if fault == "reset":
            return _break_off(request)
        if fault == "slow":
            await asyncio.sleep(SLOW_S)
        if fault == "cut":
            return await _cut(request, answer)
        return answer


def _break_off(request: web.Request) -> web.Response:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


async def _cut(request: web.Request, answer: web.Response) -> web.StreamResponse:
    whole = web.StreamResponse(status=answer.status)
    whole.content_length = 1000
    await whole.prepare(request)
    await whole.write(b'{"half":')
    return _break_off(request)


@asynccontextmanager
async def serving(platform: FakePlatform, socket: Path | None = None) -> AsyncIterator[None]:
    """Run a fake on loopback, or behind a Unix socket, while the block lasts."""
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", platform.handle)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        if socket is not None:
            await web.UnixSite(runner, str(socket)).start()
        else:
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            platform.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield
    finally:
        await runner.cleanup()
