"""What producers say: predictions, outcomes and rollouts.

The fields are those of the public contract; unknown fields are ignored and counted by the reader
(`schemas/wire.py`). Times stay in their wire form here, `schemas/times.py` turns them into
milliseconds. JSON `null` in an optional field means that it is absent.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from schemas.times import WireTime

Name = Annotated[str, Meta(min_length=1, max_length=128)]
Share = Annotated[float, Meta(ge=0, le=1)]
Value = float | str
"""A class or a value. Numbers are one kind: 1 and 1.0 are the same class."""


class Prediction(Struct, frozen=True, gc=False):
    """One served output of one model version."""

    prediction_id: Name
    model: Name
    version: Name
    served_at: WireTime
    prediction: Value | None = None
    score: float | None = None
    latency_ms: Annotated[float, Meta(ge=0)] | None = None
    error: str | bool | None = None
    """Present (a string, or true) when the request failed."""
    weight: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Probability with which the router chose this version for this request."""
    unit: str | None = None
    features: Annotated[dict[str, Value], Meta(max_length=64)] | None = None
    segments: Annotated[dict[str, str], Meta(max_length=8)] | None = None
    arrived_at: WireTime | None = None
    """Only read in recordings: when the event arrived."""


class Outcome(Struct, frozen=True, gc=False):
    """The later truth about one prediction."""

    prediction_id: Name
    observed_at: WireTime
    label: Value
    model: Name | None = None
    cost: float | None = None
    sampled: Annotated[float, Meta(gt=0, le=1)] | None = None
    """Known probability with which this prediction was sent to labelling, where labels are bought
    for a sample; absent: its label came by itself."""
    arrived_at: WireTime | None = None


class Canary(Struct, frozen=True):
    """One of several canaries, and its share of traffic."""

    version: Name
    weight: Share


class Rollout(Struct, frozen=True, kw_only=True):
    """The traffic plan of a model from now on."""

    model: Name
    stable: Name
    canary: Name | None
    """None: no canary, stable has all."""
    weight: Share | None = None
    """The canary's share, in [0, 1]; required with a canary."""
    canaries: Annotated[list[Canary], Meta(max_length=8)] | None = None
    """Canaries besides that one, each with its own share."""
    at: WireTime
    rollout_id: Name | None = None
    source: str | None = None
    arrived_at: WireTime | None = None


Event = Prediction | Outcome | Rollout
EVENTS: dict[str, type[Prediction] | type[Outcome] | type[Rollout]] = {
    "prediction": Prediction,
    "outcome": Outcome,
    "rollout": Rollout,
}
"""Event types by the word that names them on the wire."""

TOPIC_OF = {"prediction": "predictions", "outcome": "outcomes", "rollout": "rollouts"}
"""The topic on which events of a type travel."""
