"""S8: labels that come late, at a pace that depends on what they say, or never.

One prediction at a time; a label comes an exponential delay later, whose mean depends on whether it
is bad news. *On arrival* judges labels in the order in which they come; *matured* judges each
prediction at the horizon by what is known then, where no label counts as good (a bad label that
comes later is not counted at all). *Optimistic* counts a prediction as good from the moment it is
made until its bad label comes. Delays are told in predictions made until the alarm.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from detectors.base import F64, Bool, Rows
from detectors.canary_guard import CanaryGuard
from detectors.rate_guard import RateGuard
from evidence.cells import Cell, Promise, World
from evidence.rivals import peeked
from evidence.rivals.conditional import conditional
from evidence.rivals.lineup import OURS, Rival
from evidence.rivals.optimistic import optimistic
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Scenario, within_alpha
from evidence.worlds import START_MS, STEP_MS

N = 20_000
LIMIT = 0.05
MATURED = f"{OURS}, matured"
OPTIMISTIC = f"{OURS}, optimistic"
ARRIVED = "the same guard, labels on arrival"
CONDITIONAL = f"{OURS}, conditional"
OURS_TWO = (MATURED, OPTIMISTIC)
ALL_KNOWN = "the same guard, all labels at once (no one has that)"


def _at(order: Any, clock: F64, loss: Any, canary: Any = None, share: float | None = None) -> Rows:
    """Rows in an order, each at its moment on the clock of predictions."""
    time_ms = START_MS + (clock[order] * STEP_MS).astype(np.int64)
    arms = None if canary is None else canary[order]
    weight = None if share is None else np.full(len(order), share)
    return Rows(loss[order].astype(np.float64), np.arange(len(order)), time_ms, arms, weight)


def _delays(rng: np.random.Generator, bad: Bool, of_bad: Any, of_good: float) -> F64:
    """Predictions until each label comes."""
    delays: F64 = rng.exponential(1.0, len(bad)) * np.where(bad, of_bad, of_good)
    return delays


def single(
    mode: str, rate: float, of_bad: float, of_good: float, horizon: int, missing: float = 0.0
) -> World:
    """One version; `missing` of the good labels never come."""

    def world(seed: Any) -> Rows:
        rng = np.random.default_rng(seed)
        bad = rng.random(N) < rate
        delay = _delays(rng, bad, of_bad, of_good)
        delay[~bad & (rng.random(N) < missing)] = np.inf
        served = np.arange(N, dtype=np.float64)
        if mode == ALL_KNOWN:
            return _at(np.arange(N), served, bad)
        if mode == OPTIMISTIC:
            return _at(np.arange(N), served, bad)._replace(weight=delay)
        if mode == MATURED:
            return _at(np.arange(N), served + horizon, bad & (delay <= horizon))
        arrives = served + delay
        order = np.argsort(arrives, kind="stable")
        # What comes after the last prediction would have come while others were made.
        return _at(order[arrives[order] <= N], arrives, bad)

    return world


def paired(mode: str, of_bad: float, of_good: float, horizon: int, faster: float) -> World:
    """Two equally good arms; the canary's bad labels come `faster` times as soon."""

    def world(seed: Any) -> Rows:
        rng = np.random.default_rng(seed)
        bad, canary = rng.random(N) < LIMIT, rng.random(N) < 0.5
        delay = _delays(rng, bad, np.where(canary, of_bad / faster, of_bad), of_good)
        served = np.arange(N, dtype=np.float64)
        if mode == CONDITIONAL:
            return _at(np.arange(N), served, np.where(bad, delay, 0.0), canary, 0.5)
        if mode == MATURED:
            return _at(np.arange(N), served + horizon, bad & (delay <= horizon), canary, 0.5)
        arrives = served + delay
        order = np.argsort(arrives, kind="stable")
        return _at(order[arrives[order] <= N], arrives, bad, canary, 0.5)

    return world


HEALTHY = {
    "rate .04, bad labels fast, good slow": (0.04, 500, 5_000, 2_500, 0.0),
    "rate .05, bad fast, good slow": (0.05, 500, 5_000, 2_500, 0.0),
    "rate .05, bad slow, good fast": (0.05, 5_000, 500, 15_000, 0.0),
    "rate .05, same pace": (0.05, 2_000, 2_000, 6_000, 0.0),
    "rate .05, a fifth of the good labels never comes": (0.05, 300, 300, 1_000, 0.2),
}
"""Rate, mean delays of bad and good labels, horizon, share of good labels that never come."""
WORSE = {
    "bad fast, good slow; horizon 2,500": (0.10, 500, 5_000, 2_500, 3_000, 1_650),
    "same pace; horizon 6,000": (0.10, 2_000, 2_000, 6_000, 6_700, 4_000),
    "bad slow, good fast; horizon 15,000": (0.10, 5_000, 500, 15_000, 15_800, 8_000),
    "soon, same pace; horizon 1,000": (0.10, 300, 300, 1_000, 1_500, 1_200),
}
"""The same without the last; then the most that matured and optimistic may take."""
TABLE = "Limit .05, 20,000 predictions: share of alarms"
FOUND = "Limit .05, true rate .10 from the first row: predictions made until the alarm"
ARMS = "Two equally good versions, half of the traffic each, rate .05: share of alarms"
PAIRED = {
    "the canary's bad labels come four times as soon": (4.0, within_alpha(), None),
    "both arms at one pace": (1.0, within_alpha(), within_alpha()),
}


def guard() -> RateGuard:
    """The guard of this scenario."""
    return RateGuard(limit=LIMIT)


def _of_one() -> list[Cell]:
    """One version, in every mode of labels."""
    arrived = Rival(ARRIVED, shipped(guard), 400, 20)
    peeking = Rival("z-test, peeked, labels on arrival", peeked.one_sample(LIMIT), 400, 20)
    cells = []
    for mode, rival in (
        (MATURED, Rival(MATURED, shipped(guard), 2000, 40)),
        (OPTIMISTIC, Rival(OPTIMISTIC, shipped(guard), 600, 20)),
        (ALL_KNOWN, Rival(ALL_KNOWN, shipped(guard), 400, 20)),
        (ARRIVED, arrived), (ARRIVED, peeking),
    ):  # fmt: skip
        for name, (rate, of_bad, of_good, horizon, missing) in HEALTHY.items():
            promised: tuple[Promise, ...] = within_alpha() if mode in OURS_TWO else ()
            if mode == ARRIVED and "good slow" in name:
                promised = (Promise("alarms", least=0.9),)
            judge = optimistic(LIMIT, horizon) if mode == OPTIMISTIC else rival.judge
            cells.append(Cell("S8", TABLE, name, rival.name,
                              single(mode, rate, of_bad, of_good, horizon, missing),
                              judge, rival.runs, rival.quick, promises=promised))  # fmt: skip
        for name, (rate, of_bad, of_good, horizon, *most) in WORSE.items():
            found: tuple[Promise, ...] = ()
            if mode in OURS_TWO:
                found = (Promise("median", most=most[OURS_TWO.index(mode)]),)
            judge = optimistic(LIMIT, horizon) if mode == OPTIMISTIC else rival.judge
            cells.append(Cell("S8", FOUND, name, rival.name,
                              single(mode, rate, of_bad, of_good, horizon), judge,
                              min(rival.runs, 300), rival.quick, since=0, unit="predictions",
                              promises=found))  # fmt: skip
    return cells


def _of_two() -> list[Cell]:
    """Two versions, matured, on arrival, and on arrival while delays are seen to be equal."""
    cells = []
    for name, (faster, of_matured, of_arrived) in PAIRED.items():
        for mode, promise in ((MATURED, of_matured), (ARRIVED, of_arrived)):
            cells.append(Cell("S8", ARMS, name, mode, paired(mode, 2_000, 2_000, 10_000, faster),
                              shipped(CanaryGuard), 2000, 40, promises=promise or ()))  # fmt: skip
        cells.append(Cell("S8", ARMS, name, CONDITIONAL,
                          paired(CONDITIONAL, 2_000, 2_000, 10_000, faster), conditional(10_000),
                          1000, 20, promises=within_alpha()))  # fmt: skip
    return cells


S8 = Scenario(
    "S8", "Late labels", "as each table says; the share of bad predictions is what counts",
    "Judged as they arrive, labels that hurry make a healthy version look bad to every test. "
    "Judged at the horizon the promise holds, and the price is to wait for it; counting what has "
    "no label yet as good keeps the promise too, and costs less. Between two versions, labels on "
    "arrival are trusted only while both versions' bad labels are seen to be equally late.",
    cells=(*_of_one(), *_of_two()),
)  # fmt: skip
