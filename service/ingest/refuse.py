"""Refused input: dead letters, and an alert when there are too many.

A broken producer must not drain its topic into dead letters unseen: when the refused share of one
topic passes the limit within a minute, one alert goes out, and the next only after the share has
fallen below half of the limit.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import msgspec

from schemas.facts import DeadLetter, Progress
from schemas.ids import derive
from schemas.wire import MAX_EVENT_BYTES
from service.ingest.state import Parked

MINUTE_S = 60

ORPHANED = "outcome: no prediction came within its horizon"


class Letter(NamedTuple):
    """A refused message as it came."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes
    value: bytes


def dead_letter(letter: Letter, now_ms: int) -> bytes:
    """Write one for the topic."""
    return msgspec.json.encode(DeadLetter(
        reason=letter.reason, topic=letter.topic, partition=letter.partition, offset=letter.offset,
        at=now_ms, key=letter.key, value=letter.value[:MAX_EVENT_BYTES], size=len(letter.value),
    ))  # fmt: skip


def orphan_letter(partition: int, key: bytes, parked: Parked, now_ms: int) -> bytes:
    """Write one for an outcome that never met its prediction."""
    return msgspec.json.encode(DeadLetter(
        reason=ORPHANED, topic="outcomes", partition=partition, offset=parked.offset, at=now_ms,
        key=key, value=parked.value, size=parked.size,
    ))  # fmt: skip


class RefusedShare:
    """Refused share of each topic over the last minute.

    Parameters
    ----------
    limit : float or None
        Share in [0, 1] above which `too_many` says so; None: never.
    minimum : int
        Messages of that minute below which a share means nothing.
    """

    def __init__(self, limit: float | None, minimum: int) -> None:
        self._limit = limit
        self._minimum = minimum
        self._seconds: dict[str, deque[tuple[int, int, int]]] = {}
        self._alarmed: set[str] = set()

    def too_many(self, topic: str, seen: int, refused: int, now_s: float) -> float | None:
        """Count a batch; the share when it has just passed the limit, else None."""
        seconds = self._seconds.setdefault(topic, deque())
        second = int(now_s)
        if seconds and seconds[-1][0] == second:
            _, seen_before, refused_before = seconds.pop()
            seen, refused = seen + seen_before, refused + refused_before
        seconds.append((second, seen, refused))
        while seconds[0][0] <= second - MINUTE_S:
            seconds.popleft()
        total = sum(each[1] for each in seconds)
        share = sum(each[2] for each in seconds) / total if total else 0.0
        if self._limit is None:
            return None
        if topic in self._alarmed:
            if share < self._limit / 2:
                self._alarmed.discard(topic)
        elif total >= self._minimum and share > self._limit:
            self._alarmed.add(topic)
            return share
        return None


def page(topic: str, reason: str, text: str, now_ms: int) -> bytes:
    """Write what a person must hear about the intake of a topic, for `progress`."""
    incident = derive("intake", topic)
    return msgspec.json.encode(Progress(
        progress_id=derive("progress", incident, reason, now_ms), incident_id=incident, model="*",
        kind="paged", reason=reason, text=text, at=now_ms, evidence={"topic": topic},
    ))  # fmt: skip
