"""What a policy's guards will need of traffic: requests and time to a breach, and to a promotion.

Asked before anything runs. It builds the very guards that `watch` would feed, with their part of
alpha, and asks `detectors/planning.py` how many rows each needs for a regression of a given size.
Requests are those of the whole model, stable and canary together.

What a size means depends on the limit. On a share of bad predictions it is how many times as bad as
the base rate the canary is; on a quantile, how many times as often as permitted it is exceeded; on
a mean, how many times the limit it is.

Refused: detectors named by a policy and queries, which make no such promise, and `traffic_share`,
which follows the router and not the version.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import isfinite
from typing import Any

import msgspec
from msgspec import Struct

from detectors import planning
from detectors.histogram import rows_for_quantile
from schemas.plugins import Registry, mark_of
from schemas.policies import NEEDS_LABELS, GuardSpec, Policy, Promote
from service.watch.detect import Guard, guards_for, wanted_tables
from service.watch.slices import Slice

ROWS_OF = {
    "false_positive_rate": "requests whose label is negative",
    "false_negative_rate": "requests whose label is positive",
    "recall": "requests whose label is positive",
    "precision": "requests that were flagged",
}
"""Signals that speak of some requests only."""


class Traffic(Struct, frozen=True, kw_only=True):
    """What is assumed of the requests of a model."""

    share: float = 0.1
    """The canary's, in (0, 1)."""
    base_rate: float = 0.02
    """Share of bad predictions of a healthy version, in (0, 1)."""
    per_s: float | None = None
    """Requests a second, both versions; None: only requests are told, no times."""


class Size(Struct, frozen=True):
    """How long a regression of one size stays unseen."""

    worse: float
    requests: float | None
    """Of stable and canary, about the median; None: it is never proven, being within the limit."""
    canary_requests: float | None
    time_s: float | None
    """With the wait for labels; None: never, or traffic is not told."""


class Proof(Struct, frozen=True):
    """How long an equally good canary waits for its promotion test on one signal."""

    margin: float
    bad: float
    """Bad predictions of both versions by which about two in three proofs are given."""
    requests: float
    time_s: float | None


class Forecast(Struct, frozen=True):
    """One guard or gate."""

    guard: str
    signal: str
    kind: str
    alpha: float | None
    wait_s: float
    """How long labels take to count, seconds."""
    rows_of: str
    """Which requests it speaks of."""
    sizes: list[Size] = []
    proof: Proof | None = None
    note: str = ""


def forecast(
    policy: Policy, registry: Registry, traffic: Traffic, worse: Sequence[float]
) -> list[Forecast]:
    """Plan the guards of a canary, in policy order, and then its promotion gates.

    Without a `promote` block gates are planned at the margin that one would have by default.
    """
    asked = policy
    if policy.promote is None:
        asked = msgspec.structs.replace(policy, promote=Promote())
    built = guards_for(asked, "canary", registry, "stable", _any_slice)
    told = [_of_guard(g, policy, traffic, worse) for g in built.values() if not g.gate]
    told += [
        Forecast(spec.label, spec.signal, "none", None, 0.0, "requests",
                 note="a polled value is compared at each poll; nothing is promised")
        for spec in policy.guards if spec.signal == "prometheus"
    ]  # fmt: skip
    return told + [_of_gate(g, asked, traffic) for g in built.values() if g.gate]


def _any_slice(spec: GuardSpec) -> list[Slice]:
    return [] if spec.segment is None else [Slice(spec.segment, "…")]


def _of_guard(guard: Guard, policy: Policy, traffic: Traffic, worse: Sequence[float]) -> Forecast:
    mark = mark_of(type(guard.detector))
    kind = mark.kind if mark is not None else ""
    note, sizes = "", []
    if guard.spec.signal == "traffic_share":
        note = "follows the router, not the version; not planned"
    elif kind not in REQUESTS:
        note = f"{kind} does not bound the chance of ever alarming falsely; not planned"
    else:
        sizes = [_size(guard, kind, policy, traffic, w) for w in worse]
    if guard.early is not None and not guard.early.decides:
        note = "counts labels on arrival once those of both versions are found to be equally late"
    return Forecast(
        guard.name, guard.spec.signal, kind, guard.alpha, _wait_s(guard, policy),
        _rows_of(guard), sizes, note=note,
    )  # fmt: skip


def _rows_of(guard: Guard) -> str:
    rows = ROWS_OF.get(guard.spec.signal, "requests")
    if guard.votes is not None:
        rows = f"units with {rows}"
    return rows if guard.slice is None else f"{rows} in that slice"


def _size(guard: Guard, kind: str, policy: Policy, traffic: Traffic, worse: float) -> Size:
    requests = _requests(guard, kind, traffic, worse)
    if not isfinite(requests):
        return Size(worse, None, None, None)
    time_s = _time_s(requests, _wait_s(guard, policy), traffic)
    return Size(worse, requests, requests * traffic.share, time_s)


def _requests(guard: Guard, kind: str, traffic: Traffic, worse: float) -> float:
    if kind == "mean" and guard.spec.highest is None:
        # Units vote on a rate, or on how often a bar is exceeded; each is taken to have one row.
        detector: Any = guard.detector
        healthy = traffic.base_rate if guard.bar is None else detector.limit
        rate = min(worse * healthy, 0.999)
        least = guard.spec.sampled_at_least or 1.0
        return planning.rate_rows(rate, detector.limit, detector.alpha) / traffic.share / least
    return REQUESTS[kind](guard.detector, traffic, worse)


def _of_gate(gate: Guard, policy: Policy, traffic: Traffic) -> Forecast:
    detector: Any = gate.detector
    bad = planning.promote_bad_rows(detector.margin, traffic.share, detector.beta)
    requests = bad / traffic.base_rate
    wait_s = _wait_s(gate, policy)
    proof = Proof(detector.margin - 1, bad, requests, _time_s(requests, wait_s, traffic))
    signal = gate.spec.signal
    return Forecast(
        f"promote {signal}", signal, "promote", None, wait_s, ROWS_OF.get(signal, "requests"),
        proof=proof,
    )  # fmt: skip


def _wait_s(guard: Guard, policy: Policy) -> float:
    late = guard.spec.signal in NEEDS_LABELS and "labelled" not in wanted_tables(guard)
    return float(policy.horizon) if late else 0.0


def _time_s(requests: float, wait_s: float, traffic: Traffic) -> float | None:
    return None if traffic.per_s is None else requests / traffic.per_s + wait_s


def _of_rate(detector: Any, traffic: Traffic, worse: float) -> float:
    rate = min(worse * traffic.base_rate, 0.999)
    return planning.rate_rows(rate, detector.limit, detector.alpha) / traffic.share


def _of_quantile(detector: Any, traffic: Traffic, worse: float) -> float:
    permitted = 1 - detector.quantile
    rate = min(worse * permitted, 0.999)
    return planning.rate_rows(rate, permitted, detector.alpha) / traffic.share


def _of_mean(detector: Any, traffic: Traffic, worse: float) -> float:
    mean = worse * detector.limit
    return planning.mean_rows(mean, detector.limit, detector.cap, detector.alpha) / traffic.share


def _of_canary(detector: Any, traffic: Traffic, worse: float) -> float:
    return _of_arms(detector, traffic, worse, traffic.base_rate)


def _of_quantile_canary(detector: Any, traffic: Traffic, worse: float) -> float:
    # Nothing is judged before the stable's quantile is known.
    first = rows_for_quantile(detector.quantile) / (1 - traffic.share)
    return first + _of_arms(detector, traffic, worse, 1 - detector.quantile)


def _of_arms(detector: Any, traffic: Traffic, worse: float, base_rate: float) -> float:
    """Requests, where only bad ones tell and `base_rate` of the stable's are bad."""
    share, ratio = traffic.share, min(worse, 0.999 / base_rate)
    bad = planning.canary_bad_rows(ratio, detector.margin, share, detector.alpha)
    return bad / (base_rate * (1 - share + share * ratio))


REQUESTS = {
    "rate": _of_rate, "quantile": _of_quantile, "mean": _of_mean, "canary": _of_canary,
    "quantile_canary": _of_quantile_canary, "unit_canary": _of_canary,
}  # fmt: skip
"""How to plan each kind of detector that makes a promise; infinite: never."""
