"""What a user promises and permits, per model: guards, label mode, mode of action, adapter.

Policies are data. Each field is followed by a string that says meaning, unit and reason; the
reference in docs/policies.md is made from them. `faults` gives everything that types cannot say,
with paths, all at once.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Sequence
from math import inf, isfinite
from typing import Any, Literal

from msgspec import Struct, field

from schemas.commands import Mode
from schemas.durations import Duration
from schemas.queries import faults_of_query
from schemas.times import WireTime, to_ms

SIGNALS = (
    "error_rate", "latency_ms", "accuracy", "error", "false_positive_rate", "false_negative_rate",
    "precision", "recall", "fp_per_prediction", "brier", "absolute_error", "cost", "score",
    "prediction", "label_coverage", "traffic_share", "prometheus",
)  # fmt: skip
"""Signals by name; `feature:NAME` besides."""

RATES = frozenset({
    "error_rate", "accuracy", "error", "false_positive_rate", "false_negative_rate", "precision",
    "recall", "fp_per_prediction", "label_coverage", "traffic_share",
})  # fmt: skip
"""Signals that are shares in [0, 1]."""

HIGHER_IS_BETTER = frozenset({"accuracy", "precision", "recall", "label_coverage"})
"""Rates whose loss is one minus the rate."""

NEEDS_POSITIVE = frozenset({
    "false_positive_rate", "false_negative_rate", "precision", "recall", "fp_per_prediction",
    "brier",
})  # fmt: skip

NEEDS_LABELS = NEEDS_POSITIVE | {"accuracy", "error", "absolute_error", "cost", "label_coverage"}

PROVABLE = frozenset({
    "error_rate", "error", "accuracy", "false_positive_rate", "false_negative_rate", "recall",
    "precision", "fp_per_prediction",
})  # fmt: skip
"""Signals of which a promotion gate can prove that the canary is no worse than the stable."""

GATE = "promote "
"""How the names of promotion gates begin; no guard may be called so."""

PER_PREDICTION = frozenset({"error", "accuracy", "fp_per_prediction"})
"""Rates of labelled rows whose denominator is all predictions."""

MOST_SLICES = 256
"""Slices of one guard at most; each has detectors of its own in memory."""

NEEDS_MEAN_GUARD = frozenset({"brier", "absolute_error", "cost"})
"""Signals whose mean is judged; it needs a highest loss that counts (`cap`)."""


LIMITS = ("max", "min", "max_increase", "max_decrease")
"""Ways to write a limit; a guard has exactly one."""


class GuardSpec(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One guard: a detector on one signal, with its limit."""

    signal: str
    """What is watched; one of the signals, or `feature:NAME`."""
    name: str | None = None
    """How reports call the guard; derived from signal and limit when left out."""
    max: float | None = None
    """Highest value that is accepted, in the signal's own unit."""
    min: float | None = None
    """Lowest value that is accepted."""
    max_increase: float | None = None
    """Accepted relative increase against the concurrent stable: 0.15 is 15 % above."""
    max_decrease: float | None = None
    """For `traffic_share`: how far, relative, the canary's share may lie below its weight; 0.5 is
    half of it."""
    quantile: float | None = None
    """For signals that are values: which quantile the limit binds, in (0, 1)."""
    cap: float | None = None
    """For `absolute_error` and `cost`: the highest value that counts, in the signal's own unit. The
    limit speaks of the mean of values so bounded; without a bound one row could be the whole mean.
    `brier` has 1."""
    sampled_at_least: float | None = None
    """Where labels are bought for a random part of predictions (outcomes carry `sampled`, the
    chance of it): the least such chance, in (0, 1]. Each bad label then counts for as many
    predictions as it stands for. For limits on `error`, `accuracy` and `fp_per_prediction`."""
    detector: str | None = None
    """A detector by name instead of a limit: river's `adwin`, `page_hinkley`, `kswin` on any
    signal, `ddm`, `eddm`, `fhddm`, `hddma`, `hddmw` on rates, or `stable_watch`. A warning, no
    guarantee; `check` notes what each is blind to. `dummy` and `no_drift` are yardsticks and may
    only alert."""
    params: dict[str, float | str] = {}
    """Parameters of that detector, by river's names; losses are watched for `side: up`, scores and
    features for `both`. ADWIN's `delta` is 0.002, shared by the features of a policy."""
    query: str | None = None
    """PromQL, for the signal `prometheus`; must give exactly one series."""
    every: Duration = Duration(15)
    """How often the query is asked."""
    action: Literal["rollback", "hold", "alert"] | None = None
    """What a breach leads to; `rollback` for limits, `alert` for river detectors and queries."""
    segment: str | None = None
    """Watch each value of this segment apart, besides all rows together."""
    slices: int = 16
    """How many values of the segment are judged at most, the first that come; half of the guard's
    error budget is shared evenly among so many, the other half stays with all rows together. Rows
    of later values count only there, and the verdict says how many."""

    @property
    def acts(self) -> str:
        """The action in force."""
        if self.action is not None:
            return self.action
        return "alert" if self.detector or self.signal == "prometheus" else "rollback"

    @property
    def highest(self) -> float | None:
        """The cap in force, for signals whose mean is judged."""
        return 1.0 if self.cap is None and self.signal == "brier" else self.cap

    def part(self, sliced: bool) -> float:
        """The part of the guard's alpha that all rows together have, or one slice."""
        if self.segment is None:
            return 1.0
        return 0.5 / self.slices if sliced else 0.5

    @property
    def label(self) -> str:
        """The guard's name in force."""
        if self.name:
            return self.name
        parts = [self.signal]
        if self.quantile is not None:
            parts.append(f"p{self.quantile * 100:g}")
        if self.detector:
            parts.append(self.detector)
        for word in ("max", "min", "max_increase", "max_decrease"):
            if (limit := getattr(self, word)) is not None:
                parts.append(f"{word}={limit:g}")
        if self.segment is not None:
            parts.append(f"[{self.segment}]")
        return " ".join(parts)


class Promote(Struct, frozen=True, forbid_unknown_fields=True):
    """When a canary may become stable."""

    steps: list[float] = field(default_factory=lambda: [0.05, 0.25, 0.5, 1.0])
    """Shares of traffic that a canary is given one after the other, growing, in (0, 1]. After the
    last one below 1 it becomes stable."""
    margin: float = 0.25
    """A canary passes once it is proven no worse than stable by more than this, relative, on every
    signal with a limit that is a share of bad predictions."""
    bake: Duration = Duration(86_400)
    """How long a step is held at least (event time): one cycle of traffic."""
    proof: Literal["each", "final"] = "each"
    """`each`: every step waits for the proof. `final`: the steps before the last need only that no
    limit failed and nothing is unknown, which is faster and exposes more."""


RESPONSES = ("alert", "hold", "shrink", "rollback")
"""What a breach may lead to, the mildest first."""


class Budget(Struct, frozen=True, forbid_unknown_fields=True):
    """How often something may be done by itself."""

    rollbacks: int = 2
    """Automatic rollbacks; more are refused, and a person is called."""
    per: Duration = Duration(86_400)
    """Within so much wall time."""


class Freeze(Struct, frozen=True, forbid_unknown_fields=True):
    """A time in which nothing is promoted. Rollbacks go on: they are what keeps it safe."""

    begins: WireTime
    """Wall time, RFC 3339 or epoch milliseconds."""
    ends: WireTime
    reason: str = "freeze"
    """What people read on the record."""
    model: str = "*"
    """Exact name or glob."""


class Policy(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is promised and permitted for one model, or for all that a glob names."""

    model: str
    """Exact name or glob; the first policy that matches holds."""
    adapter: str | None = None
    """Which of `adapters` executes commands; none: `dry_run`."""
    mode: Mode = "observe"
    """`observe` records what it would do, `propose` asks a person, `enforce` acts."""
    positive: float | str | None = None
    """Label of the positive class, for binary tasks."""
    horizon: Duration = Duration(7 * 86_400)
    """How long an outcome may take; a prediction without one counts as unlabelled then."""
    labels: Literal["matured", "optimistic", "conditional"] = "matured"
    """When a label counts: once its prediction is as old as the horizon, or on arrival."""
    alpha: float = 0.01
    """Chance of ever rolling back a healthy version, shared by the guards, in (0, 0.5)."""
    guards: list[GuardSpec] = []
    promote: Promote | None = None
    budget: Budget = field(default_factory=Budget)
    """Automatic rollbacks of this model. Once refused by it, no other follows until all of them are
    that long ago: the breaker against a version that turns bad and well and bad again."""
    response: list[Literal["alert", "hold", "shrink", "rollback"]] = field(
        default_factory=lambda: ["rollback"]
    )
    """What a breach that asks for a rollback leads to, one after the other, each after `patience`
    in which nobody acted: tell, stop the release, leave the canary `shrink_to`, roll back."""
    patience: Duration = Duration(600)
    """Event time between two of them."""
    shrink_to: float = 0.01
    """The share of traffic that `shrink` leaves a canary, in (0, 1)."""
    cooldown: Duration = Duration(6 * 3600)
    """After a rollback, how long no other automatic one of this model may follow (wall time)."""
    quarantine: Duration = Duration(24 * 3600)
    """How long a version that was rolled back is no target and is not promoted (event time)."""
    good_after: Duration = Duration(3600)
    """How long a version must have been stable and kept its limits (event time), before a later
    stable that fails may be rolled back to it."""
    long_lived_after: Duration = Duration(7 * 86_400)
    """A version that has been stable for so long (event time) is watched by a test that re-arms
    itself, with a stated run length in place of a budget for its whole life."""
    false_alarm_every: Duration = Duration(730 * 86_400)
    """Of a long-lived stable: time between two false alarms of one guard, on average at least."""
    roles: Literal["declared", "inferred"] = "declared"
    """`inferred` permits acting when no rollout event names stable and canary."""
    votes: Literal["prediction", "unit", "pair"] = "prediction"
    """`unit`: predictions of one unit (a user or session) within `unit_window` are one vote, their
    mean loss. Without it, requests that fail together count as independent witnesses. `pair`: for
    shadow traffic; the canary's and the stable's prediction with the same `unit` (the request) are
    one pair, and limits against the stable and promotion count the pairs that differ."""
    unit_window: Duration = Duration(1800)
    """Event time within which a unit has one vote."""
    max_decision_age: Duration = Duration(300)
    """A decision older than this (wall time against event time) is recorded and not sent."""
    max_silence: Duration = Duration(60)
    """A version that is silent for so long while another serves, or with all else (event time), is
    unknown."""
    min_coverage: float = 0.5
    """Share of matured predictions that must have a label, in [0, 1]; below it: unknown."""
    verify_within: Duration = Duration(30)
    """How long traffic has to show that a command worked (event time)."""
    expires_after: Duration = Duration(300)
    """A command not executed for so long is dropped, and said to be."""
    retries: int = 1
    """How often a rollback that traffic does not confirm is tried again before a page."""
    min_rows: int = 30
    """Rows of a version below which its guards say `too_few` instead of judging health."""

    def matches(self, model: str) -> bool:
        """Whether this policy speaks of the model."""
        return self.model == model or fnmatch.fnmatchcase(model, self.model)

    def guard_alpha(self) -> float:
        """Each guard's part of the error budget: guards that can roll back share it evenly."""
        sharers = sum(1 for guard in self.guards if guard.acts != "alert" and not guard.detector)
        return self.alpha / max(1, sharers)


def policy_for(policies: list[Policy], model: str) -> Policy | None:
    """Return the first policy that matches, or None."""
    return next((policy for policy in policies if policy.matches(model)), None)


def frozen(freezes: Sequence[Freeze], model: str, now_ms: int) -> str | None:
    """Say why nothing of a model is promoted at a wall time, or None."""
    for freeze in freezes:
        if fnmatch.fnmatchcase(model, freeze.model) and (
            to_ms(freeze.begins) <= now_ms < to_ms(freeze.ends)
        ):
            return freeze.reason
    return None


_NEVER_ZERO = (
    "horizon", "unit_window", "max_decision_age", "max_silence", "verify_within", "expires_after",
    "long_lived_after", "false_alarm_every",
)  # fmt: skip


def faults_of_policies(policies: list[Policy], adapters: set[str]) -> Iterator[str]:
    """Yield what types cannot say, a line each: path, what was found, what was expected."""
    for i, policy in enumerate(policies):
        path = f"policies[{i}]"
        if not policy.model:
            yield f"{path}.model: found an empty name, expected a model's name or a glob"
        if policy.adapter is not None and policy.adapter not in adapters:
            known = ", ".join(sorted(adapters)) or "none is configured"
            yield f"{path}.adapter: found {policy.adapter!r}, expected one of adapters ({known})"
        if not 0 < policy.alpha < 0.5:
            yield f"{path}.alpha: found {policy.alpha:g}, expected a chance above 0 and below 0.5"
        if not 0 <= policy.min_coverage <= 1:
            yield f"{path}.min_coverage: found {policy.min_coverage:g}, expected a share in [0, 1]"
        for name in _NEVER_ZERO:
            if getattr(policy, name) <= 0:
                yield f"{path}.{name}: found 0 s, expected a duration above 0"
        if not policy.response or policy.response != [w for w in RESPONSES if w in policy.response]:
            known = ", ".join(RESPONSES)
            yield f"{path}.response: found {policy.response}, expected some of {known}, in order"
        if not 0 < policy.shrink_to < 1:
            yield f"{path}.shrink_to: found {policy.shrink_to:g}, expected a share in (0, 1)"
        if policy.budget.rollbacks < 1:
            yield f"{path}.budget.rollbacks: found {policy.budget.rollbacks}, expected 1 or more"
        if policy.budget.per <= 0:
            yield f"{path}.budget.per: found 0 s, expected a duration above 0"
        if policy.retries < 0:
            yield f"{path}.retries: found {policy.retries}, expected 0 or more"
        if policy.min_rows < 1:
            yield f"{path}.min_rows: found {policy.min_rows}, expected 1 or more"
        if policy.votes != "prediction":
            yield from _faults_of_votes(policy, path)
        if policy.promote is not None:
            yield from _faults_of_promote(policy.promote, f"{path}.promote")
        names: list[str] = []
        for j, guard in enumerate(policy.guards):
            faults = list(_faults_of_guard(guard, policy, f"{path}.guards[{j}]"))
            yield from faults
            if guard.label in names and not faults:
                yield f"{path}.guards[{j}].name: found a second {guard.label!r}, expected another"
            names.append(guard.label)


def _faults_of_votes(policy: Policy, path: str) -> Iterator[str]:
    late = any(guard.signal in NEEDS_LABELS for guard in policy.guards)
    if policy.labels != "matured" and late:
        yield (
            f"{path}.labels: found {policy.labels!r} with votes: {policy.votes}, expected matured, "
            "because a vote is known once all its labels had their time"
        )
    for j, guard in enumerate(policy.guards):
        if guard.quantile is not None and guard.max_increase is not None:
            yield (
                f"{path}.guards[{j}].max_increase: found it with a quantile and votes: "
                f"{policy.votes}, expected max, because the stable's bar is made of predictions"
            )


def _faults_of_promote(promote: Promote, path: str) -> Iterator[str]:
    steps = promote.steps
    if not steps or any(not 0 < s <= 1 for s in steps) or sorted(set(steps)) != steps:
        yield f"{path}.steps: found {steps}, expected growing shares in (0, 1]"
    if not 0 < promote.margin < inf:
        yield f"{path}.margin: found {promote.margin:g}, expected a relative margin above 0"


def _faults_of_guard(guard: GuardSpec, policy: Policy, path: str) -> Iterator[str]:
    signal = guard.signal
    is_feature = signal.startswith("feature:") and len(signal) > len("feature:")
    if signal not in SIGNALS and not is_feature:
        known = ", ".join(SIGNALS)
        yield f"{path}.signal: found {signal!r}, expected one of {known} or feature:NAME"
        return
    limits = [word for word in LIMITS if getattr(guard, word) is not None]
    if guard.detector is None and len(limits) != 1:
        found = " and ".join(limits) or "no limit"
        expected = ", ".join(LIMITS if signal == "traffic_share" else LIMITS[:3])
        yield f"{path}: found {found}, expected exactly one of {expected}"
    if guard.detector is not None and limits:
        yield f"{path}.detector: found a detector and {limits[0]}, expected one of the two"
    if signal in NEEDS_POSITIVE and policy.positive is None:
        yield f"{path}.signal: found {signal!r}, expected positive (a label) in the policy too"
    if guard.name is not None and guard.name.startswith(GATE):
        yield f"{path}.name: found {guard.name!r}, expected another; promotion gates begin so"
    if guard.segment is not None:
        yield from _faults_of_segment(guard, path)
    if signal == "prometheus":
        yield from _faults_of_polled(guard, policy, path)
    elif guard.query:
        yield f"{path}.query: found one on {signal!r}, expected it only with signal prometheus"
    yield from _faults_of_sampled(guard, policy, path)
    yield from _faults_of_limit(guard, path)


def _faults_of_segment(guard: GuardSpec, path: str) -> Iterator[str]:
    if not guard.segment:
        yield f"{path}.segment: found an empty name, expected one of the segments of predictions"
    if not 1 <= guard.slices <= MOST_SLICES:
        yield f"{path}.slices: found {guard.slices}, expected 1 to {MOST_SLICES}"
    if guard.signal in ("prometheus", "traffic_share"):
        yield f"{path}.segment: found it on {guard.signal!r}, which has no slices; expected none"


def _faults_of_polled(guard: GuardSpec, policy: Policy, path: str) -> Iterator[str]:
    if any(sign in policy.model for sign in "*?["):
        yield (
            f"{path}.signal: found 'prometheus' under the glob {policy.model!r}, "
            "expected a policy with a model's exact name, because one query speaks of one model"
        )
    if guard.detector is not None:
        yield f"{path}.detector: found {guard.detector!r} on 'prometheus', expected max or min"
    if guard.quantile is not None:
        yield f"{path}.quantile: found it on 'prometheus', expected it inside the query"
    if guard.every < 1:
        yield f"{path}.every: found {guard.every:g} s, expected at least 1 s"
    if not guard.query:
        yield f"{path}.query: found none, expected the PromQL of this signal"
    else:
        yield from (f"{path}.query: {fault}" for fault in faults_of_query(guard.query))


def _faults_of_mean(guard: GuardSpec, path: str) -> Iterator[str]:
    signal, highest = guard.signal, guard.highest
    for word in ("min", "max_increase", "quantile"):
        if getattr(guard, word) is not None:
            yield f"{path}.{word}: found it on {signal!r}, whose mean is judged; expected max"
    if highest is None:
        yield f"{path}.cap: found none on {signal!r}, expected the highest value that counts"
    elif highest <= 0:
        yield f"{path}.cap: found {highest:g}, expected a value above 0"
    elif guard.max is not None and not 0 < guard.max < highest:
        yield f"{path}.max: found {guard.max:g}, expected above 0 and below the cap {highest:g}"


def _faults_of_sampled(guard: GuardSpec, policy: Policy, path: str) -> Iterator[str]:
    least = guard.sampled_at_least
    if least is None:
        return
    if not 0 < least <= 1:
        yield f"{path}.sampled_at_least: found {least:g}, expected a chance above 0, at most 1"
    elif guard.signal not in PER_PREDICTION or guard.max_increase is not None or guard.detector:
        known = ", ".join(sorted(PER_PREDICTION))
        yield f"{path}.sampled_at_least: found it on {guard.label!r}, expected a limit on {known}"
    elif policy.votes == "unit" or policy.labels != "matured":
        yield (
            f"{path}.sampled_at_least: found it with votes: {policy.votes} and labels: "
            f"{policy.labels}, expected votes: prediction and labels: matured"
        )


def _faults_of_limit(guard: GuardSpec, path: str) -> Iterator[str]:
    signal = guard.signal
    for word in (*LIMITS, "quantile", "cap"):
        if (number := getattr(guard, word)) is not None and not isfinite(number):
            yield f"{path}.{word}: found {number:g}, expected a finite number"
            return
    if guard.cap is not None and (signal not in NEEDS_MEAN_GUARD or guard.detector is not None):
        known = ", ".join(sorted(NEEDS_MEAN_GUARD))
        yield f"{path}.cap: found it on {signal!r}, expected it only with a max on {known}"
    if guard.max_decrease is not None and signal != "traffic_share":
        yield f"{path}.max_decrease: found it on {signal!r}, expected it only on 'traffic_share'"
    elif guard.max_decrease is not None and not 0 < guard.max_decrease < 1:
        yield f"{path}.max_decrease: found {guard.max_decrease:g}, expected a share in (0, 1)"
    if guard.quantile is not None and not 0 < guard.quantile < 1:
        yield f"{path}.quantile: found {guard.quantile:g}, expected a share in (0, 1)"
    if guard.max_increase is not None and guard.max_increase <= 0:
        yield f"{path}.max_increase: found {guard.max_increase:g}, expected a share above 0"
    if guard.max_increase is not None and signal in HIGHER_IS_BETTER:
        yield f"{path}.max_increase: found it on {signal!r}, where more is better; expected min"
    if guard.max_increase is not None and signal in ("traffic_share", "prometheus"):
        yield f"{path}.max_increase: found it on {signal!r}, expected max or min there"
    if signal in RATES:
        if guard.quantile is not None:
            yield f"{path}.quantile: found it on {signal!r}, which is a rate; expected none"
        for word in ("max", "min"):
            limit: Any = getattr(guard, word)
            if limit is not None and not 0 < limit < 1:
                yield f"{path}.{word}: found {limit:g}, expected a share in (0, 1)"
        if signal in HIGHER_IS_BETTER and guard.max is not None:
            yield f"{path}.max: found it on {signal!r}, where more is better; expected min"
        elif signal not in HIGHER_IS_BETTER and signal != "traffic_share" and guard.min is not None:
            yield f"{path}.min: found it on {signal!r}, where less is better; expected max"
    elif signal in NEEDS_MEAN_GUARD and guard.detector is None:
        yield from _faults_of_mean(guard, path)
    elif signal != "prometheus" and guard.detector is None and guard.quantile is None:
        yield f"{path}.quantile: found none on {signal!r}, expected which quantile the limit binds"
    elif guard.min is not None and signal != "prometheus":
        yield f"{path}.min: found it on {signal!r}, expected max or max_increase"
