"""S11: when a canary may be promoted, and how long a good one waits."""

from __future__ import annotations

from functools import partial

from detectors.planning import promote_bad_rows
from detectors.promote_gate import PromoteGate
from evidence.cells import Cell, Promise
from evidence.rivals.lineup import OURS
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Scenario
from evidence.worlds import only_bad

BETA = 0.05
SHARES = (0.1, 0.25, 0.5)
N = 20_000
WRONGLY = "Share of canaries that were ever promoted, of 20,000 bad rows; promised: at most 5 %"
WAITS = "An equally good canary: bad rows of both arms to its promotion (requests: times fifty)"


def _cells() -> list[Cell]:
    cells = []
    for share in SHARES:
        name = f"canary {share:.0%} of traffic"
        for ratio, most in ((1.25, 0.062), (1.5, 0.015)):
            cells.append(Cell(
                "S11", WRONGLY, name, f"{OURS}, canary {ratio:g} times as bad",
                partial(only_bad, n=N, ratio=ratio, share=share),
                shipped(PromoteGate), 4000 if ratio == 1.25 else 1000, 60,
                promises=(Promise("alarms", most=most),)))  # fmt: skip
        for margin in (1.15, 1.25, 1.5, 2.0):
            planned = promote_bad_rows(margin, share, BETA)
            cells.append(Cell(
                "S11", WAITS, name, f"{OURS}, margin {margin:g}",
                partial(only_bad, n=int(8 * planned), ratio=1.0, share=share),
                shipped(partial(PromoteGate, margin)), 400, 20, since=0,
                unit="bad rows", promises=(Promise("median", most=round(planned)),)))  # fmt: skip
    return cells


S11 = Scenario(
    "S11", "Promotion", "never for a canary that is worse by the margin; soon for an equal one",
    "Being promoted needs proof, and the chance that a canary worse by the margin ever gets it is "
    "bounded. Half of the good ones wait at most as long as `rollbackd plan` says.",
    cells=tuple(_cells()),
)  # fmt: skip
