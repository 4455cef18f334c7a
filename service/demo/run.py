"""The demonstration, in order: train, serve, route, release a bad canary, see it being caught.

Everything here stands for a user's own systems: model servers, a router, a release pipeline, a
client. It talks to the daemon by HTTP only, as any producer does; who moves traffic back is the
daemon alone. It ends well only when the daemon says that traffic has confirmed the rollback.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import httpx2
from rich.console import Console

from service.clock import Clock, WallClock
from service.config import Config
from service.demo import http1, models, people
from service.demo.model_server import serve_model
from service.demo.release import Release
from service.demo.router import Router, start_router
from service.demo.screen import Screen
from service.demo.settings import demo_config
from service.demo.traffic import Traffic

LIMIT_S = 90.0
"""From the first moment to a verified rollback."""

StartDaemon = Callable[[Config], AbstractAsyncContextManager[Any]]


async def run_demo(once: bool, port: int, start_daemon: StartDaemon) -> int:
    """Run the demonstration; gives the exit code.

    Parameters
    ----------
    once : bool
        End after the rollback is verified; else serve on until Ctrl-C.
    port : int
        Of the daemon's API and page on loopback; 0 takes any that is free.
    start_daemon : callable
        Runs all roles with the given settings in this process while its block lasts.
    """
    console = Console()
    try:
        with http1.listen(port) as bound:
            port = bound.getsockname()[1]
    except OSError:
        console.print(f"Port {port} of 127.0.0.1 is taken; give another one with --port.")
        return 1
    screen = Screen(console, f"http://127.0.0.1:{port}/")
    with tempfile.TemporaryDirectory(prefix="rollbackd-demo-") as made, _signals() as stop:
        try:
            async with asyncio.timeout(LIMIT_S) as limit:
                return await _run(once, screen, Path(made), start_daemon, (stop, limit))
        except TimeoutError:
            screen.say(f"Not verified within {LIMIT_S:.0f} s: {screen.story.missing()}.")
        except RuntimeError as fault:
            screen.say(f"The demonstration cannot go on: {fault}")
    return 1


async def _run(
    once: bool, screen: Screen, folder: Path, start_daemon: StartDaemon,
    end: tuple[asyncio.Event, asyncio.Timeout],
) -> int:  # fmt: skip
    stop, limit = end
    clock, known = WallClock(), await asyncio.to_thread(people.load)
    pair = await asyncio.to_thread(models.train_pair, known.past)
    screen.models({
        "v41, as served": models.rates(pair.stable, known.present),
        "v42, as its notebook says": models.rates(pair.notebook, known.present),
        "v42, as served": models.rates(pair.canary, known.present),
    })  # fmt: skip
    async with _routed(pair, folder, clock) as router:
        config = demo_config(folder, _port_of(screen.address), router)
        api = httpx2.AsyncClient(base_url=screen.address, trust_env=False, timeout=10)
        async with api, start_daemon(config):
            screen.say(f"Router: {router.name} on port {router.port}. Page: {screen.address}")
            run_id = f"demo-{clock.now_ms()}"
            traffic = Traffic(known.present, router, api, clock, run_id)
            release = Release(screen, router, api, clock, traffic)
            with screen.live():
                return await _play(release, once, stop, limit)


async def _play(release: Release, once: bool, stop: asyncio.Event, limit: asyncio.Timeout) -> int:
    """Run traffic and release side by side until the end of either, or of patience."""
    async with asyncio.TaskGroup() as group:
        traffic = group.create_task(release.traffic.run())
        shares = group.create_task(release.follow_router())
        looks = group.create_task(release.follow_daemon())
        story = group.create_task(release.play())
        stopping = group.create_task(stop.wait())
        await asyncio.wait([story, stopping], return_when=asyncio.FIRST_COMPLETED)
        verified = release.screen.story.verified
        if verified:
            limit.reschedule(None)
            release.screen.summary()
            release.screen.say(release.traffic.report())
            if not once:
                release.screen.say(f"v41 serves on; {release.screen.address} (Ctrl-C ends)")
                await stop.wait()
        elif stop.is_set():
            release.screen.say(f"Stopped early: {release.screen.story.missing()}.")
        for task in (traffic, shares, looks, story, stopping):
            task.cancel()
    return 0 if verified else 1


@contextlib.asynccontextmanager
async def _routed(pair: models.Pair, folder: Path, clock: Clock) -> AsyncIterator[Router]:
    """Both models behind a router."""
    async with serve_model(pair.stable, clock) as v41, serve_model(pair.canary, clock) as v42:
        servers = {pair.stable.version: v41, pair.canary.version: v42}
        async with start_router(servers, folder, clock) as router:
            yield router


def _port_of(address: str) -> int:
    return int(address.rstrip("/").rpartition(":")[2])


@contextlib.contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """An event that Ctrl-C and a polite end set, so that all is put away in order."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    wanted = (signal.SIGINT, signal.SIGTERM)
    for number in wanted:
        loop.add_signal_handler(number, stop.set)
    try:
        yield stop
    finally:
        for number in wanted:
            loop.remove_signal_handler(number)
