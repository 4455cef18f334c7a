"""S5: a version that is bad from its very first row."""

from __future__ import annotations

from functools import partial

from detectors.canary_guard import CanaryGuard
from evidence.cells import Cell, Promise
from evidence.rivals.lineup import ADWIN, OURS, Rival, rate_rivals
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Scenario, delays
from evidence.scenarios.common_mode import paired_rivals
from evidence.worlds import coin_rows, paired_rows

TABLE = "Limit .02; bad rows from the first row on: rows to the alarm"
PAIRED = "Stable .02, canary 10 % of 20,000 rows: canary rows to the alarm"
MOST = {0.03: 3_000, 0.04: 850, 0.06: 200, 0.10: 75}
"""Four thousand runs, or the median itself would be told within ten rows only."""


def _single() -> list[Cell]:
    cells = []
    for rate, most in MOST.items():
        n = 20_000 if rate < 0.05 else 6_000
        promised: dict[str, tuple[Promise, ...]] = {
            OURS: (Promise("median", most=most), Promise("found", least=0.99))
        }
        if rate >= 0.06:
            promised[ADWIN] = (Promise("found", most=0.1),)
        cells += delays("S5", TABLE, f"{rate / 0.02:g} times: .{rate * 100:02.0f}",
                        partial(coin_rows, n=n, rate=rate),
                        rate_rivals(4000), 0, promised)  # fmt: skip
    return cells


def _paired() -> list[Cell]:
    cells = []
    for ratio, most in ((2.0, 1_600), (3.0, 400), (5.0, 140)):
        rivals = [
            *paired_rivals(400)[:3],
            Rival(f"{OURS}, share of traffic unknown", shipped(CanaryGuard), 400, 20),
        ]
        for rival in rivals:
            told = rival.name != rivals[-1].name
            cells.append(Cell(
                "S5", PAIRED, f"{ratio:g} times as bad", rival.name,
                partial(paired_rows, n=20_000, rate=0.02, ratio=ratio, share=0.1, told=told),
                rival.judge, min(rival.runs, 400), 20, since=0, unit="canary rows",
                promises=(Promise("median", most=most),) if rival.name == OURS else (),
            ))  # fmt: skip
    return cells


S5 = Scenario(
    "S5", "Bad from the first row", "a rollback is due at once",
    "Detectors that compare a version with its own past have no healthy past to compare with, and "
    "never find it. Sooner than rollbackd are the peeked tests, which fire in S1 and S4 too, and "
    "by a little the plain e-process, which S6 undoes.",
    cells=(*_single(), *_paired()),
)  # fmt: skip
