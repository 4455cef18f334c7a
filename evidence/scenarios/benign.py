"""S3: changes that stay below the limit, and how ADWIN had to be set to sit them out."""

from __future__ import annotations

from functools import partial

from detectors.adwin import Adwin
from evidence.cells import Cell, Promise, World
from evidence.rivals.lineup import ADWIN, OURS, TUNED, TUNED_DELTA, rate_rivals
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Scenario, alarms, none_seen
from evidence.worlds import coin_rows, ramp, step, wave

N = 30_000
TABLE = "Limit .02, 30,000 rows"
LADDER = "ADWIN's delta, where nothing may alarm"


def _world(level: object) -> World:
    return lambda seed: coin_rows(seed, N, level)


WORLDS = {
    "step .010 → .018": (_world(step(0.010, 0.018, 15_000, N)), 0.5),
    "daily wave .010 ± .008": (_world(wave(0.010, 0.008, 10_000, N)), 0.05),
    "slow ramp .008 → .019": (_world(ramp(0.008, 0.019, 0, N, N)), 0.2),
}
"""With the share of alarms of ADWIN that has to be seen for our claim about it to stand."""


def _cells() -> list[Cell]:
    cells = []
    for name, (world, least) in WORLDS.items():
        promised = {OURS: none_seen(), ADWIN: (Promise("alarms", least=least),)}
        cells += alarms("S3", TABLE, name, world, rate_rivals(1000), promised)
        for delta in (1e-5, 1e-7, 1e-8, TUNED_DELTA):
            label = TUNED if delta == TUNED_DELTA else f"delta {delta:g}"
            judge = shipped(partial(Adwin, delta=delta))
            cells.append(Cell("S3", LADDER, name, label, world, judge, 400, 10,
                              promises=(Promise("alarms", most=0.025),)
                              if delta == TUNED_DELTA else ()))  # fmt: skip
    return cells


S3 = Scenario(
    "S3", "Harmless change", "no rollback is due: the share of bad rows moves, but below its limit",
    "A change is not a fault. Whoever knows no limit must choose between firing on harmless change "
    f"and a setting (delta {TUNED_DELTA:g}) that only hindsight gives.",
    cells=tuple(_cells()),
)  # fmt: skip
