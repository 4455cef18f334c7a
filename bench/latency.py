"""From the deciding event on its topic to its breach and its command, on both engines.

Each model's canary fails from its first prediction. The deciding event is the one that the breach
names; its time and the times of breach and command are those of the log (the broker's append time),
so nothing of the measuring process enters. All roles run as one process.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from service.app import ROLES, opened, serve
from service.clock import WallClock
from service.config import Config, parse
from service.engine.base import Message
from service.telemetry import configure_logs

MODELS = 60
PER_TICK = 4
"""Predictions of a model every 50 ms."""

SECONDS = 12.0


def figures(kafka: str | None, folder: Path) -> Iterator[tuple[str, str]]:
    """Measure on the local engine and, given a broker, on Kafka."""
    yield from _figures("local", f"local:{folder / 'latency'}", folder)
    if kafka is not None:
        yield from _figures("kafka", f"kafka://{kafka}", folder)


def _figures(name: str, url: str, folder: Path) -> Iterator[tuple[str, str]]:
    breaches, commands = asyncio.run(_measure(url, folder / name))
    yield f"latency.{name}.decisions", str(len(breaches))
    for what, values in (("breach", breaches), ("command", commands)):
        for share in (50, 99):
            figure = float(np.percentile(values, share)) / 1000 if values else float("nan")
            yield f"latency.{name}.to_{what}_p{share}_s", f"{figure:.3f}"


def settings(url: str, folder: Path) -> Config:
    """Enforcing policies that decide on errors."""
    return parse(json.dumps({
        "engine": {"url": url, "prefix": f"bench-{WallClock().now_ms()}.", "partitions": 2,
                   "state_dir": str(folder)},
        "storage": f"sqlite:///{folder}/incidents.db",
        "http": {"listen": "127.0.0.1:0"}, "log_level": "error",
        "policies": [{"model": "*", "mode": "enforce", "horizon": "1h",
                      "guards": [{"signal": "error_rate", "max": 0.05}]}],
    }))  # fmt: skip


async def _measure(url: str, folder: Path) -> tuple[list[int], list[int]]:
    configure_logs(pretty=False, level="critical")
    config = settings(url, folder)
    async with opened(config) as parts:
        await parts.engine.topics(create=True)
        stop, ready = asyncio.Event(), asyncio.Event()
        daemon = asyncio.create_task(serve(config, set(ROLES), stop, ready=ready))
        await ready.wait()
        await asyncio.sleep(3)
        await _traffic(parts.engine)
        await asyncio.sleep(3)
        stop.set()
        await daemon
        events = {(r.topic, r.partition, r.offset): r.time_ms
                  for r in await parts.engine.read("predictions")}  # fmt: skip
        breaches = await parts.engine.read("breaches")
        commands = await parts.engine.read("commands")
    decided: dict[str, int] = {}
    to_breach: list[int] = []
    for record in breaches:
        breach = json.loads(record.value)
        at = breach["position"]
        began = events[("predictions", at["partition"], at["offset"])]
        decided[breach["incident_id"]] = began
        to_breach.append(record.time_ms - began)
    to_command = [r.time_ms - decided[json.loads(r.value)["incident_id"]] for r in commands]
    return to_breach, to_command


async def _traffic(engine: Any) -> None:
    """Healthy stable, failing canary; each model's canary begins at a moment of its own."""
    chance = random.Random(3)
    clock = WallClock()
    begins = [chance.random() * SECONDS * 0.6 for _ in range(MODELS)]
    started, number, failing = clock.monotonic_s(), 0, set()
    while (elapsed := clock.monotonic_s() - started) < SECONDS:
        messages, rollouts = [], []
        for model in range(MODELS):
            if elapsed > begins[model] and model not in failing:
                failing.add(model)
                rollouts.append(_rollout(model, clock.now_ms()))
            for _ in range(PER_TICK):
                number += 1
                bad = model in failing and chance.random() < 0.5
                messages.append(_prediction(number, model, clock.now_ms(), bad))
        if rollouts:
            await engine.append("rollouts", rollouts)
        await engine.append("predictions", messages)
        await asyncio.sleep(0.05)


def _rollout(model: int, now_ms: int) -> Message:
    event = {"model": f"m{model}", "stable": "v1", "canary": "v2", "weight": 0.5, "at": now_ms}
    return Message(f"m{model}".encode(), json.dumps(event).encode())


def _prediction(number: int, model: int, now_ms: int, bad: bool) -> Message:
    event = {"prediction_id": f"p{number}", "model": f"m{model}", "served_at": now_ms,
             "version": "v2" if bad else "v1"}  # fmt: skip
    if bad:
        event["error"] = "failed"
    return Message(f"p{number}".encode(), json.dumps(event).encode())
