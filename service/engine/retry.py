"""Calling again until it works: the engines' one back-off.

Why. A handler that raises must see the same messages again, and so must a database that is locked
or a disk that is full: nothing is skipped, and nothing is tried so often that it makes things
worse. One burst of failures is one line in the log, whatever its length; the count is a metric.

Refused here: giving up. Only a stop ends it, and then what was not done is left for the next start.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog
from prometheus_client import Counter

T = TypeVar("T")

FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 5.0

log = structlog.get_logger(__name__)


class Stopped(Exception):
    """The engine is stopping: what was to be tried again is left undone."""


class Retry:
    """The back-off of one stage; `errors` is counted under its name.

    Parameters
    ----------
    stage : str
        Name of the group, as a metric label and in the log.
    errors : prometheus_client.Counter
        `Metrics.errors`.
    stopping : asyncio.Event
        Once set, a pause ends in `Stopped`.
    """

    def __init__(self, stage: str, errors: Counter, stopping: asyncio.Event) -> None:
        self._stage = stage
        self._errors = errors.labels(stage=stage)
        self._stopping = stopping
        self._failed: dict[str, int] = {}

    @property
    def failing(self) -> list[str]:
        """What does not work at the moment."""
        return sorted(self._failed)

    async def insist(
        self,
        what: str,
        attempt: Callable[[], Awaitable[T]],
        passes: tuple[type[Exception], ...] = (),
    ) -> T:
        """Await `attempt()` until it does not raise; `what` names it in the log.

        What is in `passes` comes through at once: trying again would not help.

        Raises
        ------
        Stopped
            When it failed and the engine is stopping.
        """
        while True:
            try:
                result = await attempt()
            except Exception as fault:
                if isinstance(fault, (Stopped, *passes)):
                    raise
                await self.pause(what, fault)
            else:
                self.worked(what)
                return result

    async def pause(self, what: str, fault: Exception) -> None:
        """Count a failure and wait: 0.1 s, then twice as long each time, at most 5 s.

        Raises
        ------
        Stopped
            When the engine is stopping, at once.
        """
        failed = self.failed(what, fault)
        pause_s = min(FIRST_PAUSE_S * 2 ** min(failed - 1, 10), LONGEST_PAUSE_S)
        try:
            await asyncio.wait_for(self._stopping.wait(), pause_s)
        except TimeoutError:
            return
        raise Stopped from fault

    def failed(self, what: str, fault: Exception) -> int:
        """Count a failure, log the first of a burst; return how many this burst has."""
        failed = self._failed[what] = self._failed.get(what, 0) + 1
        self._errors.inc()
        if failed == 1:
            log.error("failed, is tried again", stage=self._stage, what=what, exc_info=fault)
        return failed

    def worked(self, what: str) -> None:
        """End a burst of failures."""
        if failed := self._failed.pop(what, 0):
            log.info("works again", stage=self._stage, what=what, failed=failed)
