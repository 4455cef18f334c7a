"""Guards of one version: which detectors a policy wants, and what each is fed.

A guard has one detector on one signal. Limits against a number are judged on the version alone,
for stable and canary alike (a stable that fails its own objective is no target); limits against
the concurrent stable are judged for the canary, on the rows of both.

Refused here: thinking about what a reading means (`decide.py`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import structlog

from detectors.base import Detector, Interval, Reading, Rows, StateMismatch
from detectors.delay_check import DelayCheck
from detectors.histogram import Histogram
from schemas.plugins import Registry
from schemas.policies import (
    GATE,
    HIGHER_IS_BETTER,
    NEEDS_LABELS,
    NEEDS_MEAN_GUARD,
    PROVABLE,
    RATES,
    GuardSpec,
    Policy,
)
from service.watch.early import FROM_THE_START, Early
from service.watch.named import params_of
from service.watch.pairs import Pairs
from service.watch.slices import Slice, name_of
from service.watch.votes import Votes

RECENT_ROWS = 512
"""Rows after which a guard's recent mean forgets half."""

log = structlog.get_logger()


@dataclass
class Guard:
    """One detector at work, and what must be known to read it."""

    spec: GuardSpec
    detector: Detector
    arms: str
    alpha: float | None
    limit: float | None
    """The limit as a loss: accuracy 0.9 is a loss of 0.1."""
    recent_rows: int = 0
    recent_loss: float = 0.0
    fired: dict[str, int | str] = field(default_factory=dict)
    """Name of the row at which it fired."""
    rows: int = 0
    slice: Slice | None = None
    """The slice it judges; None: all rows."""
    gate: bool = False
    """It proves a canary fit for promotion; its alarm is no breach."""
    votes: Votes | Pairs | None = None
    """Units that vote together; None: every row is a vote of its own."""
    bar: float | None = None
    """With votes on a quantile: what is voted on is whether a row lies above this."""
    values: Histogram | None = None
    """With a bar: the values themselves, for display."""
    early: Early | None = None
    """What hears labels on arrival."""
    latched: bool = False
    """It has fired, and what fired it was named."""

    @property
    def name(self) -> str:
        """The guard's name in reports."""
        return name_of(self.spec, self.slice)

    @property
    def counts(self) -> Literal["prediction", "unit", "pair"]:
        """What its detector counts."""
        if self.votes is None:
            return "prediction"
        return "unit" if isinstance(self.votes, Votes) else "pair"

    @property
    def guarantee(self) -> bool:
        """Whether its false alarms are bounded by alpha."""
        return self.spec.detector is None and self.spec.signal != "prometheus"

    def recent_mean(self) -> float | None:
        """Mean loss of about the last `RECENT_ROWS` rows (exceedances for quantiles)."""
        return self.recent_loss / self.recent_rows if self.recent_rows else None

    def reading(self) -> Reading:
        """What it says: its detector, or the form that hears labels on arrival, if that spoke."""
        if self.early is None:
            return self.detector.reading()
        early: Reading = self.early.detector.reading()
        if self.early.decides:
            return early
        late = self.detector.reading()
        return early if early.fired_at is not None and late.fired_at is None else late

    def interval(self) -> Interval:
        """What its detector estimates; with a bar the quantile itself, without bounds."""
        if self.early is not None and self.early.detector.reading().fired_at is not None:
            spoken: Interval = self.early.detector.interval()
            return spoken
        if self.values is None or self.spec.quantile is None:
            return self.detector.interval()
        known = self.values.n > 0
        return Interval(estimate=self.values.quantile(self.spec.quantile) if known else None)

    def feed(self, rows: Rows) -> Reading:
        """Update the detector and the recent mean."""
        self.note(rows)
        return self.detector.update(rows)

    def ballot(self, rows: Rows) -> Rows:
        """Note rows, and give what their units vote on: losses in [0, cap]."""
        self.note(rows)
        if self.values is not None and self.bar is not None:
            self.values.add(rows.loss)
            return rows._replace(loss=(rows.loss > self.bar).astype(np.float64))
        if self.spec.highest is not None:
            return rows._replace(loss=np.clip(rows.loss, 0.0, self.spec.highest))
        return rows

    def note(self, rows: Rows) -> None:
        """Keep the recent mean."""
        own = rows.loss if rows.canary is None else rows.loss[rows.canary]
        if len(own):
            bad = own > self.limit if self.spec.quantile is not None and self.limit else own
            if self.spec.highest is not None:
                bad = np.clip(own, 0.0, self.spec.highest)
            self.recent_rows += len(own)
            self.recent_loss += float(bad.sum())
            self.rows += len(own)
            while self.recent_rows > 2 * RECENT_ROWS:
                self.recent_rows //= 2
                self.recent_loss /= 2

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""
        return {
            "detector": self.detector.state(), "recent": [self.recent_rows, self.recent_loss],
            "fired": self.fired, "rows": self.rows,
            "votes": None if self.votes is None else self.votes.state(),
            "values": None if self.values is None else self.values.saved(),
            "early": None if self.early is None else self.early.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue where a state was saved; starts afresh, and says so, when it does not fit."""
        try:
            self.detector.restore(state["detector"])
            if self.early is not None:
                self.early.restore(state["early"] or {})
        except (StateMismatch, KeyError) as fault:
            log.warning("guard_starts_afresh", guard=self.name, reason=str(fault))
            return
        self.recent_rows, self.recent_loss = state["recent"]
        self.fired, self.rows = dict(state["fired"]), state["rows"]
        self.latched = self.reading().fired_at is not None
        if self.votes is not None and state.get("votes") is not None:
            self.votes.restore(state["votes"])
        if self.values is not None and state.get("values") is not None:
            self.values.restore(state["values"])


def guards_for(
    policy: Policy, role: str, registry: Registry, stable: str,
    slices: Callable[[GuardSpec], Iterable[Slice]] = lambda spec: (),
) -> dict[str, Guard]:  # fmt: skip
    """Build the guards of a version in a role: `stable` or `canary`; the latter with its gates.

    Parameters
    ----------
    stable : str
        The stable version, against which gates prove.
    slices : callable
        Gives the slices that a guard with a segment judges besides all rows.
    """
    built = gates_for(policy, registry, stable) if role == "canary" else {}
    for spec in policy.guards:
        if spec.signal == "prometheus":
            continue
        if role != "canary" and (spec.max_increase is not None or spec.signal == "traffic_share"):
            continue
        for part in (None, *slices(spec)):
            guard = build(spec, policy, registry, part)
            built[guard.name] = guard
    return built


def gates_for(policy: Policy, registry: Registry, stable: str) -> dict[str, Guard]:
    """Build the promotion gates of a canary: one for each signal that has a limit and is provable.

    A proof is about one pair of versions, so a gate bears the stable's name: under another stable
    it is another gate, without evidence.
    """
    if policy.promote is None:
        return {}
    margin = policy.promote.margin
    signals = [g.signal for g in policy.guards if g.detector is None and g.signal in PROVABLE]
    gates = {}
    for signal in dict.fromkeys(signals):
        name = f"{GATE}{signal} against {stable}"
        spec = GuardSpec(signal=signal, name=name, max_increase=margin)
        kind = "unit_promote" if policy.votes == "unit" else "promote"
        detector = registry.make(kind, margin=1 + margin)
        gate = Guard(spec, detector, "paired", None, None, gate=True)
        gate.votes = votes_for(policy, gate)
        gates[name] = gate
    return gates


def loss_limit(spec: GuardSpec) -> float | None:
    """A guard's limit as the largest accepted loss; None when it is relative or has none."""
    if spec.signal in HIGHER_IS_BETTER or (spec.signal == "traffic_share" and spec.max is None):
        return None if spec.min is None else 1 - spec.min
    return spec.max


def build(spec: GuardSpec, policy: Policy, registry: Registry, part: Slice | None = None) -> Guard:
    """Build one guard, of all rows or of one slice."""
    if spec.detector is not None:
        detector = registry.make(spec.detector, **params_of(spec, policy, registry))
        guard = Guard(spec, detector, "single", None, None)
    else:
        alpha = policy.guard_alpha() * spec.part(part is not None)
        # A share of traffic is the router's doing, row by row.
        by_unit = policy.votes == "unit" and spec.signal != "traffic_share"
        mode = _mode(spec, policy)
        own = alpha / 2 if mode == "conditional" else alpha
        guard = (_of_units if by_unit else _of_rows)(spec, own, registry)
        guard.early = _early(mode, guard, policy, registry)
        guard.alpha = alpha
        guard.votes = votes_for(policy, guard) if spec.signal != "traffic_share" else None
    guard.slice = part
    return guard


def _mode(spec: GuardSpec, policy: Policy) -> str:
    """How labels count for a guard: as the policy says, where that is possible."""
    if spec.signal not in NEEDS_LABELS or spec.signal == "label_coverage":
        return "matured"
    if policy.labels == "conditional":
        return "conditional" if spec.max_increase is not None else "matured"
    if policy.labels == "optimistic" and spec.max_increase is None:
        return "optimistic" if spec.signal in FROM_THE_START else "matured"
    return "matured"


def _early(mode: str, guard: Guard, policy: Policy, registry: Registry) -> Early | None:
    """Build the part that hears labels on arrival."""
    horizon_ms, spec = policy.horizon.ms, guard.spec
    if mode == "conditional":
        params: dict[str, Any] = {"margin": 1 + (spec.max_increase or 0.0), "alpha": guard.alpha}
        return Early(registry.make("canary", **params), DelayCheck(horizon_ms))
    if mode != "optimistic":
        return None
    params = {"limit": guard.limit, "horizon_ms": horizon_ms, "alpha": guard.alpha}
    if spec.signal in NEEDS_MEAN_GUARD:
        return Early(registry.make("optimistic_mean", cap=spec.highest, **params))
    return Early(registry.make("optimistic_rate", **params))


def votes_for(policy: Policy, guard: Guard) -> Votes | Pairs | None:
    """What gathers rows into votes before a guard's detector; None: every row is one."""
    if policy.votes == "pair" and guard.arms == "paired":
        return Pairs(policy.unit_window.ms)
    if policy.votes != "unit":
        return None
    return Votes(policy.unit_window.ms, paired=guard.arms == "paired", gate=guard.gate)


def _of_units(spec: GuardSpec, alpha: float, registry: Registry) -> Guard:
    """Build a guard that is fed the mean losses of units, each in [0, cap]."""
    limit = loss_limit(spec)
    if spec.max_increase is not None:
        detector = registry.make("unit_canary", margin=1 + spec.max_increase, alpha=alpha)
        return Guard(spec, detector, "paired", alpha, None)
    if spec.quantile is not None:
        detector = registry.make("mean", limit=1 - spec.quantile, alpha=alpha)
        guard = Guard(spec, detector, "single", alpha, limit)
        guard.bar, guard.values = limit, Histogram()
        return guard
    cap = 1.0 if spec.highest is None else spec.highest
    detector = registry.make("mean", limit=limit, cap=cap, alpha=alpha)
    return Guard(spec, detector, "single", alpha, limit)


def _of_rows(spec: GuardSpec, alpha: float, registry: Registry) -> Guard:
    limit = loss_limit(spec)
    params: dict[str, Any]
    if spec.max_increase is not None:
        if spec.signal in RATES:
            kind, params = "canary", {"margin": 1 + spec.max_increase}
        else:
            kind = "quantile_canary"
            params = {"quantile": spec.quantile, "stretch": 1 + spec.max_increase, "margin": 1.0}
        return Guard(spec, registry.make(kind, alpha=alpha, **params), "paired", alpha, None)
    if spec.max_decrease is not None:
        margin = 1 / (1 - spec.max_decrease)
        return Guard(spec, registry.make("canary", alpha=alpha, margin=margin), "paired", alpha,
                     None)  # fmt: skip
    if spec.quantile is not None:
        kind, params = "quantile", {"quantile": spec.quantile, "limit": limit}
    elif spec.sampled_at_least is not None:
        kind, params = "mean", {"limit": limit, "cap": 1 / spec.sampled_at_least}
    elif spec.signal in NEEDS_MEAN_GUARD:
        kind, params = "mean", {"limit": limit, "cap": spec.highest}
    else:
        kind, params = "rate", {"limit": limit}
    return Guard(spec, registry.make(kind, alpha=alpha, **params), "single", alpha, limit)


def wanted_tables(guard: Guard) -> tuple[str, ...]:
    """Which tables carry a guard's rows.

    Labels count once they had their time (`final`), so that fast bad labels cannot accuse a young
    version; how some of them may count on arrival stands in `early.py`. Never for a gate: labels
    that come late for the canary alone would look like proof.
    """
    if guard.spec.signal not in NEEDS_LABELS:
        return ("served",)
    if guard.early is None:
        return ("final",)
    return ("served", "labelled", "final") if guard.early.decides else ("labelled", "final")
