"""What the demonstration tells rollbackd: predictions, outcomes and rollouts, as plain objects.

Pure: times and draws are given. The truth about a request comes some seconds later, and later for
people without a job than for people with one, as labels do; a few never come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from service.demo.model_server import Answer
from service.demo.people import Person

MODEL = "employment"
HORIZON_S = 5.0
"""The policy's horizon; all labels that come at all come sooner."""

NEVER = 0.03
"""Share of requests whose truth is never learnt."""

Event = dict[str, Any]


def prediction_event(
    prediction_id: str, person: Person, answer: Answer, weight: float | None, now_ms: int
) -> Event:
    """Tell what was served.

    Parameters
    ----------
    weight : float or None
        Probability with which the router chose this version, as the router said; None or 0: it
        did not say, or the weights moved while the request was under way.
    """
    event: Event = {
        "type": "prediction",
        "prediction_id": prediction_id,
        "model": MODEL,
        "version": answer.version,
        "served_at": now_ms,
        "prediction": answer.prediction,
        "score": answer.score,
        "latency_ms": answer.latency_ms,
        "features": {"age": person.features["AGEP"], "schooling": person.features["SCHL"]},
    }
    return {**event, "weight": weight} if weight else event


def outcome_event(prediction_id: str, person: Person, now_ms: int) -> Event:
    """Tell the truth about a request."""
    return {
        "type": "outcome",
        "prediction_id": prediction_id,
        "model": MODEL,
        "observed_at": now_ms,
        "label": person.employed,
    }


def rollout_event(stable: str, shares: Mapping[str, int], now_ms: int) -> Event:
    """Tell the traffic plan from now on; `shares` in percent."""
    canary = next((name for name in shares if name != stable and shares[name] > 0), None)
    event: Event = {
        "type": "rollout",
        "model": MODEL,
        "stable": stable,
        "canary": canary,
        "at": now_ms,
        "source": "demo-pipeline",
    }
    return event if canary is None else {**event, "weight": shares[canary] / 100}


def delay_s(label: int, draws: np.random.Generator) -> float | None:
    """Seconds until the truth about one request is known; None: it never is."""
    if draws.random() < NEVER:
        return None
    shortest, longest = (0.5, 2.5) if label == 1 else (1.0, 4.0)
    return float(draws.uniform(shortest, longest))
