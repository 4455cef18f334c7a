"""When does a version fall silent, and when does it speak again? Exact to the line.

As in `watch`, a version is silent when another version of its model serves and it has not for more
than `max_silence`, or when no row of the model came for so long. The first shows on a line of the
model, the second may show on a line of any other, so the whole block's watermark is asked.

These are only the lines on which to judge; what silence means there is said by the core.
"""

from __future__ import annotations

import numpy as np

from service.ingest.find import Ints
from service.replay.join import Block
from service.replay.queue import NEVER, Part

_NONE: Ints = np.empty(0, np.int64)


class Silence:
    """The versions of one model."""

    def __init__(self, after_ms: int | None) -> None:
        # Without a policy no silence is ever judged.
        self._after_ms = 1 << 60 if after_ms is None else after_ms
        self._row_ms: int | None = None
        """Watermark at the model's newest row."""
        self._newest_ms: dict[str, int] = {}
        """Newest `served_at` of each version."""
        self._is_silent: dict[str, bool] = {}
        self._serves: dict[str, Ints] = {}
        self._falls: dict[str, Ints] = {}
        self._speaks: dict[str, Ints] = {}

    def take(self, block: Block, parts: tuple[Part, Part, Part], versions: list[str]) -> None:
        """Find where versions fall silent and speak in a block, given the model's rows there."""
        self._serves, self._falls, self._speaks = {}, {}, {}
        if not len(block.lines):
            return
        own = np.unique(np.concatenate([part.lines for part in parts]))
        gaps = self._gaps(block, own)
        points = np.concatenate((own, gaps))
        order = np.argsort(points)
        served = parts[0]
        newest_ms = _running(max(self._newest_ms.values(), default=0), served.rows["served_ms"])
        newest_ms = newest_ms[np.searchsorted(served.lines, own, side="right")]
        for code, name in enumerate(versions):
            rows = np.flatnonzero(served.rows["version"] == code)
            if len(rows) or name in self._newest_ms:
                silent = self._silent_at(name, own, newest_ms, served, rows)
                flags = np.concatenate((silent, np.ones(len(gaps), np.bool_)))[order]
                self._change(name, points[order], flags)

    def _gaps(self, block: Block, own: Ints) -> Ints:
        """Lines on which so much time has passed without any row of the model."""
        begins, known_ms = own, self._row_ms
        limit_ms = block.marks[np.searchsorted(block.lines, own)] + self._after_ms
        if known_ms is not None:
            begins = np.concatenate(([0], own))
            limit_ms = np.concatenate(([known_ms + self._after_ms], limit_ms))
        if not len(begins):
            return _NONE
        self._row_ms = int(limit_ms[-1]) - self._after_ms
        # The watermark just before the model's next row, or at the block's end.
        before = np.searchsorted(block.lines, begins[1:]) - 1
        ends_ms = np.where(before >= 0, block.marks[np.maximum(before, 0)], block.before_ms)
        passed = np.append(ends_ms, block.marks[-1]) > limit_ms
        if known_ms is not None and block.before_ms > limit_ms[0]:
            passed[0] = False  # it passed in an earlier block
        lines: Ints = block.lines[np.searchsorted(block.marks, limit_ms[passed], side="right")]
        return lines

    def _silent_at(
        self, name: str, own: Ints, newest_ms: Ints, served: Part, rows: Ints
    ) -> np.ndarray:
        """Whether others served and it did not, at each line of the model."""
        self._serves[name] = served.lines[rows]
        known_ms = self._newest_ms.get(name, NEVER)  # before its first row it is not silent
        times_ms = served.rows["served_ms"][rows]
        last_ms = np.concatenate(([known_ms], np.maximum.accumulate(times_ms)))
        if name in self._newest_ms:
            last_ms = np.maximum(last_ms, known_ms)
        self._newest_ms[name] = int(last_ms[-1])
        last_ms = last_ms[np.searchsorted(self._serves[name], own, side="right")]
        silent: np.ndarray = newest_ms - last_ms > self._after_ms
        return silent

    def _change(self, name: str, lines: Ints, flags: np.ndarray) -> None:
        if not len(lines):
            return
        changed = flags != np.concatenate(([self._is_silent.get(name, False)], flags[:-1]))
        self._is_silent[name] = bool(flags[-1])
        self._falls[name], self._speaks[name] = lines[changed & flags], lines[changed & ~flags]

    def silent_after(self, version: str, line: int) -> int:
        """First line after this one on which a version falls silent."""
        return _first(self._falls.get(version), line)

    def speaks_after(self, version: str, line: int) -> int:
        """First line after this one on which a silent version, or a new one, is heard."""
        return min(_first(self._speaks.get(version), line), _first(self._serves.get(version), line))


def _running(known_ms: int, times_ms: Ints) -> Ints:
    """Highest time before the first row, and after each."""
    highest: Ints = np.maximum.accumulate(np.concatenate(([known_ms], times_ms)))
    return highest


def _first(lines: Ints | None, after: int) -> int:
    if lines is None:
        return NEVER
    at = int(np.searchsorted(lines, after, side="right"))
    return int(lines[at]) if at < len(lines) else NEVER
