"""The few fakes, named as such: each stands where a real thing cannot be made to fail at will."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from service.engine.base import Message


class PowerCut(BaseException):
    """Ends a step as SIGKILL would: nothing after it runs."""


class FakeEngine:
    """What a role says, in order; may fail before or after a message is on the log.

    The real engines prove the port (tests/contracts); here the point of failure is chosen.
    """

    def __init__(self, partitions: int = 1) -> None:
        self.said: list[tuple[str, Message]] = []
        self.registered: list[tuple[list[str], Any, str]] = []
        self.counts = {"observations": partitions, "predictions": 1, "outcomes": 1}
        self.fail_before: BaseException | None = None
        self.fail_after: BaseException | None = None

    def bulk(self, topics: Sequence[str], handler: Any, group: str) -> None:
        self.registered.append((list(topics), handler, group))

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        if self.fail_before is not None:
            fault, self.fail_before = self.fail_before, None
            raise fault
        self.said += [(topic, message) for message in messages]
        if self.fail_after is not None:
            fault, self.fail_after = self.fail_after, None
            raise fault

    async def partitions(self, topic: str) -> int:
        return self.counts[topic]

    def messages(self, topic: str) -> list[Message]:
        return [message for name, message in self.said if name == topic]
