"""Serves the application in this process, beside the roles, until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import FastAPI

from service.config import HttpSettings, is_loopback
from service.web.auth import uses_tokens

BACKLOG = 512
GRACE_S = 3
"""How long requests under way may take to end, seconds."""


class ListenFault(RuntimeError):
    """The address cannot be served; the text says why and what to do."""


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # Signals belong to the process that hosts all roles, not to one of them.
        yield


class WebWorker:
    """Owns the listening socket.

    Parameters
    ----------
    listen : str or None
        `ADDRESS:PORT` in place of the settings'; port 0 takes any free one.
    """

    def __init__(self, app: FastAPI, settings: HttpSettings, listen: str | None = None) -> None:
        self._app = app
        self._settings = settings
        self._listen = listen or settings.listen
        self._socket: socket.socket | None = None

    def bind(self) -> str:
        """Open the address and return `host:port` as it is.

        Raises
        ------
        ListenFault
            When it is taken, or open to others without tokens.
        """
        host, _, port = self._listen.rpartition(":")
        name = host.strip("[]")
        if not name or not port.isdigit():
            raise ListenFault(f"http.listen is {self._listen!r}; it must be ADDRESS:PORT")
        if not is_loopback(name) and not uses_tokens(self._settings):
            raise ListenFault(
                f"{self._listen} can be reached by others and nobody needs a token; "
                "set http.tokens, or listen on 127.0.0.1"
            )
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        made = socket.socket(family, socket.SOCK_STREAM)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            made.bind((name, int(port)))
            # Now, so that a caller who comes while the rest starts waits and is not refused.
            made.listen(BACKLOG)
        except (OSError, OverflowError) as fault:
            made.close()
            reason = getattr(fault, "strerror", None) or fault
            raise ListenFault(
                f"{self._listen} cannot be opened ({reason}); choose another with --listen"
            ) from None
        self._socket = made
        bound = made.getsockname()
        return f"{host}:{bound[1]}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serve until `stop`. Binds first if `bind` was not called."""
        if self._socket is None:
            self.bind()
        assert self._socket is not None  # noqa: S101 - bind sets it or raises
        config = uvicorn.Config(
            self._app, log_config=None, access_log=False, lifespan="off", server_header=False,
            timeout_graceful_shutdown=GRACE_S, timeout_keep_alive=15, ws="none", backlog=BACKLOG,
            proxy_headers=False,
        )  # fmt: skip
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[self._socket]))
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            if (feed := getattr(self._app.state, "feed", None)) is not None:
                await feed.close()
            server.should_exit = True
            await serving
            self._socket.close()
