"""S12: duplicates, disorder, crashes and new owners; and what the same does without a join."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import structlog

from detectors.base import Rows
from evidence.cells import Cell, Promise
from evidence.delivery import Delivery, run
from evidence.rivals.lineup import guard
from evidence.rivals.shipped import shipped
from evidence.scenarios.base import Finding, Scenario
from evidence.worlds import STEP_MS, rows_of
from schemas.durations import Duration
from schemas.events import Rollout
from schemas.policies import GuardSpec, Policy

NOW_MS = 1_767_225_600_000
HORIZON_S = 120
TABLE = "The whole way from events to log e: bits of every guard of both versions"
POLICY = Policy(
    model="m", positive=1, horizon=Duration(HORIZON_S), mode="observe",
    guards=[
        GuardSpec(signal="error_rate", max=0.02),
        GuardSpec(signal="accuracy", min=0.9),
        GuardSpec(signal="false_positive_rate", max_increase=0.15),
        GuardSpec(signal="latency_ms", quantile=0.95, max=200.0),
    ],
)  # fmt: skip
ROLLOUT = Rollout(model="m", stable="v1", canary="v2", weight=0.25, at=NOW_MS)


class Fault(NamedTuple):
    """What happens on the way."""

    name: str
    repeat: float = 0.0
    """Share of events that are sent again a little later."""
    disorder: int = 0
    """Places by which an outcome may come too early or late."""
    window: int = 1_000
    crash_every: int = 0
    """Windows between two power cuts."""
    new_machine: bool = False


CLEAN = Fault("undisturbed, windows of 1,000")
FAULTS = (
    Fault("windows of 170 events", window=170),
    Fault("three in ten events sent twice", repeat=0.3),
    Fault("outcomes out of order by up to 400", disorder=400),
    Fault("power cut in every third window, after saying and before storing", crash_every=3),
    Fault("the same in every fourth window, and a new machine goes on", crash_every=4,
          new_machine=True),
    Fault("all of it", repeat=0.3, disorder=400, window=700, crash_every=3, new_machine=True),
)  # fmt: skip


def events(n: int, canary_error: float) -> tuple[list[bytes], list[bytes]]:
    """Predictions of both versions, four a second, and their outcomes half a minute later."""
    rng = np.random.default_rng(12)
    canary, failed = rng.random(n) < 0.25, rng.random(n)
    latency, predicted, wrong = rng.lognormal(4, 0.6, n), rng.random(n) < 0.3, rng.random(n) < 0.1
    predictions, outcomes = [], []
    for i in range(n):
        at_ms = NOW_MS + i * STEP_MS
        predictions.append(json.dumps({
            "prediction_id": f"p{i}", "model": "m", "version": "v2" if canary[i] else "v1",
            "served_at": at_ms, "prediction": int(predicted[i]), "latency_ms": float(latency[i]),
            "weight": 0.25,
        } | ({"error": "timeout"} if failed[i] < (canary_error if canary[i] else 0.01) else {}),
        ).encode())  # fmt: skip
        outcomes.append(json.dumps({
            "prediction_id": f"p{i}", "observed_at": at_ms + 30_000,
            "label": int(predicted[i] != wrong[i]),
        }).encode())  # fmt: skip
    return predictions, outcomes


def disturbed(values: Sequence[bytes], fault: Fault, places: int, seed: int) -> list[bytes]:
    """The same events as they come: some twice, in another order."""
    rng = np.random.default_rng(seed)
    order = np.arange(len(values)) + (rng.random(len(values)) * places if places else 0)
    again = np.flatnonzero(rng.random(len(values)) < fault.repeat)
    at = np.concatenate((order, again + 200 * rng.random(len(again)) + places))
    names = np.concatenate((np.arange(len(values)), again))
    return [values[i] for i in names[np.argsort(at, kind="stable")]]


async def travel(folder: Path, fault: Fault, n: int, canary_error: float) -> Delivery:
    """All events through one fault."""
    delivery = Delivery(folder, POLICY, ROLLOUT, NOW_MS + n * STEP_MS + 60_000)
    predictions, outcomes = events(n, canary_error)
    logs = {"predictions": disturbed(predictions, fault, 0, 1),
            "outcomes": disturbed(outcomes, fault, fault.disorder, 2)}  # fmt: skip
    for topic, values in logs.items():
        delivery.write(topic, values)
    await delivery.open()
    most = max(len(values) for values in logs.values())
    for number, _ in enumerate(range(0, most, fault.window), 1):
        counts = dict.fromkeys(logs, fault.window)
        if fault.crash_every and number % fault.crash_every == 0:
            await delivery.crash(counts, other_machine=fault.new_machine)
        else:
            await delivery.take(counts, store=number % 2 == 0)
    await delivery.settle(3 * HORIZON_S)
    await delivery.close()
    return delivery


def measure(quick: bool) -> list[Finding]:
    """Whether each fault leaves every bit of every guard as it was."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    n, found = 4_000 if quick else 12_000, []
    for name, error in (("healthy canary", 0.015), ("bad canary", 0.06)):
        with tempfile.TemporaryDirectory(prefix="rollbackd-evidence-") as folder:
            told: dict[str, Any] = {}
            for number, fault in enumerate((CLEAN, *FAULTS)):
                there = Path(folder) / str(number)
                delivery = run(travel(there, fault, n, error))
                told[fault.name] = (delivery.fingerprint(), delivery.verdicts())
                same = told[fault.name] == told[CLEAN.name]
                # Every prediction has to have been judged, or equality would prove little.
                served = [v.rows for who, v in delivery.verdicts().items() if "error" in who]
                same = same and sum(served) == n
                promise = "bit-equal to the undisturbed"
                if fault is CLEAN:
                    promise = "every prediction judged"
                text = _text(delivery, same, fault)
                found.append(Finding(TABLE, fault.name, name, text, promise, same))
    return found


def _text(delivery: Delivery, same: bool, fault: Fault) -> str:
    fired = sorted(name for name, v in delivery.verdicts().items() if v.fired_ms is not None)
    said = f"alarm: {', '.join(fired)}" if fired else "no alarm"
    if fault is CLEAN:
        return f"{delivery.fingerprint()}, {said}"
    again = f", {delivery.cuts} cuts" if delivery.cuts else ""
    return f"{'every bit equal' if same else f'**{delivery.fingerprint()}**'}, {said}{again}"


def doubled(seed: Any, n: int, rate: float, bad_again: float, good_again: float) -> Rows:
    """Rows of a version, some delivered twice and counted twice."""
    rng = np.random.default_rng(seed)
    bad = rng.random(n) < rate
    again = rng.random(n) < np.where(bad, bad_again, good_again)
    return rows_of(np.repeat(bad, 1 + again))


DAMAGE = "Without a join that knows each event: the same guard, limit .02, 30,000 rows, .015 bad"


def _damage() -> list[Cell]:
    judge = shipped(guard)
    worlds = {
        "failed requests are sent again": (
            partial(doubled, n=30_000, rate=0.015, bad_again=0.6, good_again=0.0), 0.5),
        "a tenth of all rows twice": (
            partial(doubled, n=30_000, rate=0.015, bad_again=0.1, good_again=0.1), 0.0),
        "each row once": (partial(doubled, n=30_000, rate=0.015, bad_again=0.0, good_again=0.0),
                          0.0),
    }  # fmt: skip
    return [
        Cell("S12", DAMAGE, name, "share of alarms", world, judge, 400, 30,
             promises=(Promise("alarms", least=least),) if least else ())
        for name, (world, least) in worlds.items()
    ]  # fmt: skip


S12 = Scenario(
    "S12", "Duplicates, disorder, crashes, new owners", "the decision must be the same",
    "The real join and the real judge come to the same bits of evidence whatever the log, the "
    "disk and the machines do. A guard that counts what it is sent rolls back healthy versions.",
    cells=tuple(_damage()), measure=measure,
)  # fmt: skip
