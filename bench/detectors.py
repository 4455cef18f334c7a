"""What a row costs each detector, and what its state weighs.

Fails when a detector that a policy may act on by default needs more than two microseconds a row in
batches of 200, or more state than a kilobyte; where labels come late, 64 KB for the ring.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import msgspec
import numpy as np

import detectors
from detectors.base import Rows
from detectors.optimistic import Labels
from evidence.rivals.shipped import sliced
from schemas.plugins import Registry

REGISTRY = Registry.of(detectors)
PARAMETERS: dict[str, Any] = {"limit": 0.02, "quantile": 0.95, "horizon_ms": 3_600_000}
ROWS, BATCHES = 150_000, (200, 1000)
START_MS, STEP_MS = 1_767_225_600_000, 100
MOST_US, MOST_BYTES, MOST_RING_BYTES = 2.0, 1024, 65_536
WIDER = {"quantile_canary": 4096, "quantile": 4096}
"""Their histograms, of the widest spread of latencies."""


def figures() -> Iterator[tuple[str, str]]:
    """Measure; the best of three runs, since the machine is shared."""
    over = []
    for kind in REGISTRY.kinds():
        costs = {}
        for size in BATCHES:
            runs = [_cost(kind, size) for _ in range(3)]
            costs[size] = min(us for us, _ in runs)
            by = "" if size == BATCHES[0] else f"_by_{size}"
            yield f"detector_us_per_row_{kind}{by}", f"{costs[size]:.2f}"
        state_bytes = runs[-1][1]
        yield f"detector_state_bytes_{kind}", str(state_bytes)
        if REGISTRY.facts(kind)["guarantee"] == "no":
            continue
        ring = REGISTRY.facts(kind).get("labels") == "arrive"
        most = MOST_RING_BYTES if ring else WIDER.get(kind, MOST_BYTES)
        if costs[200] > MOST_US or state_bytes > most:
            over.append(f"{kind} ({costs[200]:.2f} µs a row, {state_bytes} bytes)")
    if over:
        raise RuntimeError(f"over {MOST_US:g} µs a row or the bytes allowed: {', '.join(over)}")


def _cost(kind: str, size: int) -> tuple[float, int]:
    """Microseconds a row in batches of a size, and bytes of state at the end."""
    known = REGISTRY.parameters(kind)
    given = {name: value for name, value in PARAMETERS.items() if name in known}
    if kind in ("quantile", "mean", "optimistic_mean"):
        given["limit"] = {"quantile": 300.0}.get(kind, 0.2)
    detector = REGISTRY.make(kind, **given)
    rows = _rows(kind)
    late = REGISTRY.facts(kind).get("labels") == "arrive"
    batches = []
    for first in range(0, ROWS, size):
        batch = sliced(rows, slice(first, first + size))
        # Where labels come apart, there is room for as many positions behind each batch.
        batches.append(batch._replace(position=batch.position + first) if late else batch)
    started = time.process_time()
    for batch in batches:
        if late:
            _serve_then_label(detector, batch)
        else:
            detector.update(batch)
    spent_s = time.process_time() - started
    return spent_s / ROWS * 1e6, len(msgspec.json.encode(detector.state()))


def _rows(kind: str) -> Rows:
    rng, facts = np.random.default_rng(11), REGISTRY.facts(kind)
    position = np.arange(ROWS, dtype=np.int64)
    if facts.get("losses") == "binary":
        loss = (rng.random(ROWS) < 0.015).astype(np.float64)
    elif kind.startswith("quantile"):
        loss = rng.lognormal(4, 0.6, ROWS)
    else:
        loss = rng.beta(1, 9, ROWS)
    paired = facts["arms"] == "paired"
    canary = rng.random(ROWS) < 0.1 if paired else None
    weight = np.full(ROWS, 0.1) if paired else None
    return Rows(loss, position, START_MS + position * STEP_MS, canary, weight)


def _serve_then_label(detector: Any, batch: Rows) -> None:
    """One batch of predictions, and the labels above 0 of as many that are half an hour old."""
    detector.update(batch._replace(loss=np.zeros(len(batch.loss))))
    bad = np.flatnonzero(batch.loss > 0)
    position = batch.position[-1] + 1 + bad
    served_ms = batch.time_ms[bad] - 1_800_000
    detector.arrive(Labels(batch.loss[bad], position, batch.time_ms[bad], served_ms))
