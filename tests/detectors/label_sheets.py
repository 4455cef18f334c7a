"""Figures of docs/detectors.md about late and partial labels and shadow traffic; for `sheets`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import beta

from detectors.base import Rows
from detectors.canary_guard import CanaryGuard
from detectors.mean_guard import MeanGuard
from detectors.optimistic_mean import OptimisticMean
from detectors.optimistic_rate import OptimisticRate
from detectors.rate_guard import RateGuard
from detectors.sampled import weighted_loss
from tests.detectors.late import START_MS, Late
from tests.detectors.test_delay_check import ages, check, checked, on_arrival
from tests.detectors.test_sampled import LEAST, audited
from tests.detectors.worlds import feed, rows_of

N = 20_000


class Delays(NamedTuple):
    """A prediction a second; delays and horizon in seconds."""

    bad_s: float
    good_s: float
    horizon_s: int
    missing: float = 0.0


def share(hits: int, runs: int) -> str:
    """How often, and at most."""
    upper = 1.0 if hits == runs else float(beta.ppf(0.975, hits + 1, runs - hits))
    return f"{hits}/{runs}, at most {upper:.4f}"


def told(events: list[float]) -> str:
    """Median and 90 % of predictions served until the alarm, and how many were found."""
    half, most = np.quantile(events, [0.5, 0.9], method="inverted_cdf")
    return f"{half:.0f} ({most:.0f}), found {int(np.isfinite(events).sum())}/{len(events)}"


def one_run(seed: int, rate: float, d: Delays, value: float | None) -> dict[str, float]:
    """Predictions served until each way of counting labels alarms; inf: never."""
    rng = np.random.default_rng(seed)
    bad = rng.random(N) < rate
    delay = rng.exponential(np.where(bad, d.bad_s, d.good_s))
    delay[(rng.random(N) < d.missing) | (delay > d.horizon_s)] = np.nan
    loss = bad.astype(float) if value is None else bad * value
    seen = np.where(np.isnan(delay), 0.0, loss)
    when = np.arange(N)
    final: Callable[[], Any]
    if value is None:
        final = lambda: RateGuard(0.05, bucket_ms=None)  # noqa: E731
        late: Any = OptimisticRate(0.05, d.horizon_s * 1000, bucket_ms=None)
    else:
        final = lambda: MeanGuard(0.05 * value, bucket_ms=None)  # noqa: E731
        late = OptimisticMean(0.05 * value, 1.0, d.horizon_s * 1000, bucket_ms=None)

    def at(guard: Any, losses: Any, ready_s: Any) -> float:
        order = np.argsort(ready_s, kind="stable")
        order = order[ready_s[order] <= N]
        ready_ms = START_MS + (ready_s[order] * 1000).astype(np.int64)
        reading = guard.update(Rows(losses[order], np.arange(len(order)), ready_ms))
        return np.inf if reading.fired_ms is None else (reading.fired_ms - START_MS) / 1000

    known = ~np.isnan(delay)
    events = Late(loss, delay * 1000).only_bad()
    end = int(np.searchsorted(events.time_ms, START_MS + N * 1000))
    events.index, events.is_label, events.time_ms = (
        events.index[:end], events.is_label[:end], events.time_ms[:end],
    )  # fmt: skip
    fired_ms = events.feed_by(late, 50).fired_ms
    return {
        "on arrival": at(final(), loss[known], (when + delay)[known]),
        "matured": at(final(), seen, when + float(d.horizon_s)),
        "optimistic": np.inf if fired_ms is None else (fired_ms - START_MS) / 1000,
        "all labels at once": at(final(), seen, when.astype(float)),
    }


WORLDS = (
    (".04, quick bad", 0.04, Delays(500, 5000, 2500)),
    (".05, quick bad", 0.05, Delays(500, 5000, 2500)),
    (".05, equally late", 0.05, Delays(2000, 2000, 6000)),
    (".05, quick good, a fifth missing", 0.05, Delays(5000, 500, 15_000, 0.2)),
    (".10, quick bad", 0.10, Delays(500, 5000, 2500)),
    (".10, equally late", 0.10, Delays(2000, 2000, 6000)),
    (".10, quick good", 0.10, Delays(5000, 500, 15_000)),
    (".10, soon", 0.10, Delays(300, 300, 1000)),
    (".20, equally late", 0.20, Delays(2000, 2000, 6000)),
)


def late_labels(value: float | None) -> Iterator[str]:
    """Limit .05 of the bad loss."""
    for name, rate, delays in WORLDS:
        runs = [one_run(seed, rate, delays, value) for seed in range(200 if rate < 0.06 else 100)]
        for way in runs[0]:
            events = [run[way] for run in runs]
            hits = int(np.isfinite(events).sum())
            yield f"{name}, {way}: {share(hits, len(runs)) if rate < 0.06 else told(events)}"


def optimistic_rate() -> Iterator[str]:
    """Losses of 0 and 1."""
    yield from late_labels(None)


def optimistic_mean() -> Iterator[str]:
    """Losses of 0 and .5."""
    yield from late_labels(0.5)


def delay_check() -> Iterator[str]:
    """Bad rows until it speaks, and what it saves."""
    for part in (0.1, 0.5):
        for name, canary_s, stable_s in (
            ("equal", 2000.0, 2000.0), ("4x quicker", 500.0, 2000.0),
            ("4x slower", 2000.0, 500.0), ("2x quicker", 1000.0, 2000.0),
            ("1.5x quicker", 1333.0, 2000.0),
        ):  # fmt: skip
            took: dict[str, list[float]] = {"equal": [], "unequal": []}
            for seed in range(200 if name == "equal" else 50):
                judge, rows, spoke = check(), ages(seed, 8000, part, canary_s, stable_s), set()
                for first in range(0, 8000, 100):
                    batch = [None if c is None else c[first : first + 100] for c in rows]
                    said = judge.update(Rows(*batch))  # type: ignore[arg-type]
                    if said != "unknown" and said not in spoke:
                        spoke.add(said)
                        took[said].append(first + 100)
                    if said == "unequal":
                        break
            for spoken, rows_taken in took.items():
                half = np.median(rows_taken) if rows_taken else np.nan
                yield f"canary {part}, {name}: {spoken} in {len(rows_taken)}, median {half:.0f}"
        alone = sum(on_arrival(seed, 750, part) for seed in range(200))
        together = sum(checked(seed, 750, part) for seed in range(200))
        yield f"canary {part}, bad labels 4x quicker (750 s, 3000 s), 20k rows: on arrival "\
              f"{share(alone, 200)}; checked {share(together, 200)}"  # fmt: skip


def sampled() -> Iterator[str]:
    """Limit .05; a tenth of rows audited, 80 % of the doubtful."""
    hits = counted = 0
    for seed in range(1000):
        bad, chance = audited(seed, 20_000, 0.05)
        guard = MeanGuard(0.05, 1 / LEAST)
        hits += feed(guard, rows_of(weighted_loss(bad, chance))).level == "alarm"
        if seed < 200:
            counted += feed(RateGuard(0.05), rows_of(bad[~np.isnan(chance)])).level == "alarm"
    yield f"at .05, 20k: {share(hits, 1000)}; counting labelled rows {share(counted, 200)}"
    for rate in (0.08, 0.10, 0.15):
        took = []
        for seed in range(200):
            bad, chance = audited(seed, 20_000, rate)
            fired = feed(MeanGuard(0.05, 1 / LEAST), rows_of(weighted_loss(bad, chance))).fired_at
            took.append(np.inf if fired is None else fired + 1.0)
        yield f"{rate}: {told(took)}"


def shadow() -> Iterator[str]:
    """Pairs of mirrored requests: 2 % bad in the stable, three in four of those in both."""
    for ratio in (1.0, 1.15, 1.5, 2.0, 3.0):
        pairs, crowds = [], []
        for seed in range(200):
            rng = np.random.default_rng(seed)
            both = rng.random(40_000) < 0.015
            one = ~both & (rng.random(40_000) < 0.005)
            other = ~both & ~one & (rng.random(40_000) < 0.005 * ratio)
            rows = rows_of(np.ones(40_000), canary=other, weight=0.5)
            keep = np.flatnonzero(one | other)
            position = rows.position[keep]
            guard = CanaryGuard()
            fired = guard.update(
                Rows(np.ones(len(keep)), position, rows.time_ms[keep], other[keep],
                     np.full(len(keep), 0.5))
            ).fired_at  # fmt: skip
            pairs.append(np.inf if fired is None else fired + 1.0)
            canary = np.tile([True, False], 40_000)
            loss = np.stack((both | other, both | one), axis=1).ravel()
            fired = feed(CanaryGuard(), rows_of(loss, canary=canary, weight=0.5)).fired_at
            crowds.append(np.inf if fired is None else fired / 2 + 1)
        yield f"only the canary {ratio} times only the stable: in pairs {told(pairs)}; "\
              f"as two crowds {told(crowds)}"  # fmt: skip
