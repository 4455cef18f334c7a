"""The document: the same bytes from the same seeds, and honest cells."""

from __future__ import annotations

from functools import partial
from math import inf
from pathlib import Path
from xml.etree import ElementTree

import pytest

from evidence import __main__ as program
from evidence.cells import Cell, Tally
from evidence.plots import false_alarm_plot
from evidence.report import share, text_of
from evidence.worlds import coin_rows


@pytest.mark.parametrize(
    ("runs", "since", "text"),
    [
        ([(-1, inf)] * 40, None, "0 [0, .0881] of 40"),
        ([(5, 6.0)] * 40, None, "1 [.91, 1] of 40"),
        ([(99, 50.0)] * 10, 50, "50 (50)"),
        ([(-1, inf)] * 10, 50, "never"),
        ([(99, 50.0)] * 6 + [(-1, inf)] * 4, 50, "50 (never); .40 missed"),
        ([(9, 0.0)] * 5 + [(99, 50.0)] * 5, 50, "50 (50); **.50 before the change**"),
        ([(9, 0.0)] * 5, 50, "**1 before the change**"),
    ],
)
def test_a_cell_says_what_was_missed_and_what_came_too_early(
    runs: list[tuple[int, float]], since: int | None, text: str
) -> None:
    """If this breaks, a delay hides false alarms or misses."""
    world = partial(coin_rows, n=1, rate=0.5)
    cell = Cell("S0", "t", "w", "r", world, lambda _: None, len(runs), since=since)

    assert text == text_of(Tally(cell, tuple(runs)))


def test_a_small_share_keeps_its_digits() -> None:
    """If this breaks, .0055 against .01 reads as 1 %."""
    assert (".0055", ".11", "0", "1") == tuple(share(x) for x in (0.0055, 0.11, 0.0, 1.0))


def test_a_second_run_writes_the_same_bytes(tmp_path: Path) -> None:
    """If this breaks, nobody can tell a changed detector from other luck."""
    documents = []
    for name, workers in (("one", "1"), ("two", "2")):
        out = tmp_path / name / "evidence.md"
        out.parent.mkdir()
        program.main(["--quick", "--only", "S4", "--output", str(out), "--workers", workers])
        documents.append(out.read_bytes())

    assert documents[0] == documents[1]


def test_the_picture_is_well_formed_and_shows_ours_first(tmp_path: Path) -> None:
    """If this breaks, the first thing that a reader sees is broken."""
    tallies = [
        Tally(Cell(number, "Limit .02", world, rival, partial(coin_rows, n=1, rate=0.5),
                   lambda _: None, 9), tuple(runs))
        for number, world in (("S1", "share of bad rows .020"), ("S3", "step .010 → .018"))
        for rival, runs in (("DDM", [(3, 4.0)] * 9), ("rollbackd", [(-1, inf)] * 9))
    ]  # fmt: skip

    picture = false_alarm_plot(tallies)

    assert picture is not None
    ElementTree.fromstring(picture)  # noqa: S314
    assert 2 == picture.count(">rollbackd<") == picture.count(">DDM<")
    assert picture.index(">rollbackd<") < picture.index(">DDM<")
