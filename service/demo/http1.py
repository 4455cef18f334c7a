"""HTTP/1.1 between client, router and model servers, as far as this demonstration needs it.

Bodies have a length, connections are kept, everything is on loopback. It exists because a general
client costs about a millisecond of processor time per request, and the daemon that is being shown
runs in the same process.

Refused here: chunks, pipelining, TLS, and talking to anything that this package did not start.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from typing import NamedTuple

BODY_LIMIT = 1024 * 1024


class Message(NamedTuple):
    """A request or a reply."""

    first: str
    """`POST /predict HTTP/1.1` or `HTTP/1.1 200 OK`."""
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes

    @property
    def status(self) -> int:
        """Status of a reply."""
        return int(self.first.split(" ", 2)[1])

    @property
    def route(self) -> str:
        """Method and path of a request."""
        return self.first.rpartition(" ")[0]


class Broken(ConnectionError):
    """What came is no message that is understood here."""


Reply = tuple[int, Mapping[str, str], bytes]
Handle = Callable[[Message], Awaitable[Reply]]


async def read(reader: asyncio.StreamReader) -> Message | None:
    """Read one message; None when the other side has finished.

    Raises
    ------
    ConnectionError
        When it breaks off or is not understood.
    """
    try:
        head = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as fault:
        if not fault.partial:
            return None
        raise Broken("it broke off") from None
    except asyncio.LimitOverrunError:
        raise Broken("its head is too long") from None
    first, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or int(length) > BODY_LIMIT:
        raise Broken("its length is not understood")
    try:
        return Message(first, headers, await reader.readexactly(int(length)))
    except asyncio.IncompleteReadError:
        raise Broken("it broke off") from None


def write(first: str, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Write one message."""
    lines = [first, *(f"{name}: {value}" for name, value in headers.items())]
    lines += [f"content-length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


async def serve(handle: Handle, listener: socket.socket) -> asyncio.Server:
    """Answer with `handle` on a socket that listens, connection after connection."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Connections end when clients, routers or the whole demonstration stop: no news.
        with contextlib.suppress(ConnectionError, asyncio.CancelledError):
            while (message := await read(reader)) is not None:
                status, headers, body = await handle(message)
                writer.write(write(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", body, headers))
                await writer.drain()
        writer.close()

    return await asyncio.start_server(talk, sock=listener)


def listen(port: int = 0) -> socket.socket:
    """Bind a loopback port; 0 takes any that is free.

    Raises
    ------
    OSError
        When it is taken.
    """
    bound = socket.socket()
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        bound.bind(("127.0.0.1", port))
    except OSError:
        bound.close()
        raise
    bound.listen(128)
    return bound


class Line:
    """One kept connection of a client; opened at the first question, and again when it broke."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def ask(self, route: str, body: bytes = b"") -> Message:
        """Send one request and await its reply; `route` is method and path.

        Raises
        ------
        OSError
            When there was no reply.
        """
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection("127.0.0.1", self._port)
            reader, writer = self._streams
            writer.write(write(f"{route} HTTP/1.1", body, {"host": "127.0.0.1"}))
            reply = await read(reader)
            if reply is None:
                raise Broken("it was closed")
        except BaseException:
            self.close()  # half an answer must not be taken for the next one's
            raise
        if reply.headers.get("connection", "").lower() == "close":
            self.close()
        return reply

    def close(self) -> None:
        """Hang up."""
        if self._streams is not None:
            self._streams[1].close()
        self._streams = None
