"""Measures the figures of docs/detectors.md: `python -m tests.detectors.sheets [kind …]`.

Seeded; takes about twenty minutes on one core for all kinds. Each line: what, runs, alarms with the
upper Clopper-Pearson bound at 95 %, or the median and 90 % delay with the share found.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import msgspec
import numpy as np
from scipy.stats import beta

from detectors.adwin import Adwin
from detectors.base import Rows
from detectors.canary_guard import CanaryGuard
from detectors.ddm import Ddm
from detectors.dummy import Dummy
from detectors.eddm import Eddm
from detectors.fhddm import Fhddm
from detectors.hddma import Hddma
from detectors.hddmw import Hddmw
from detectors.kswin import Kswin
from detectors.mean_guard import MeanGuard
from detectors.no_drift import NoDrift
from detectors.page_hinkley import PageHinkley
from detectors.planning import promote_bad_rows, share_of_bad
from detectors.promote_gate import PromoteGate
from detectors.quantile_canary import QuantileCanary
from detectors.quantile_guard import QuantileGuard
from detectors.rate_guard import RateGuard
from detectors.stable_watch import StableWatch
from tests.detectors import label_sheets
from tests.detectors.worlds import coin_rows, feed, paired_rows, part, rows_of

P99 = float(np.exp(4 + 2.3263 * 0.6))
Make = Callable[[], Any]
World = Callable[[int], Rows]


def alarms(make: Make, world: World, runs: int) -> str:
    """How often it ever alarmed."""
    hits = sum(feed(make(), world(seed)).fired_at is not None for seed in range(runs))
    upper = 1.0 if hits == runs else float(beta.ppf(0.975, hits + 1, runs - hits))
    return f"{hits}/{runs} = {hits / runs:.4f}, at most {upper:.4f}"


def delays(make: Make, world: World, runs: int, since: int) -> str:
    """Rows of the version under judgement from the change to the alarm."""
    found, early = [], 0
    for seed in range(runs):
        rows = world(seed)
        fired_at = feed(make(), rows).fired_at
        if fired_at is None:
            continue
        if fired_at < since:
            early += 1
            continue
        taken = slice(since, fired_at + 1)
        own = fired_at + 1 - since if rows.canary is None else int(rows.canary[taken].sum())
        found.append(own)
    if early == runs:
        return f"each of {runs} alarmed before"
    padded = np.array([*found, *[np.inf] * (runs - early - len(found))])
    median, late = np.quantile(padded, [0.5, 0.9], method="inverted_cdf")
    return f"median {median:.0f}, p90 {late:.0f}, found {len(found)}/{runs}, before {early}"


def step(before: float, after: float, at: int, rows: int) -> Any:
    """A level that changes once."""
    return np.where(np.arange(rows) < at, before, after)


def rate() -> Iterator[str]:
    """Limit .02."""

    def make() -> RateGuard:
        return RateGuard(limit=0.02)

    yield f"at .020, 100k: {alarms(make, lambda s: coin_rows(s, 100_000, 0.02), 4000)}"
    yield f"at .015, 100k: {alarms(make, lambda s: coin_rows(s, 100_000, 0.015), 500)}"
    benign = step(0.010, 0.018, 15_000, 30_000)
    yield f".010->.018, 30k: {alarms(make, lambda s: coin_rows(s, 30_000, benign), 1000)}"
    for worse in (0.03, 0.06, 0.10):
        for at in (0, 2_000, 20_000):
            n = at + (20_000 if worse < 0.05 else 6_000)
            level = step(0.015, worse, at, n)
            world = lambda s, n=n, level=level: coin_rows(s, n, level)  # noqa: E731
            yield f".015->{worse} at {at}: {delays(make, world, 400, at)}"


def canary() -> Iterator[str]:
    """Margin 1.15; base .02, 10 % canary, 20k rows of both arms."""
    ramp = np.repeat([0.01, 0.05, 0.25, 0.5], 5000)
    shift = step(0.015, 0.06, 7_000, 20_000)
    for told in (True, False):
        say = "share told" if told else "share unknown"

        def at(ratio: float, told: bool = told) -> World:
            return lambda s: paired_rows(s, 20_000, 0.02, ratio, 0.1, told=told)

        yield f"{say}, ratio 1.15: {alarms(CanaryGuard, at(1.15), 4000)}"
        yield f"{say}, ratio 1.00: {alarms(CanaryGuard, at(1.0), 1000)}"
        world = lambda s, told=told: paired_rows(s, 20_000, shift, 1.0, ramp, told=told)  # noqa: E731
        yield f"{say}, world shift and ramp: {alarms(CanaryGuard, world, 2000)}"
        for ratio in (2.0, 3.0, 5.0):
            yield f"{say}, ratio {ratio}: {delays(CanaryGuard, at(ratio), 400, 0)}"


def latencies(seed: int, factor: Any, n: int) -> Rows:
    """Log-normal, sigma .6."""
    return rows_of(factor * np.exp(np.random.default_rng(seed).normal(4, 0.6, n)))


def quantile() -> Iterator[str]:
    """p99 at its limit; log-normal, sigma .6."""

    def make() -> QuantileGuard:
        return QuantileGuard(quantile=0.99, limit=P99)

    yield f"at the limit, 50k: {alarms(make, lambda s: latencies(s, 1.0, 50_000), 2000)}"
    for factor in (1.1, 1.2, 1.5):
        for at in (0, 20_000):
            n = at + 20_000
            level = step(0.95, factor, at, n)
            world = lambda s, n=n, level=level: latencies(s, level, n)  # noqa: E731
            yield f"x{factor} at {at}: {delays(make, world, 200, at)}"


def paired_latencies(seed: int, factor: float, n: int = 20_000, share: float = 0.1) -> Rows:
    """Log-normal, sigma .6; the canary's times a factor."""
    rng = np.random.default_rng(seed)
    arms = rng.random(n) < share
    values = np.exp(rng.normal(4, 0.6, n)) * np.where(arms, factor, 1.0)
    return rows_of(values, canary=arms, weight=share)


def quantile_canary() -> Iterator[str]:
    """p95, a rise by 15 % accepted (stretch 1.15, margin 1); 10 % canary."""

    def make() -> QuantileCanary:
        return QuantileCanary(quantile=0.95, stretch=1.15, margin=1.0)

    yield f"at x1.15: {alarms(make, lambda s: paired_latencies(s, 1.15), 2000)}"
    for factor in (1.3, 1.5, 2.0):
        world = lambda s, factor=factor: paired_latencies(s, factor)  # noqa: E731
        yield f"x{factor}: {delays(make, world, 200, 0)}"


def betas(seed: int, mean: Any, n: int) -> Rows:
    """Losses in [0, 1]: Beta with the mean, concentration 12."""
    means = np.broadcast_to(mean, (n,))
    return rows_of(np.random.default_rng(seed).beta(12 * means, 12 * (1 - means)))


def mean() -> Iterator[str]:
    """Limit .12; Beta losses."""

    def make() -> MeanGuard:
        return MeanGuard(limit=0.12)

    yield f"at .12, 20k: {alarms(make, lambda s: betas(s, 0.12, 20_000), 1500)}"
    for worse in (0.13, 0.14, 0.18):
        for at in (0, 5_000):
            n = at + 10_000
            level = step(0.11, worse, at, n)
            world = lambda s, n=n, level=level: betas(s, level, n)  # noqa: E731
            yield f".11->{worse} at {at}: {delays(make, world, 200, at)}"


def promote() -> Iterator[str]:
    """Bad rows of both arms, since the gate looks at nothing else."""

    def only_bad(ratio: float, share: float, n: int) -> World:
        def world(seed: int) -> Rows:
            canary = np.random.default_rng(seed).random(n) < share_of_bad(ratio, share)
            return rows_of(np.ones(n), canary=canary, weight=share)

        return world

    for share in (0.1, 0.25, 0.5):
        made = alarms(PromoteGate, only_bad(1.25, share, 20_000), 4000)
        yield f"ratio 1.25 = 1 + margin, share {share}, 20k bad rows: {made}"
        yield f"ratio 1.5, share {share}: {alarms(PromoteGate, only_bad(1.5, share, 20_000), 1000)}"
    for margin in (1.15, 1.25, 1.5, 2.0):
        for share in (0.1, 0.25, 0.5):
            planned = promote_bad_rows(margin, share, 0.05)
            n = int(8 * planned)
            took = []
            for seed in range(400):
                fired_at = feed(PromoteGate(margin), only_bad(1.0, share, n)(seed)).fired_at
                took.append(np.inf if fired_at is None else fired_at + 1)
            half, most = np.quantile(took, [0.5, 0.9], method="inverted_cdf")
            yield f"margin {margin}, share {share}: plan {planned:.0f}, {half:.0f} ({most:.0f})"


def stable_watch() -> Iterator[str]:
    """Rows between alarms of a version at its limit; delay after a change."""
    for run_length in (1e3, 1e4, 1e5):
        count, n, runs = 0, int(20 * run_length), 20 if run_length > 1e4 else 100
        for seed in range(runs):
            watch = StableWatch(limit=0.02, run_length=run_length, hold=1)
            feed(watch, coin_rows(seed, n, 0.02))
            count += watch.explain()["alarms"]
        yield f"run_length {run_length:g}: one alarm in {n * runs / max(count, 1):.0f} ({count})"

    def make() -> StableWatch:
        return StableWatch(limit=0.02, run_length=5e6, hold=10**9)

    for worse in (0.03, 0.06, 0.10):
        for at in (0, 2_000, 20_000):
            n = at + (20_000 if worse < 0.05 else 6_000)
            level = step(0.015, worse, at, n)
            found = []
            for seed in range(200):
                rows, watch = coin_rows(seed, n, level), make()
                for i in range(0, n, 20):
                    reading = watch.update(Rows(*(c if c is None else c[i : i + 20] for c in rows)))
                    if reading.fired_at is not None and reading.fired_at >= at:
                        break
                found.append(reading.fired_at - at if reading.fired_at is not None else np.inf)
            half, most = np.quantile(found, [0.5, 0.9], method="inverted_cdf")
            yield f".015->{worse} at {at}: {half:.0f} ({most:.0f})"


def of_river(make: Make, runs: int = 300) -> Iterator[str]:
    """The rate guard's worlds, without a limit; a third of the runs for delays."""
    third = runs // 3
    yield f"steady .020, 30k: {alarms(make, lambda s: coin_rows(s, 30_000, 0.02), runs)}"
    benign = step(0.010, 0.018, 15_000, 30_000)
    yield f".010->.018, 30k: {alarms(make, lambda s: coin_rows(s, 30_000, benign), runs)}"
    wave = 0.010 + 0.008 * np.sin(2 * np.pi * np.arange(30_000) / 10_000)
    yield f"wave .010+-.008, 30k: {alarms(make, lambda s: coin_rows(s, 30_000, wave), runs)}"
    yield f".06 from row 0: {delays(make, lambda s: coin_rows(s, 6_000, 0.06), third, 0)}"
    for before, worse in ((0.015, 0.03), (0.015, 0.06), (0.015, 0.10), (0.05, 0.60)):
        level = step(before, worse, 20_000, 32_000)
        world = lambda s, level=level: coin_rows(s, 32_000, level)  # noqa: E731
        yield f"{before}->{worse} at 20000: {delays(make, world, third, 20_000)}"


def cost() -> Iterator[str]:
    """Microseconds a row in batches of 200 and 1,000, errors .05, and bytes of state: river's."""
    for make in (*RIVER, *SLOW_RIVER):
        took = []
        for size in (200, 1_000):
            detector, rows, best = make(), coin_rows(1, 40_000, 0.05), np.inf
            for start in range(0, 40_000, 8_000):
                batches = [part(rows, i, i + size) for i in range(start, start + 8_000, size)]
                started = perf_counter()
                for batch in batches:
                    detector.update(batch)
                best = min(best, (perf_counter() - started) / 8_000 * 1e6)
            took.append(f"{best:.2f}")
        state = len(msgspec.json.encode(detector.state()))
        yield f"{make.__name__}: {' / '.join(took)} us a row, {state} bytes"


RIVER: tuple[type[Any], ...] = (Adwin, PageHinkley, Ddm, Eddm, Fhddm, Dummy, NoDrift)
SLOW_RIVER: tuple[type[Any], ...] = (Kswin, Hddma, Hddmw)

SHEETS: dict[str, Callable[[], Iterator[str]]] = {
    "rate": rate,
    "canary": canary,
    "mean": mean,
    "quantile": quantile,
    "quantile_canary": quantile_canary,
    "promote": promote,
    "stable_watch": stable_watch,
    "adwin": lambda: of_river(Adwin),
    "page_hinkley": lambda: of_river(PageHinkley),
    "ddm": lambda: of_river(Ddm),
    "eddm": lambda: of_river(Eddm),
    "fhddm": lambda: of_river(Fhddm),
    "hddma": lambda: of_river(Hddma, 60),
    "hddmw": lambda: of_river(Hddmw, 60),
    "kswin": lambda: of_river(Kswin, 30),
    "dummy": lambda: of_river(Dummy, 60),
    "cost": cost,
    "optimistic_rate": label_sheets.optimistic_rate,
    "optimistic_mean": label_sheets.optimistic_mean,
    "delay_check": label_sheets.delay_check,
    "sampled": label_sheets.sampled,
    "shadow": label_sheets.shadow,
}

if __name__ == "__main__":
    for kind in sys.argv[1:] or SHEETS:
        for line in SHEETS[kind]():
            print(f"{kind}: {line}", flush=True)
