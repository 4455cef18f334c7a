"""A figure out of its promised range is named; one within it is not."""

from __future__ import annotations

from math import inf
from pathlib import Path

import numpy as np
import pytest

from evidence import __main__ as program
from evidence.cells import RUN, Cell, Promise, Tally
from evidence.check import judged, verdicts
from evidence.scenarios.base import Finding, Ratio, Scenario
from evidence.worlds import coin_rows, rows_of


def tally(runs: list[RUN], since: int | None = None, rival: str = "rollbackd") -> Tally:
    """Runs of a cell, made up."""
    made = Cell("S0", "table", "world", rival, lambda _seed: rows_of(np.zeros(1)),
                lambda _rows: None, len(runs), since=since)  # fmt: skip
    return Tally(made, tuple(runs))


ALARM, NEVER = (5, 6.0), (-1, inf)


@pytest.mark.parametrize(
    ("alarms", "runs", "quick", "held"),
    [
        (40, 4000, False, True),
        (48, 4000, False, False),  # upper end .0159
        (0, 60, False, False),  # so few runs prove nothing
        (0, 60, True, True),
        (2, 60, True, True),  # they do not contradict it either
        (5, 60, True, False),
    ],
)
def test_false_alarms_must_be_proven_rare_or_at_least_not_proven_frequent(
    alarms: int, runs: int, quick: bool, held: bool
) -> None:
    """If this breaks, CI lets a detector through that breaks its promise, or fails by chance."""
    measured = tally([ALARM] * alarms + [NEVER] * (runs - alarms))

    assert held == judged(measured, Promise("alarms", most=0.015), quick=quick).held


def test_a_median_beyond_its_range_is_told_with_the_cell() -> None:
    """If this breaks, a detector may grow slower unseen."""
    slow = tally([(300, 301.0)] * 30, since=0)

    verdict = judged(slow, Promise("median", most=200), quick=False)

    assert (False, "S0, rollbackd, world: median 301, promised median delay at most 200") == (
        verdict.held, str(verdict),
    )  # fmt: skip


def test_a_ratio_of_two_cells_is_checked() -> None:
    """If this breaks, we may fall behind ADWIN unseen."""
    scenario = Scenario("S0", "t", "t", "r", ratios=(Ratio("S0", "table", "world", "ADWIN", 1.6),))
    ours, theirs = (
        tally([(170, 170.0)] * 9, since=0),
        tally([(100, 100.0)] * 9, since=0, rival="ADWIN"),
    )

    (verdict,) = verdicts([scenario], [ours, theirs], quick=False)

    assert (False, "1.70 times") == (verdict.held, verdict.measured)


@pytest.mark.parametrize(("most", "code"), [(0.4, 1), (1.0, 0)])
def test_the_program_fails_when_a_cell_leaves_its_range_and_names_it(
    most: float, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """If this breaks, `make evidence` is green whatever was measured."""
    always = Cell("S0", "table", "a world", "hasty", lambda seed: coin_rows(seed, 100, 0.5),
                  lambda _rows: 3, 60, promises=(Promise("alarms", most=most),))  # fmt: skip
    scenario = Scenario("S0", "title", "truth", "reading", cells=(always,))
    monkeypatch.setattr(program, "SCENARIOS", (scenario,))

    assert code == program.main(["--output", str(tmp_path / "evidence.md"), "--workers", "1"])

    assert (code == 1) == ("S0, hasty, a world: 60 of 60" in capsys.readouterr().err)
    assert "1 [.94, 1] of 60" in (tmp_path / "evidence.md").read_text()


def test_a_finding_that_did_not_hold_fails_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, bits that differ after a crash are a footnote."""
    broken = Finding("table", "a crash", "healthy", "other bits", "the same bits", False)
    scenario = Scenario("S0", "title", "truth", "reading", measure=lambda _quick: [broken])
    monkeypatch.setattr(program, "SCENARIOS", (scenario,))

    assert 1 == program.main(["--output", str(tmp_path / "evidence.md")])

    assert "S0, a crash, healthy: other bits, promised the same bits" in capsys.readouterr().err
