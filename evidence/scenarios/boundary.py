"""S1 and S2: a version exactly at its limit for 100,000 rows, and a healthy one."""

from __future__ import annotations

from functools import partial

import numpy as np

from detectors.canary_guard import CanaryGuard
from detectors.mean_guard import MeanGuard
from detectors.quantile_canary import QuantileCanary
from detectors.quantile_guard import QuantileGuard
from detectors.rate_guard import RateGuard
from evidence.cells import Cell, Judge, Promise, World
from evidence.rivals.lineup import LIMIT, OURS, rate_rivals
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import ALPHA, Scenario, alarms, none_seen, within_alpha
from evidence.worlds import betas, coin_rows, latencies, paired_latencies, paired_rows

N = 100_000
LOOSE = 0.05
"""Another budget, to see that it is one."""
P99 = float(np.exp(4 + 2.3263 * 0.6))
"""Of the log-normal latencies."""
BAD = Promise("alarms", least=0.03)
"""At least three times what was asked for, and the whole interval says so."""


def _world(rate: float) -> World:
    return lambda seed: coin_rows(seed, N, rate)


def _guards() -> list[tuple[str, World, Judge, int]]:
    """Each guard at its own limit."""
    paired = partial(paired_rows, n=N, rate=LIMIT, share=0.1)
    return [
        ("`rate`, share of bad rows = limit", _world(LIMIT),
         shipped(lambda: RateGuard(limit=LIMIT)), 4000),
        (f"`rate`, alpha {LOOSE:g}, limit .10, 20,000 rows",
         lambda seed: coin_rows(seed, 20_000, 0.1),
         shipped(lambda: RateGuard(limit=0.1, alpha=LOOSE)), 4000),
        ("`canary`, 1.15 times as bad as the stable, 10 % of traffic",
         lambda seed: paired(seed, ratio=1.15), shipped(CanaryGuard), 4000),
        ("`canary`, the same, share of traffic unknown",
         lambda seed: paired(seed, ratio=1.15, told=False), shipped(CanaryGuard), 1500),
        ("`quantile`, p99 = limit", lambda seed: latencies(seed, N, 1.0),
         shipped(lambda: QuantileGuard(quantile=0.99, limit=P99)), 4000),
        ("`quantile_canary`, p95 exactly 15 % slower, 20,000 rows",
         lambda seed: paired_latencies(seed, 20_000, 1.15, 0.1),
         shipped(lambda: QuantileCanary(quantile=0.95, stretch=1.15, margin=1.0)), 4000),
        ("`mean`, mean of Beta losses = limit, 50,000 rows", lambda seed: betas(seed, 50_000, 0.12),
         shipped(lambda: MeanGuard(limit=0.12)), 4000),
    ]  # fmt: skip


def _promised(name: str, runs: int) -> tuple[Promise, ...]:
    # Fewer runs could not decide it.
    return within_alpha(LOOSE if "alpha" in name else ALPHA) if runs >= 4000 else ()


def _ours() -> list[Cell]:
    return [
        Cell("S1", "rollbackd's guards, each at its own limit", "share of alarms", name, world,
             judge, runs, 60, promises=_promised(name, runs))
        for name, world, judge, runs in _guards()
    ]  # fmt: skip


S1 = Scenario(
    "S1", "At the limit, for ever", "no rollback is due: every version lies exactly on its limit",
    "What was promised is kept, with room; what is right at one look is wrong at a thousand.",
    cells=(
        *_ours(),
        *alarms("S1", "Limit .02, 100,000 rows", "share of bad rows .020", _world(LIMIT),
                rate_rivals(4000, 60), {
                    OURS: within_alpha(), "DDM": (BAD,), "EDDM": (BAD,), "z-test, peeked": (BAD,),
                    "Flagger, 5 checks": (BAD,), "Argo, bar at the limit": (BAD,)}),
    ),
)  # fmt: skip

S2 = Scenario(
    "S2", "Healthy", "no rollback is due: a quarter below the limit",
    "A healthy version is left alone. Detectors that know no limit do not know that it is healthy.",
    cells=tuple(alarms("S2", "Limit .02, 100,000 rows", "share of bad rows .015", _world(0.015),
                       rate_rivals(1000), {OURS: none_seen()})),
)  # fmt: skip
