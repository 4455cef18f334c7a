"""`ingest`: what an event costs, by stage and against the bare reading loop on real Kafka.

In this process: a million predictions wait, and windows of 2,000 predictions and 2,000 outcomes of
any age come, while as many old ones reach their horizon. On Kafka: the same events on topics of two
partitions, read by the bare `getmany` and decode loop, then by the worker through the engine; both
in one process on one core.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import psutil
from aiokafka import AIOKafkaConsumer, TopicPartition

from schemas.durations import Duration
from schemas.events import Outcome, Prediction
from schemas.policies import Policy
from service.app import opened
from service.clock import WallClock
from service.config import Config, parse
from service.engine.base import Engine, Message
from service.ingest.models import Models
from service.ingest.observe import Sampler, observations
from service.ingest.receive import receive
from service.ingest.remember import Store, changes_of
from service.ingest.state import OUTCOMES, PREDICTIONS, Partition, Taken
from service.ingest.take import Batch, step
from service.ingest.worker import IngestWorker
from service.memory import collect_seldom, give_back
from service.telemetry import Metrics, configure_logs

WINDOW = 2000
PENDING = 1_000_000
EVENTS = 300_000
"""Predictions on Kafka, and as many outcomes."""
STEADY = 100
"""Windows that are measured, after a million predictions wait."""
START_MS = 1_767_225_600_000
HORIZON_S = PENDING / 1000

_encode = msgspec.json.Encoder().encode


def prediction(at: int, models: int = 1) -> bytes:
    """The nth prediction, one a millisecond."""
    return _encode({
        "prediction_id": _id(at), "model": f"credit-risk-{at % models}",
        "version": "v42" if at % 10 == 0 else "v41", "served_at": START_MS + at, "score": 0.5,
        "prediction": at % 2, "latency_ms": 12.5, "weight": 0.1,
    })  # fmt: skip


def outcome(of: int, now: int) -> bytes:
    """The outcome of the nth prediction."""
    return _encode({"prediction_id": _id(of), "observed_at": START_MS + now, "label": of // 3 % 2})


def _id(at: int) -> str:
    # As long and as random as real ids; a counter would be kinder to every hash and cache.
    return f"req-{at * 0x9E3779B97F4A7C15 % 2**64:016x}{at:012x}"


def figures(kafka: str | None, folder: Path) -> Iterator[tuple[str, str]]:
    """Measure the stages, then the whole on Kafka when there is one."""
    for models in (1, 200):
        yield from _stages(folder / f"stages-{models}", models)
    if kafka is not None:
        yield from asyncio.run(_on_kafka(kafka, folder))


# -- in this process -----------------------------------------------------------------------------


def _stages(folder: Path, models: int) -> Iterator[tuple[str, str]]:
    gc.collect()
    before = psutil.Process().memory_info().rss
    store = Store(folder)
    policies = [Policy(model="*", horizon=Duration(HORIZON_S))]
    streams = {PREDICTIONS: "p", OUTCOMES: "o"}
    part = Partition(0, streams, Models(policies), dict.fromkeys(streams, 0),
                     dict.fromkeys(streams, 0))  # fmt: skip
    spent: Counter[str] = Counter()
    first_mb = 0.0
    for start in range(0, PENDING, WINDOW):
        if start == PENDING // 10:
            gc.collect()
            give_back()  # as the daemon does once a minute
            first_mb = psutil.Process().memory_info().rss / 1e6
        _window(part, store, spent, [prediction(at, models) for at in range(start, start + WINDOW)],
                [])  # fmt: skip
    rng = random.Random(7)
    fill, spent = spent, Counter()
    assert part.pending.count == PENDING
    gc.collect()
    give_back()
    rss_mb = psutil.Process().memory_info().rss / 1e6
    waiting = list(range(PENDING))
    for number in range(STEADY):
        now = PENDING + number * WINDOW
        fresh = [prediction(at, models) for at in range(now, now + WINDOW)]
        old = [outcome(at, now) for at in _pick(rng, waiting, now - PENDING + 2 * WINDOW)]
        waiting += range(now, now + WINDOW)
        _window(part, store, spent, fresh, old)
    name = f"ingest.models_{models}"
    yield f"{name}.pending", f"{PENDING}"
    # What a store and its buffers take once, however many wait, is in the second figure only.
    yield f"{name}.memory_mb_per_million", f"{(rss_mb - first_mb) / 0.9 / PENDING * 1e6:.0f}"
    yield f"{name}.memory_mb_of_a_partition_with_a_million", f"{rss_mb - before / 1e6:.0f}"
    yield f"{name}.predictions_alone_us", f"{_us(fill, PENDING):.2f}"
    for stage, seconds in spent.items():
        yield f"{name}.{stage}_us", f"{seconds / (2 * STEADY * WINDOW) * 1e6:.2f}"
    yield f"{name}.all_stages_us", f"{_us(spent, 2 * STEADY * WINDOW):.2f}"
    store.close()
    started = time.perf_counter()
    again, store = _reopened(folder, policies, streams)
    assert again.pending.count == part.pending.count
    yield f"{name}.opened_again_s", f"{time.perf_counter() - started:.2f}"
    store.close()


def _pick(rng: random.Random, waiting: list[int], youngest: int) -> Iterator[int]:
    """Take random predictions that wait, each once and before its horizon."""
    left = WINDOW
    while left:
        at = rng.randrange(len(waiting))
        waiting[at], waiting[-1] = waiting[-1], waiting[at]
        if (chosen := waiting.pop()) > youngest:
            left -= 1
            yield chosen


def _reopened(folder: Path, policies: list[Policy], streams: dict[str, str]
              ) -> tuple[Partition, Store]:  # fmt: skip
    part = Partition(0, streams, Models(policies), {}, {})
    store = Store(folder)
    meta = store.meta()
    assert meta is not None
    store.load(part, meta)
    return part, store


def _us(spent: Counter[str], events: int) -> float:
    return sum(spent.values()) / events * 1e6


def _window(part: Partition, store: Store, spent: Counter[str], predictions: list[bytes],
            outcomes: list[bytes]) -> None:  # fmt: skip
    """One step as the worker makes it, but for appending."""
    batches: dict[str, list[Batch]] = {}
    for topic, values in ((PREDICTIONS, predictions), (OUTCOMES, outcomes)):
        if values:
            first = part.taken[topic]
            arrivals = [START_MS + 10**9] * len(values)
            with _timed(spent, "receive"):
                got = receive(topic, values, arrivals)
                offsets = np.arange(first, first + len(values))
                batches[topic] = [
                    Batch(Taken(got.events, offsets, got.times_ms, values), first + len(values))
                ]
    with _timed(spent, "join_and_expire"):
        window = step(part, batches, 0)
    with _timed(spent, "observe"):
        observations(part, window, Sampler(50))
    with _timed(spent, "pack_changes"):
        changes = changes_of(part, window)
    with _timed(spent, "store"):
        store.write(changes)


class _timed:
    """Adds the time of a block to a stage."""

    def __init__(self, spent: Counter[str], stage: str) -> None:
        self._spent, self._stage = spent, stage

    def __enter__(self) -> None:
        self._from = time.thread_time()

    def __exit__(self, *_: Any) -> None:
        self._spent[self._stage] += time.thread_time() - self._from  # type: ignore[assignment]


# -- on Kafka ------------------------------------------------------------------------------------


async def _on_kafka(kafka: str, folder: Path) -> list[tuple[str, str]]:
    """The bare loop and the worker in turns, best of three each: the machine may be shared."""
    configure_logs(pretty=False, level="error")
    config = parse(_encode({
        "engine": {"url": f"kafka://{kafka}", "prefix": f"bench-{WallClock().now_ms()}.",
                   "partitions": 2, "state_dir": str(folder / "ingest-state")},
        "storage": f"sqlite:///{folder}/ingest.db",
        "policies": [{"model": "*", "horizon": "1h"}],
    }).decode())  # fmt: skip
    async with opened(config) as parts:
        await parts.engine.topics(create=True)
        await _fill(parts.engine)
        bare, seldom, ours = [], [], []
        before = gc.get_threshold()
        for turn in range(3):
            bare.append(await _bare(kafka, config.engine.prefix))
            collect_seldom()  # as the daemon does when it starts
            ours.append(await _worker(config, folder / f"turn-{turn}"))
            seldom.append(await _bare(kafka, config.engine.prefix))
            gc.set_threshold(*before)
            gc.unfreeze()
    lines = []
    runs_by_name = (("bare_loop", bare), ("bare_loop_collecting_seldom", seldom), ("worker", ours))
    for name, runs in runs_by_name:
        seconds, cpu_s = min(runs)
        lines.append((f"ingest.kafka.{name}_events_per_s", f"{2 * EVENTS / seconds:.0f}"))
        lines.append((f"ingest.kafka.{name}_cpu_us", f"{cpu_s / (2 * EVENTS) * 1e6:.2f}"))
    share, tuned = min(bare)[0] / min(ours)[0], min(seldom)[0] / min(ours)[0]
    lines.append(("ingest.kafka.share_of_bare_loop", f"{share:.2f}"))
    lines.append(("ingest.kafka.share_of_bare_loop_collecting_seldom", f"{tuned:.2f}"))
    return lines


async def _fill(engine: Engine) -> None:
    rng = random.Random(7)
    for first in range(0, EVENTS, 5000):
        numbers = list(range(first, min(first + 5000, EVENTS)))
        await engine.append(PREDICTIONS, [Message(_id(n).encode(), prediction(n)) for n in numbers])
        rng.shuffle(numbers)
        await engine.append(
            OUTCOMES, [Message(_id(n).encode(), outcome(n, n + 60_000)) for n in numbers]
        )


async def _bare(kafka: str, prefix: str) -> tuple[float, float]:
    """Fetch and decode, one topic after the other, and nothing else."""
    started, cpu = time.perf_counter(), time.process_time()
    for topic, kind in ((PREDICTIONS, Prediction), (OUTCOMES, Outcome)):
        decode = msgspec.json.Decoder(kind).decode
        consumer = AIOKafkaConsumer(
            bootstrap_servers=kafka, group_id=None, auto_offset_reset="earliest",
            fetch_max_bytes=16 << 20,
        )  # fmt: skip
        await consumer.start()
        consumer.assign([TopicPartition(prefix + topic, number) for number in range(2)])
        await consumer.seek_to_beginning()
        left = EVENTS
        while left:
            for messages in (await consumer.getmany(timeout_ms=100, max_records=5000)).values():
                left -= len([decode(message.value) for message in messages])
        await consumer.stop()
    return time.perf_counter() - started, time.process_time() - cpu


async def _worker(config: Config, folder: Path) -> tuple[float, float]:
    """The worker through the engine, in a group of its own."""
    clock, metrics = WallClock(), Metrics()
    async with opened(config) as parts:
        parts.engine._cluster.group = lambda name: f"{config.engine.prefix}{folder.name}-{name}"  # type: ignore[attr-defined]
        worker = IngestWorker(parts.engine, clock, metrics, config.ingest, config.policies, folder)
        worker.register()
        started, cpu = time.perf_counter(), time.process_time()
        running = asyncio.create_task(parts.engine.run())
        joined = None
        while not running.done():
            taken = [sum(held.part.taken.values()) for held in worker._held.values()]
            if joined is None and sum(taken) > 0:
                # Joining a group takes seconds and is not what is measured.
                joined, cpu, began = time.perf_counter(), time.process_time(), sum(taken)
            if sum(taken) == 2 * EVENTS:
                break
            await asyncio.sleep(0.005)
        assert joined is not None
        share = 2 * EVENTS / (2 * EVENTS - began)
        took = (time.perf_counter() - joined) * share, (time.process_time() - cpu) * share
        await parts.engine.stop()
        await running
        del started
        return took
