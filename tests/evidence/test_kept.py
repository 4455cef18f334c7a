"""What was measured before is taken as it was, only on demand, and never for another cell."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from evidence import __main__ as program
from evidence import kept
from evidence.cells import Cell, Tally, World
from evidence.scenarios.base import Scenario
from evidence.worlds import coin_rows


class Counting:
    """A judge that counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def __call__(self, _rows: object) -> int | None:
        self.asked += 1
        return None if self.asked % 3 else 40


@pytest.fixture(autouse=True)
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the one of the last real run; and one process, whose judge can be seen."""
    monkeypatch.setattr(kept, "FILE", tmp_path / "build" / "runs.json")
    monkeypatch.setattr(program, "play", lambda cells, **_: [_played(cell) for cell in cells])


def _played(cell: Cell) -> Tally:
    return Tally(cell, tuple(cell.play(run) for run in range(cell.runs)))


def scenario(judge: Counting, *names: str, runs: int = 9) -> Scenario:
    """Worlds of one judge."""
    world: World = partial(coin_rows, n=50, rate=0.5)
    cells = [Cell("S0", "t", name, "r", world, judge, runs, since=10) for name in names]
    return Scenario("S0", "title", "truth", "reading", cells=tuple(cells))


def run(monkeypatch: pytest.MonkeyPatch, made: Scenario, out: Path, *more: str) -> bytes:
    """Run the program on one scenario; the document."""
    monkeypatch.setattr(program, "SCENARIOS", (made,))
    program.main(["--output", str(out), *more])
    return out.read_bytes()


def test_a_second_run_measures_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a cell is added at the cost of all the others, or an old one is lost."""
    first, second = Counting(), Counting()
    before = run(monkeypatch, scenario(first, "a"), tmp_path / "1.md", "--keep")

    same = run(monkeypatch, scenario(second, "a"), tmp_path / "1.md", "--keep")
    run(monkeypatch, scenario(second, "a", "b"), tmp_path / "2.md", "--keep")

    assert (9, 9, True) == (first.asked, second.asked, before == same)


@pytest.mark.parametrize(("more", "runs"), [((), 9), (("--keep",), 12)])
def test_without_the_wish_or_for_more_runs_it_measures(
    more: tuple[str, ...], runs: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a changed detector is reported with the figures of the old one."""
    run(monkeypatch, scenario(Counting(), "a"), tmp_path / "1.md", "--keep")
    judge = Counting()

    run(monkeypatch, scenario(judge, "a", runs=runs), tmp_path / "2.md", *more)

    assert runs == judge.asked
