"""What is thought of one version: the verdict, and each guard's part in it.

Four values and a reason. `inconclusive` (the evidence is not enough yet) and `unknown` (events or
labels are missing, stale or contradictory) are values of their own: neither can ever move traffic.
"""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

VerdictValue = Literal["pass", "breach", "inconclusive", "unknown"]
Roles = Literal["declared", "inferred"]

REASONS = {
    "within_objectives": "every limit holds with the promised confidence",
    "guard_alarmed": "a guard has proved that its objective failed",
    "too_few": "not enough events yet to decide",
    "immature": "labels have not had their time yet",
    "promotion_pending": "no limit failed, but the promotion tests are not won",
    "no_guards": "the policy has no guard that can judge this version",
    "no_policy": "no policy names this model",
    "no_data": "no predictions of this version arrive",
    "stale": "events stopped arriving",
    "label_outage": "predictions mature without labels",
    "not_identifiable": "the labels that come cannot tell this signal",
    "join_rate": "too few predictions find their outcome",
    "both_moved": "stable and canary became worse together",
    "stable_ill": "the stable version itself fails its objectives",
    "own_lag": "rollbackd is behind the events",
    "source_down": "an outside source of a signal does not answer",
    "nan": "a signal is not a number",
    "inf": "a signal is infinite",
    "partial_data": "an outside source answered in part",
    "ambiguous": "a query gives more than one series",
    "query_error": "a query failed",
}
"""Every reason of a verdict, with the words a person reads."""


class GuardVerdict(Struct, frozen=True, omit_defaults=False):
    """One guard's part of a verdict; also the `evidence` of a breach."""

    name: str
    signal: str
    verdict: VerdictValue
    estimate: float | None = None
    lower: float | None = None
    upper: float | None = None
    """Anytime-valid interval of the estimate at the guard's alpha, in the signal's own unit."""
    stable_estimate: float | None = None
    evidence: float | None = None
    """Log e-value, nats; None for detectors without a guarantee."""
    threshold: float | None = None
    n: int = 0
    coverage: float | None = None
    action: str = "rollback"
    limit: float | None = None
    alpha: float | None = None
    guarantee: bool = True
    reason: str = ""
    guard: str = ""
    """The guard of the policy that this is a part of, where it watches slices apart."""
    slice: str = ""
    """The slice that was judged, as `country=DE`; empty: all rows together."""
    note: str = ""
    """What else a reader has to know: that labels are judged matured although `conditional`."""
    votes: str = "prediction"
    """What `n` counts: `prediction`; `unit`, each with one vote; `pair` of canary and stable."""
    slices: int = 0
    """Of all rows together: how many slices are judged besides. A verdict lists the worst."""
    beyond: int = 0
    """Rows of slices that came when all places were taken: judged only with all rows together."""


class Verdict(Struct, frozen=True):
    """The current judgement of one version."""

    model: str
    version: str
    rollout_id: str
    verdict: VerdictValue
    reason: str
    """A word of `REASONS`."""
    text: str
    """One sentence that a person understands."""
    guards: list[GuardVerdict]
    roles: Roles
    decided_at: int
    """Event time, epoch ms."""
    position: dict[str, int | str]
    """The event that decided: `{topic, partition, offset}`."""
    role: str = "canary"
    predictions: int = 0
    """Predictions of the version so far."""
    share: float | None = None
    """Its share of the model's predictions of late."""
    coverage: float | None = None
    """Share of its predictions past their horizon, or labelled, that have a label."""
