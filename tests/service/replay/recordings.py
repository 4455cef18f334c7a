"""Recordings for tests, seeded, and a replay of them in this process."""

from __future__ import annotations

import json
import random
from typing import Any, NamedTuple

import detectors
from schemas.plugins import Registry
from schemas.policies import Policy
from service.config import parse
from service.replay.course import Terms
from service.replay.run import WINDOW, Replay

START_MS = 1_767_225_600_000
REGISTRY = Registry.of(detectors)

POLICY = """\
policies:
  - model: credit-risk
    mode: enforce
    positive: 1
    horizon: 30s
    max_silence: 20s
    cooldown: 10s
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: latency_ms, quantile: 0.9, max: 300}
      - {signal: accuracy, min: 0.90}
      - {signal: score, detector: adwin, action: alert}
"""

Line = dict[str, Any]


class Result(NamedTuple):
    """What a replay printed."""

    lines: list[Line]
    summary: Line

    def of(self, kind: str) -> list[Line]:
        """Lines of one kind."""
        return [line for line in self.lines if line["kind"] == kind]


def a_prediction(key: str, at_s: float, version: str = "v41", **more: Any) -> Line:
    """A prediction served so many seconds after the start."""
    return {"type": "prediction", "prediction_id": key, "model": "credit-risk",
            "version": version, "served_at": START_MS + round(at_s * 1000), **more}  # fmt: skip


def an_outcome(key: str, at_s: float, label: Any = 1, **more: Any) -> Line:
    """An outcome observed so many seconds after the start."""
    return {"type": "outcome", "prediction_id": key, "label": label,
            "observed_at": START_MS + round(at_s * 1000), **more}  # fmt: skip


def a_rollout(at_s: float = 0.0, **more: Any) -> Line:
    """v42 is canary of v41 at a fifth."""
    return {"type": "rollout", "model": "credit-risk", "stable": "v41", "canary": "v42",
            "weight": 0.2, "at": START_MS + round(at_s * 1000)} | more  # fmt: skip


def traffic(
    seed: int = 7, seconds: int = 120, wrong: float = 0.02, canary_wrong: float = 0.02,
    stable_fails: float = 0.0, canary_fails: float = 0.0,
) -> list[Line]:  # fmt: skip
    """Ten predictions a second and their outcomes, in order of arrival, after a rollout."""
    chance = random.Random(seed)
    timed: list[tuple[float, int, Line]] = [(0.0, 0, a_rollout())]
    for number in range(10 * seconds):
        at_s, version = number / 10, "v42" if chance.random() < 0.2 else "v41"
        is_canary = version == "v42"
        label = int(chance.random() < 0.3)
        is_wrong = chance.random() < (canary_wrong if is_canary else wrong)
        more: Line = {
            "prediction": 1 - label if is_wrong else label, "score": round(chance.random(), 3),
            "latency_ms": round(chance.uniform(20, 200), 1), "weight": 0.2 if is_canary else 0.8,
        }  # fmt: skip
        if chance.random() < (canary_fails if is_canary else stable_fails):
            more["error"] = "boom"
        key = f"p{number}"
        timed.append((at_s, number + 1, a_prediction(key, at_s, version, **more)))
        if chance.random() < 0.95:
            later_s = at_s + chance.expovariate(1 / 5)
            timed.append((later_s, number + 1, an_outcome(key, later_s, label)))
    return [line for _, _, line in sorted(timed, key=lambda one: one[:2])]


def restless(seed: int) -> list[Line]:
    """Everything at once: four models, late rows, gaps, plans of all times, repeats."""
    chance = random.Random(seed)
    lines: list[Line] = []
    at_s = 0.0
    for number in range(chance.randrange(100, 400)):
        at_s += chance.choice([0.01, 0.05, 0.1, 0.1, 0.2, 0.2, 1.0 if number % 7 else 8.0])
        what, model = chance.random(), chance.choice(["m1", "m2", "n1", "nobody"])
        late_s = chance.choice([0.0, 0.0, 0.0, 6 * chance.random()])
        key = f"k{number if chance.random() < 0.97 else chance.randrange(number + 1)}"
        if what < 0.02:
            lines.append(a_rollout(at_s + chance.choice([0, -2, 2, 6]), model=model, stable="v1",
                                   canary=chance.choice([None, "v2", "v3"]),
                                   weight=chance.choice([0, 0.1, 0.5])))  # fmt: skip
        elif what < 0.6:
            version = chance.choice(["v1", "v2", "v2", "v3"] if what < 0.05 else ["v1", "v2"])
            line = a_prediction(
                key, at_s - late_s, version, model=model, prediction=chance.choice([0, 1]),
                score=chance.random(), latency_ms=500 * chance.random(),
                features={"x": chance.random() + (number > 200)},
            )  # fmt: skip
            is_bad = chance.random() < (0.5 if version == "v2" and seed % 2 else 0.02)
            lines.append(line | {"error": "boom"} if is_bad else line)
        else:
            key = f"k{max(0, number - chance.randrange(1, 30))}"
            lines.append(an_outcome(key, at_s - late_s / 2, chance.choice([0, 1])))
    return lines


def packed(lines: list[Line]) -> list[bytes]:
    """Lines as they lie in a file."""
    return [json.dumps(line).encode() + b"\n" for line in lines]


def terms(text: str = POLICY) -> Terms:
    """What a settings file says about judging."""
    config = parse(text)
    return Terms(config.policies, REGISTRY, config.digest)


def replayed(
    lines: list[bytes], policies: str | list[Policy] = POLICY, window: int = WINDOW
) -> Result:
    """Replay lines, so many at once."""
    given = terms(policies) if isinstance(policies, str) else Terms(policies, REGISTRY, "digest")
    one, told = Replay(given), []
    for at in range(0, len(lines), window):
        told += list(one.take(at + 1, lines[at : at + window]))
    return Result([*told, *one.finish()], one.summary())
