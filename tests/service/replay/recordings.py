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
