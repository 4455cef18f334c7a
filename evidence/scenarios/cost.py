"""S14: what a row costs, what a detector keeps, and how ten thousand of them do.

The only tables whose figures differ from run to run and machine to machine. What is promised of
times leaves room for a machine four times slower; what is promised of bytes does not need any.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec
import numpy as np

from detectors.adwin import Adwin
from detectors.base import Detector, Rows
from detectors.canary_guard import CanaryGuard
from detectors.mean_guard import MeanGuard
from detectors.page_hinkley import PageHinkley
from detectors.promote_gate import PromoteGate
from detectors.quantile_canary import QuantileCanary
from detectors.quantile_guard import QuantileGuard
from detectors.rate_guard import RateGuard
from detectors.stable_watch import StableWatch
from evidence.rivals.shipped import sliced
from evidence.scenarios.base import Finding, Scenario
from evidence.worlds import betas, coin_rows, latencies, paired_latencies, paired_rows

TABLE = "On the machine that wrote this (times vary; bytes do not)"
MANY = "Ten thousand `rate` guards of as many models, a batch of 20 rows each"
MOST_US, SLOWER = 2.0, 4
MOST_BYTES = 1024
SMALL = ("`rate`", "`mean`", "`canary`", "`promote`", "`stable_watch`")
"""The others keep a histogram or river's own object."""


def _detectors(n: int) -> list[tuple[str, Callable[[], Detector], Rows]]:
    coins, pairs = coin_rows(14, n, 0.015), paired_rows(14, n, 0.02, 1.0, 0.1)
    return [
        ("`rate`", lambda: RateGuard(limit=0.02), coins),
        ("`quantile`", lambda: QuantileGuard(quantile=0.99, limit=400.0), latencies(14, n, 1.0)),
        ("`mean`", lambda: MeanGuard(limit=0.12), betas(14, n, 0.1)),
        ("`canary`", CanaryGuard, pairs),
        ("`quantile_canary`", lambda: QuantileCanary(quantile=0.95),
         paired_latencies(14, n, 1.0, 0.1)),
        ("`promote`", PromoteGate, pairs),
        ("`stable_watch`", lambda: StableWatch(limit=0.02), coins),
        ("`adwin`", Adwin, coins),
        ("`page_hinkley`", PageHinkley, coins),
    ]  # fmt: skip


def _us(make: Callable[[], Detector], rows: Rows, batch: int) -> float:
    """Of three tries the best, in microseconds a row."""
    parts = [sliced(rows, slice(at, at + batch)) for at in range(0, len(rows.loss), batch)]
    best = np.inf
    for _ in range(3):
        detector, began = make(), time.perf_counter()
        for part in parts:
            detector.update(part)
        best = min(best, time.perf_counter() - began)
    return float(best) / len(rows.loss) * 1e6


def measure(quick: bool) -> list[Finding]:
    """Times and bytes."""
    n, found = 10_000 if quick else 50_000, []
    for name, make, rows in _detectors(n):
        one = sliced(rows, slice(0, 1_000))
        for column, us in (
            ("µs a row, batches of 1,000", _us(make, rows, 1000)),
            ("batches of 200", _us(make, rows, 200)),
            ("one by one", _us(make, one, 1)),
        ):
            promised = column != "one by one"
            found.append(Finding(TABLE, name, column, f"{us:.2f}",
                                 f"at most {MOST_US:g} µs; {SLOWER} times that on any machine",
                                 us <= SLOWER * MOST_US if promised else None))  # fmt: skip
        detector = make()
        detector.update(rows)
        size = len(msgspec.json.encode(detector.state()))
        held = size <= MOST_BYTES if name in SMALL else None
        found.append(
            Finding(TABLE, name, "bytes of state", f"{size:,}", f"at most {MOST_BYTES:,}", held)
        )
    return found + _many(1_000 if quick else 10_000)


def _many(count: int) -> list[Finding]:
    guards = [RateGuard(limit=0.02) for _ in range(count)]
    rounds, rows = 3, 20
    parts = [coin_rows(seed, rows * rounds, 0.015) for seed in range(50)]
    best = np.inf
    for number in range(rounds):
        began = time.perf_counter()
        for at, guard in enumerate(guards):
            guard.update(sliced(parts[at % 50], slice(number * rows, (number + 1) * rows)))
        best = min(best, time.perf_counter() - began)
    size = sum(len(msgspec.json.encode(guard.state())) for guard in guards[:100]) / 100
    return [
        Finding(MANY, f"{count:,} guards", "seconds a round", f"{best:.2f}"),
        Finding(MANY, f"{count:,} guards", "rows a second", f"{count * rows / best:,.0f}"),
        Finding(MANY, f"{count:,} guards", "MB of state", f"{count * size / 1e6:.1f}"),
    ]


S14 = Scenario(
    "S14", "Cost", "nothing is judged",
    "A row costs about a microsecond or less in batches, and a detector keeps less than a kilobyte "
    "where it judges rates. **These times are the only figures here that a second run "
    "does not repeat.**",
    measure=measure, timed=True,
)  # fmt: skip
