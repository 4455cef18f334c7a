"""When does a version fall silent, and when does it speak again? Exact to the line.

A version is silent once the watermark is more than `max_silence` beyond its newest prediction. That
may happen on a line of another version or model, so the whole block's watermark is asked.
"""

from __future__ import annotations

import numpy as np

from service.ingest.find import Ints
from service.replay.join import Block
from service.replay.queue import NEVER, Part


class Silence:
    """The versions of one model."""

    def __init__(self, after_ms: int | None) -> None:
        # Without a policy no silence is ever judged.
        self._after_ms = 1 << 60 if after_ms is None else after_ms
        self._newest_ms: dict[str, int] = {}
        self._falls: dict[str, Ints] = {}
        self._speaks: dict[str, Ints] = {}

    def take(self, block: Block, served: Part, versions: list[str]) -> None:
        """Find where each version falls silent in a block, given its predictions there."""
        self._falls, self._speaks = {}, {}
        if not len(block.lines):
            return
        code_of = {name: code for code, name in enumerate(versions)}
        present = served.rows["version"]
        for name in {*self._newest_ms, *(versions[code] for code in np.unique(present).tolist())}:
            rows = np.flatnonzero(present == code_of[name])
            self._speaks[name] = served.lines[rows]
            self._falls[name] = self._falls_of(block, name, served.lines[rows],
                                               served.rows["served_ms"][rows])  # fmt: skip

    def _falls_of(self, block: Block, name: str, lines: Ints, served_ms: Ints) -> Ints:
        known_ms = self._newest_ms.get(name)
        begins, newest_ms = lines, np.maximum.accumulate(served_ms)
        if known_ms is not None:
            begins = np.concatenate(([0], lines))
            newest_ms = np.maximum.accumulate(np.concatenate(([known_ms], served_ms)))
        self._newest_ms[name] = int(newest_ms[-1])
        limit_ms = newest_ms + self._after_ms
        # The watermark just before the next prediction of the version, or at the block's end.
        before = np.searchsorted(block.lines, begins[1:]) - 1
        ends_ms = np.where(before >= 0, block.marks[np.maximum(before, 0)], block.before_ms)
        ends_ms = np.append(ends_ms, block.marks[-1])
        falls = ends_ms > limit_ms
        if known_ms is not None and block.before_ms > limit_ms[0]:
            falls[0] = False  # it fell in an earlier block
        at = np.searchsorted(block.marks, limit_ms[falls], side="right")
        return np.maximum(block.lines[at], begins[falls])

    def silent_after(self, version: str, line: int) -> int:
        """First line after this one on which a version falls silent."""
        return _first(self._falls.get(version), line)

    def speaks_after(self, version: str, line: int) -> int:
        """First line after this one with a prediction of a version."""
        return _first(self._speaks.get(version), line)


def _first(lines: Ints | None, after: int) -> int:
    if lines is None:
        return NEVER
    at = int(np.searchsorted(lines, after, side="right"))
    return int(lines[at]) if at < len(lines) else NEVER
