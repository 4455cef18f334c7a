"""How many rows a second `watch` takes on one core, with five guards on a canary and its stable."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

import detectors
from schemas.durations import Duration
from schemas.events import Rollout
from schemas.observations import DTYPES, Block, Observations, pack, unpack
from schemas.plugins import Registry
from schemas.policies import GuardSpec, Policy
from service.watch.step import Book

MESSAGES, ROWS = 300, 1000
START_MS = 1_767_225_600_000
GUARDS = [
    GuardSpec(signal="error_rate", max=0.05),
    GuardSpec(signal="latency_ms", quantile=0.95, max=300),
    GuardSpec(signal="accuracy", min=0.8),
    GuardSpec(signal="false_positive_rate", max_increase=0.15),
    GuardSpec(signal="score", detector="adwin"),
]


def figures() -> Iterator[tuple[str, str]]:
    """Measure; each served row and each of its matured twins counts as one row."""
    policy = Policy(model="m", positive=1, horizon=Duration(60), guards=GUARDS)
    messages = _messages()
    best = 0.0
    for _ in range(3):
        book = Book([policy], Registry.of(detectors), "bench")
        rollout = Rollout(model="m", stable="v41", canary="v42", weight=0.1, at=START_MS)
        book.roll_out(rollout, START_MS)
        started = time.process_time()
        for message in messages:
            observed = unpack(message)
            book.observe(observed, observed.watermark_ms)
        best = max(best, 2 * MESSAGES * ROWS / (time.process_time() - started))
    yield "watch.rows_per_s_per_core", f"{best:.0f}"


def _messages() -> list[bytes]:
    random = np.random.default_rng(11)
    packed = []
    for index in range(MESSAGES):
        offset = np.arange(index * ROWS, (index + 1) * ROWS)
        version = (random.random(ROWS) < 0.1).astype(int)
        value = (random.random(ROWS) < 0.3).astype(float)
        label = np.where(random.random(ROWS) < 0.15, 1 - value, value)
        columns = {
            "offset": offset, "served_ms": START_MS + offset, "version": version, "value": value,
            "score": random.random(ROWS), "latency_ms": random.lognormal(4, 0.5, ROWS),
            "error": random.random(ROWS) < 0.01, "weight": np.where(version == 1, 0.1, 0.9),
        }  # fmt: skip
        matured = {
            name: columns[name] for name in ("offset", "served_ms", "version", "value", "weight")
        } | {"label_value": label, "observed_ms": START_MS + offset}
        blocks = [_block("served", columns), _block("matured", matured)]
        packed.append(pack(Observations(
            model="m", partition=0, streams={"predictions": "p"}, watermark_ms=START_MS + index,
            versions=["v41", "v42"], classes=[], blocks=blocks, counts={},
        )))  # fmt: skip
    return packed


def _block(kind: str, columns: dict[str, np.ndarray]) -> Block:
    data = {name: np.asarray(v, DTYPES[name]).tobytes() for name, v in columns.items()}
    return Block(kind, "predictions", ROWS, data)


if __name__ == "__main__":
    for name, value in figures():
        print(f"{name}: {value}")
