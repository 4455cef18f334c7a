"""S4: the world turns worse for both versions, while the canary's traffic is ramped up."""

from __future__ import annotations

import numpy as np

from detectors.adwin import Adwin
from detectors.canary_guard import CanaryGuard
from evidence.cells import Cell, Promise, World
from evidence.rivals import asymptotic, peeked
from evidence.rivals.lineup import OURS, Rival, guard
from evidence.rivals.shipped import canary_alone, shipped
from evidence.scenarios.base import Scenario, alarms, within_alpha
from evidence.worlds import paired_rows, step

N = 20_000
MARGIN = 1.15
RAMP = np.repeat([0.01, 0.05, 0.25, 0.5], N // 4)
SHIFT = step(0.015, 0.06, 7_000, N)
TABLE = "The canary is as good as the stable; 20,000 rows"
UNKNOWN = f"{OURS}, share of traffic unknown"


def paired_rivals(ours: int = 4000) -> list[Rival]:
    """Who compares two versions, and who looks at the canary alone."""
    return [
        Rival(OURS, shipped(CanaryGuard), ours, 60),
        Rival("z-test, peeked, pooled", peeked.two_samples(MARGIN), 1000, 60),
        Rival("GrowthBook sequence, pooled", asymptotic.two_samples(MARGIN), 1000, 60),
        Rival("canary alone against limit .02", canary_alone(shipped(guard)), 400, 20),
        Rival("canary alone, ADWIN .002", canary_alone(shipped(Adwin)), 300, 20),
    ]


def _cells() -> list[Cell]:
    worlds: dict[str, World] = {
        "shift .015 → .06, ramp 1/5/25/50 %": lambda s: paired_rows(s, N, SHIFT, 1.0, RAMP),
        "the same shift, 10 % throughout": lambda s: paired_rows(s, N, SHIFT, 1.0, 0.1),
    }
    cells = []
    for i, (name, world) in enumerate(worlds.items()):
        promised = {OURS: within_alpha()}
        if i == 0:
            promised["z-test, peeked, pooled"] = (Promise("alarms", least=0.5),)
            promised["GrowthBook sequence, pooled"] = (Promise("alarms", least=0.3),)
            promised["canary alone against limit .02"] = (Promise("alarms", least=0.5),)
        cells += alarms("S4", TABLE, name, world, paired_rivals(), promised)
    cells += alarms("S4", TABLE, next(iter(worlds)),
                    lambda s: paired_rows(s, N, SHIFT, 1.0, RAMP, told=False),
                    [Rival(UNKNOWN, shipped(CanaryGuard), 2000, 40)],
                    {UNKNOWN: within_alpha()})  # fmt: skip
    return cells


S4 = Scenario(
    "S4", "A bad day for everybody",
    "no rollback is due: the canary is exactly as good as the stable at every moment",
    "A rollback would cure nothing. Pooled rates differ because most of the canary's rows came "
    "after the world had turned; a guard that asks whose a bad row was does not notice. A limit "
    "on the canary alone blames it for the weather.",
    cells=tuple(_cells()),
)  # fmt: skip
