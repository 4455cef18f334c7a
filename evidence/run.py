"""Play the runs of all cells on some processes; the same tallies however they are spread.

Workers are forked, so cells need not be picklable: a task is a cell's number and a range of runs.
"""

from __future__ import annotations

import multiprocessing as mp
from collections.abc import Sequence

from rich.progress import Progress

from evidence.cells import RUN, Cell, Tally

CHUNK_RUNS = 20
_cells: Sequence[Cell] = ()
Task = tuple[int, int, int]


def _play(task: Task) -> tuple[Task, list[RUN]]:
    cell, first, end = task
    return task, [_cells[cell].play(run) for run in range(first, end)]


def play(cells: Sequence[Cell], *, quick: bool, workers: int, progress: Progress) -> list[Tally]:
    """Run every cell, in the order given."""
    global _cells
    _cells = cells
    tasks: list[Task] = []
    for number, cell in enumerate(cells):
        runs = min(cell.runs, cell.quick_runs) if quick else cell.runs
        tasks += [(number, at, min(at + CHUNK_RUNS, runs)) for at in range(0, runs, CHUNK_RUNS)]
    played: dict[Task, list[RUN]] = {}
    bar = progress.add_task("runs", total=sum(end - first for _, first, end in tasks))
    with mp.get_context("fork").Pool(workers) as pool:
        for task, runs_of_task in pool.imap_unordered(_play, tasks):
            played[task] = runs_of_task
            progress.advance(bar, len(runs_of_task))
    found: list[list[RUN]] = [[] for _ in cells]
    for task in tasks:
        found[task[0]] += played[task]
    return [Tally(cell, tuple(runs)) for cell, runs in zip(cells, found, strict=True)]
