"""Runs that were measured before, so that one new cell does not cost all the others again.

Kept beside the build, never committed, and used only on demand (`--keep`): nothing here notices
that a detector was changed since. The document that is committed is to be written without it, or
with cells that were all measured on the same detectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf
from pathlib import Path

import msgspec

from evidence.cells import RUN, Cell, Tally
from evidence.scenarios.base import Finding

FILE = Path(__file__).parents[1] / "build" / "evidence-runs.json"


class Kept(msgspec.Struct):
    """All that was measured, by name."""

    rows: dict[str, list[int]] = {}
    """Row of the alarm of each run of a cell; -1: never."""
    delays: dict[str, list[float]] = {}
    """The delays of the same runs; -1: never."""
    findings: dict[str, list[Finding]] = {}


def _name(cell: Cell, runs: int) -> str:
    return " | ".join((cell.scenario, cell.table, cell.world_name, cell.rival, str(runs)))


def load() -> Kept:
    """What was kept; nothing when there is no file."""
    return msgspec.json.decode(FILE.read_bytes(), type=Kept) if FILE.exists() else Kept()


def runs_of(kept: Kept, cell: Cell) -> list[RUN] | None:
    """The runs of a cell as often as it is to be run; None: it has to be measured."""
    name = _name(cell, cell.runs)
    if name not in kept.rows:
        return None
    pairs = zip(kept.rows[name], kept.delays[name], strict=True)
    return [(row, inf if delay < 0 else delay) for row, delay in pairs]


def save(kept: Kept, tallies: Sequence[Tally], found: Mapping[str, list[Finding]]) -> None:
    """Keep what was measured, over what was kept."""
    for tally in tallies:
        name = _name(tally.cell, tally.n)
        kept.rows[name] = [row for row, _ in tally.runs]
        kept.delays[name] = [-1.0 if delay == inf else delay for _, delay in tally.runs]
    kept.findings |= found
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_bytes(msgspec.json.encode(kept))
