"""S9 and S10: a tail latency, and a loss that is more or less rather than good or bad."""

from __future__ import annotations

from functools import partial

from detectors.adwin import Adwin
from detectors.mean_guard import MeanGuard
from detectors.page_hinkley import PageHinkley
from detectors.quantile_guard import QuantileGuard
from evidence.cells import Cell, Promise
from evidence.rivals.lineup import ADWIN, OURS, Rival
from evidence.rivals.naive_quantile import rolling, running_p2
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Scenario, alarms, delays, within_alpha
from evidence.scenarios.boundary import P99
from evidence.worlds import betas, latencies, step

LATENCY = "p99 limit; log-normal latencies, sigma .6"
P2, ROLLING = "running p99 (P2) above the limit", "p99 of the last 1,000 rows, a tenth above"
BAD = (Promise("alarms", least=0.5),)
SLOWER = {1.1: 6_200, 1.2: 1_350, 1.5: 160}
MEAN_LIMIT = 0.12
WORSE = {(0, 0.13): 1_000, (0, 0.14): 240, (0, 0.18): 36,
         (5_000, 0.13): 2_200, (5_000, 0.14): 590, (5_000, 0.18): 125}  # fmt: skip


def _quantile_rivals(ours: int) -> list[Rival]:
    return [
        Rival(OURS, shipped(lambda: QuantileGuard(quantile=0.99, limit=P99)), ours, 60),
        Rival(P2, running_p2(P99), 200, 20),
        Rival(ROLLING, rolling(P99), 200, 20),
    ]


def _latency() -> list[Cell]:
    cells = alarms("S9", f"{LATENCY}; 20,000 rows exactly at the limit", "share of alarms",
                   lambda seed: latencies(seed, 20_000, 1.0), _quantile_rivals(4000),
                   {OURS: within_alpha(), P2: BAD, ROLLING: BAD})  # fmt: skip
    for factor, most in SLOWER.items():
        promised = {OURS: (Promise("median", most=most),)}
        cells += delays("S9", f"{LATENCY}; slow from the first row: rows to the alarm",
                        f"p99 {factor - 1:.0%} above",
                        partial(latencies, n=20_000, factor=factor),
                        _quantile_rivals(300), 0, promised)  # fmt: skip
    return cells


def _mean_rivals(ours: int) -> list[Rival]:
    return [
        Rival(OURS, shipped(lambda: MeanGuard(limit=MEAN_LIMIT)), ours, 60),
        Rival(ADWIN, shipped(Adwin), 200, 20),
        Rival("Page-Hinkley 50", shipped(PageHinkley), 200, 20),
    ]


def _loss() -> list[Cell]:
    cells = alarms("S10", "Limit .12, Beta losses; 20,000 rows", "mean .12: share of alarms",
                   lambda seed: betas(seed, 20_000, MEAN_LIMIT), _mean_rivals(4000),
                   {OURS: within_alpha()})  # fmt: skip
    cells += alarms("S10", "Limit .12, Beta losses; 20,000 rows", "harmless step .08 → .11",
                    lambda seed: betas(seed, 20_000, step(0.08, 0.11, 10_000, 20_000)),
                    _mean_rivals(1000), {OURS: within_alpha()})  # fmt: skip
    for (past, worse), most in WORSE.items():
        before = f"healthy .11 for {past:,} rows, then" if past else "from the first row"
        n = past + 10_000
        promised = {OURS: (Promise("median", most=most),)}
        cells += delays("S10", f"Limit .12, Beta losses; {before}: rows to the alarm",
                        f"mean {worse:g}",
                        partial(betas, n=n, mean=step(0.11, worse, past, n)),
                        _mean_rivals(300), past, promised)  # fmt: skip
    return cells


S9 = Scenario(
    "S9", "Tail latency", "no rollback is due at the limit; one is due above it",
    "An estimate of p99 lies above the truth half of the time, so a rule on estimates fires on "
    "healthy versions; a count of exceedances against 1 % does not.",
    cells=tuple(_latency()),
)  # fmt: skip

S10 = Scenario(
    "S10", "A bounded loss", "no rollback is due up to the limit; one is due above it",
    "Scores, errors and costs are judged without cutting them to good or bad.",
    cells=tuple(_loss()),
)  # fmt: skip
