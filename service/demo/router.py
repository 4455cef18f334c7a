"""The router of the demonstration: HAProxy where it is installed, else a small one made here.

Why. A rollback is shown by traffic, so something real must split it: both routers send each request
to one of two model servers by weight, and each answer carries the weights in force
(`x-weights: v41=80,v42=20`), from which the client stamps its events. The release pipeline moves
weights through `shift`; rollbackd moves them only as it would anywhere, by its own adapters.

`start_router` gives HAProxy when its program is found; `adapter` of either is the configuration
that rollbackd needs to move it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from service.clock import Clock
from service.demo import haproxy, small_router


class Router(Protocol):
    """What the rest of the demonstration knows of a router."""

    name: str
    port: int
    adapter: dict[str, Any]
    """The entry under `adapters` by which rollbackd moves this router."""

    async def shift(self, shares: Mapping[str, int]) -> None:
        """Set who gets how many percent, as a release pipeline would."""
        ...

    async def served(self) -> dict[str, int]:
        """Requests given to each version so far, by the router's own count."""
        ...


def find_haproxy() -> str | None:
    """Path of the program; servers live in folders that an ordinary PATH leaves out."""
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
    return shutil.which("haproxy", path=path)


@asynccontextmanager
async def start_router(
    servers: Mapping[str, int], folder: Path, clock: Clock
) -> AsyncIterator[Router]:
    """Run a router over model servers while the block lasts; the first gets all at first.

    Parameters
    ----------
    servers : mapping
        Version -> port on loopback.
    folder : Path
        For its socket; the path must be short (a socket's is at most 107 bytes).
    """
    program = find_haproxy()
    if program is not None:
        async with haproxy.run(program, servers, folder, clock) as router:
            yield router
    else:
        async with small_router.run(servers, clock) as small:
            yield small


def read_weights(header: str) -> dict[str, float]:
    """Read `x-weights` as shares in [0, 1].

    Examples
    --------
    >>> read_weights("v41=60,v42=20")
    {'v41': 0.75, 'v42': 0.25}
    """
    pairs = (part.split("=") for part in header.split(","))
    weights = {version: float(weight) for version, weight in pairs}
    total = sum(weights.values())
    return {version: weight / total if total else 0.0 for version, weight in weights.items()}
