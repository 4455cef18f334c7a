"""Judge one version: readings in, a verdict with its reason and its words out. Pure.

The order of the questions is the policy: what cannot be seen comes before what cannot be proved,
and both come before an alarm. Telemetry that is lost is its own state; it neither breaches nor
clears. A signal of labels is unknown while labels are lost, but errors and latency still count.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from detectors.base import Interval
from schemas.policies import HIGHER_IS_BETTER, NEEDS_LABELS, RATES, GuardSpec, Policy
from schemas.verdicts import GuardVerdict, Verdict, VerdictValue
from service.watch import labels
from service.watch.detect import Guard
from service.watch.plan import role_of
from service.watch.promote import outlook
from service.watch.prove import gate_entry, pending_text
from service.watch.silence import sentence, share_limit, share_now
from service.watch.slices import slices_of, told
from service.watch.state import Model, Version
from service.watch.weights import weight_of

RECENT_BUCKETS = 10
"""Buckets of served time (a second each) from which a share is taken."""


class Judged(NamedTuple):
    """A verdict, and what an order needs to know of it."""

    verdict: Verdict
    alarmed: list[GuardVerdict]
    both_moved: bool
    stable_ill: bool
    fired: Mapping[str, dict[str, int | str]] = {}
    """By guard, the event at which it fired."""
    rearmed_ms: int = 0
    """Event time of the newest alarm of a test that re-arms itself; 0: none stands."""


def judge(
    model: Model, version: Version, policy: Policy | None,
    guards: Mapping[str, Mapping[str, Guard]], position: dict[str, int | str],
) -> Judged:  # fmt: skip
    """Judge one version at the model's event time.

    Parameters
    ----------
    guards : mapping
        Version name -> guard name -> guard, of all live versions.
    position : dict
        Name of the newest row, for a verdict without a breach.
    """
    own = guards.get(version.name, {})
    entries = [entry_of(guard, version, policy, model) for guard in own.values() if not guard.gate]
    gates = [gate_entry(guard, model, version) for guard in own.values() if guard.gate]
    if policy is not None and role_of(model, version.name) == "canary":
        entries += [
            polled_entry(spec, model) for spec in policy.guards if spec.signal == "prometheus"
        ]
    alarmed = [entry for entry in entries if entry.verdict == "breach"]
    moved = bool(alarmed) and _all_shared(alarmed, model, version, guards)
    ill = _stable_ill(model, version, guards)
    value, reason, text = _answer(model, version, policy, entries, moved)
    if value == "pass" and (pending := pending_text(version.name, gates, model)) is not None:
        value, reason, text = "inconclusive", "promotion_pending", pending
    if value == "pass" and policy is not None and role_of(model, version.name) == "canary":
        text = f"{text} {outlook(model, policy)}".strip()
    notes = dict.fromkeys(entry.note for entry in entries if entry.note)
    if value in ("pass", "inconclusive"):
        text = " ".join([text, *(f"Note: {note}." for note in notes)])
    fired = {entry.name: own[entry.name].fired for entry in alarmed if entry.name in own}
    for at in fired.values():
        position = at or position
    verdict = Verdict(
        model=model.name, version=version.name,
        rollout_id=model.plan.rollout_id if model.plan else "",
        verdict=value, reason=reason, text=text, guards=told([*entries, *gates]),
        roles="inferred" if model.plan is None or model.plan.inferred else "declared",
        decided_at=model.now_ms, position=position, role=role_of(model, version.name),
        predictions=version.predictions, share=_recent_share(model, version.name),
        coverage=version.coverage,
    )  # fmt: skip
    return Judged(verdict, alarmed, moved, ill, fired, _rearmed_ms(alarmed, own))


def _rearmed_ms(alarmed: list[GuardVerdict], own: Mapping[str, Guard]) -> int:
    rearming = [own[entry.name].detector for entry in alarmed if entry.name in own
                and own[entry.name].alpha is None and entry.guarantee]  # fmt: skip
    return max((detector.reading().fired_ms or 0 for detector in rearming), default=0)


def _recent_share(model: Model, name: str) -> float | None:
    """Share of the model's predictions of about the last ten seconds that are known of."""
    recent = [model.shares[bucket] for bucket in sorted(model.shares)[-RECENT_BUCKETS:]]
    total = sum(sum(bucket.values()) for bucket in recent)
    return sum(bucket.get(name, 0) for bucket in recent) / total if total else None


def entry_of(guard: Guard, version: Version, policy: Policy | None, model: Model) -> GuardVerdict:
    """Turn one guard's reading into its part of the verdict, in the signal's own unit."""
    reading, spec = guard.reading(), guard.spec
    shown = _in_unit(spec, _among_labelled(spec, version, guard.interval()))
    limit = limit_of(spec)
    if spec.signal == "traffic_share" and spec.max is None:
        shown = Interval(share_now(model, version.name), shown.lower, shown.upper)
        limit = share_limit(spec, model, version.name)
        if spec.max_decrease is not None:
            shown = Interval(shown.estimate)
    ratio = guard.detector.ratio() if hasattr(guard.detector, "ratio") else None
    value: VerdictValue = "inconclusive"
    reason = "too_few"
    needs_labels = spec.signal in NEEDS_LABELS and spec.signal != "label_coverage"
    if labels.unidentified(version, spec, fired=reading.fired_at is not None):
        value, reason = "unknown", "not_identifiable"
    elif needs_labels and labels.lost(version, policy, spec):
        value, reason = "unknown", "label_outage"
    elif reading.fired_at is not None:
        value, reason = "breach", "guard_alarmed"
    elif not guard.guarantee or _keeps(guard, shown, ratio):
        value, reason = "pass", "within_objectives"
    coverage = version.coverage if spec.signal in NEEDS_LABELS else None
    if reason == "label_outage":
        coverage = labels.coverage(version, spec)
    return GuardVerdict(
        name=guard.name, signal=spec.signal, verdict=value, estimate=shown.estimate,
        lower=shown.lower, upper=shown.upper, stable_estimate=shown.stable_estimate,
        evidence=reading.statistic, threshold=reading.threshold, n=reading.n,
        coverage=coverage, action=spec.acts,
        limit=limit, alpha=guard.alpha, guarantee=guard.guarantee, reason=reason,
        guard=spec.label, slice=str(guard.slice or ""),
        votes=guard.counts, note=guard.early.note if guard.early is not None else "",
        slices=0 if guard.slice else len(slices_of(spec, model, version.name)),
        beyond=0 if guard.slice else model.beyond.get(spec.label, 0),
    )  # fmt: skip


def _among_labelled(spec: GuardSpec, version: Version, loss: Interval) -> Interval:
    """What is shown, and what a `pass` needs, is the rate among predictions that have a label.

    The guard itself counts predictions without one as good, so that no missing label can cause a
    rollback; shown like that, missing labels would flatter a version.
    """
    total = version.matured + version.unlabelled
    if spec.signal not in ("accuracy", "error") or spec.max_increase is not None or not total:
        return loss
    if spec.sampled_at_least is not None:
        return loss
    share = version.matured / total
    if share in (0.0, 1.0):
        return loss

    def scale(value: float | None) -> float | None:
        return None if value is None else min(1.0, value / share)

    return Interval(scale(loss.estimate), scale(loss.lower), scale(loss.upper))


def limit_of(spec: GuardSpec) -> float | None:
    """The limit as the policy writes it."""
    limits = (spec.max, spec.min, spec.max_increase, spec.max_decrease)
    return next((limit for limit in limits if limit is not None), None)


def polled_entry(spec: GuardSpec, model: Model) -> GuardVerdict:
    """Judge a polled value against its limit: no evidence, no guarantee, only now."""
    polled = model.metrics.get(spec.label)
    stale = polled is None or model.now_ms - polled[1] > 4 * spec.every.ms + 30_000
    value: VerdictValue = "unknown"
    if polled is not None and not stale:
        over = spec.max is not None and polled[0] > spec.max
        under = spec.min is not None and polled[0] < spec.min
        value = "breach" if over or under else "pass"
    return GuardVerdict(
        name=spec.label, signal=spec.signal, verdict=value,
        estimate=None if polled is None else polled[0], n=0 if polled is None else 1,
        action=spec.acts, limit=limit_of(spec), guarantee=False,
        reason="source_down" if stale else "",
    )  # fmt: skip


def _in_unit(spec: GuardSpec, loss: Interval) -> Interval:
    """A loss's interval in the signal's own unit: accuracy is one minus its loss."""
    flipped = spec.signal in HIGHER_IS_BETTER or (
        spec.signal == "traffic_share" and spec.max is None
    )
    if not flipped:
        return loss

    def turn(value: float | None) -> float | None:
        return None if value is None else 1 - value

    return Interval(
        turn(loss.estimate), turn(loss.upper), turn(loss.lower), turn(loss.stable_estimate)
    )


def _keeps(guard: Guard, shown: Interval, ratio: Interval | None) -> bool:
    """Whether the anytime interval lies within the limit; with a bar, that of the share above."""
    if guard.bar is not None and guard.spec.quantile is not None:
        share = guard.detector.interval()
        return share.upper is not None and share.upper <= 1 - guard.spec.quantile
    return _within(guard.spec, shown, ratio)


def _within(spec: GuardSpec, shown: Interval, ratio: Interval | None) -> bool:
    """Whether the anytime interval lies within the limit."""
    if spec.max_decrease is not None:
        upper = ratio.upper if ratio is not None else None
        return upper is not None and upper <= 1 / (1 - spec.max_decrease)
    if spec.max_increase is not None:
        upper = ratio.upper if ratio is not None else None
        return upper is not None and upper <= 1 + spec.max_increase
    if spec.min is not None:
        return shown.lower is not None and shown.lower >= spec.min
    return spec.max is not None and shown.upper is not None and shown.upper <= spec.max


def _answer(
    model: Model, version: Version, policy: Policy | None, entries: list[GuardVerdict],
    moved: bool,
) -> tuple[VerdictValue, str, str]:  # fmt: skip
    name = version.name
    if policy is None:
        return (
            "inconclusive",
            "no_policy",
            f"No policy names {model.name}, so {name} is not judged.",
        )
    if (silence := _silence(model, version, policy)) is not None:
        return silence
    worst = _worst(entries)
    if worst is not None and moved:
        stable = model.plan.stable if model.plan else "stable"
        text = (f"{name} and {stable} became worse together: {_sentence(worst, version)} "
                "The cause lies outside the canary, so nothing is rolled back.")  # fmt: skip
        return "unknown", "both_moved", text
    if worst is not None:
        return "breach", "guard_alarmed", _sentence(worst, version)
    judging = [entry for entry in entries if entry.action != "alert"]
    if not judging:
        return "inconclusive", "no_guards", f"No guard of the policy can judge {name}."
    blind = [entry for entry in judging if entry.verdict == "unknown"]
    if blind:
        signal, reason = blind[0].signal, blind[0].reason or "label_outage"
        if reason == "not_identifiable":
            return "unknown", reason, labels.unidentified_text(name, signal)
        if reason == "source_down":
            return "unknown", reason, f"The source of {blind[0].name} does not answer."
        text = labels.lost_text(name, signal, blind[0].coverage, policy)
        return "unknown", reason, text
    if all(entry.verdict == "pass" for entry in judging):
        return (
            "pass",
            "within_objectives",
            f"{name} keeps every limit, with the promised certainty.",
        )
    open_ones = [entry.signal for entry in judging if entry.verdict != "pass"]
    signals = ", ".join(sorted(set(open_ones)))
    text = f"{name} shows no harm; the evidence on {signals} is not enough yet."
    return "inconclusive", "too_few", text


def _silence(
    model: Model, version: Version, policy: Policy
) -> tuple[VerdictValue, str, str] | None:
    plan = model.plan
    role = role_of(model, version.name)
    expected = plan is not None and (
        role == "stable" or (role == "canary" and weight_of(plan, version.name) != 0)
    )
    if not expected:
        return None
    if not version.predictions:
        return "unknown", "no_data", f"No prediction of {version.name} has arrived."
    silent_ms = model.silent_ms(version)
    if silent_ms > policy.max_silence.ms:
        text = f"{version.name} has been silent for {silent_ms / 1000:.0f} s; nothing can be said."
        return "unknown", "stale", text
    return None


def _worst(entries: list[GuardVerdict]) -> GuardVerdict | None:
    """The alarm to be told first: one that acts before one that warns, then by evidence."""
    alarmed = [entry for entry in entries if entry.verdict == "breach" and entry.action != "alert"]
    return max(
        alarmed, key=lambda e: (e.action == "rollback", (e.evidence or 0) - (e.threshold or 0)),
        default=None,
    )  # fmt: skip


def sentence_of(entry: GuardVerdict, version: Version) -> str:
    """Say in words what one guard has proved."""
    return _sentence(entry, version)


def _sentence(entry: GuardVerdict, version: Version) -> str:
    if entry.signal == "traffic_share" and "max=" not in entry.name:
        return sentence(entry, version)
    value = _shown(entry.signal, entry.estimate)
    of = f"{entry.signal} of {version.name}" + (f" in {entry.slice}" if entry.slice else "")
    if entry.name.startswith(entry.signal) and entry.stable_estimate is not None:
        stable = _shown(entry.signal, entry.stable_estimate)
        proved = (f"{of} is {value} where stable has {stable}, "
                  f"proved to be more than {(entry.limit or 0):.0%} above it")  # fmt: skip
    elif entry.limit is not None:
        proved = (f"{of} is {value}, "
                  f"proved to miss its limit {_shown(entry.signal, entry.limit)}")  # fmt: skip
    else:
        return f"{of} has shifted (a drift warning, without guarantee)."
    if entry.evidence is None or entry.threshold is None:
        return f"{proved} (no false-alarm guarantee)."
    rows = {"prediction": "rows", "unit": "votes of units", "pair": "pairs"}
    return (f"{proved} (evidence {entry.evidence:.1f} of {entry.threshold:.1f} nats, "
            f"{entry.n} {rows[entry.votes]}).")  # fmt: skip


def _shown(signal: str, value: float | None) -> str:
    if value is None:
        return "unknown"
    if signal == "latency_ms":
        return f"{value:.0f} ms"
    if signal in RATES:
        return f"{value:.2%}"
    return f"{value:.4g}"


def _all_shared(
    alarmed: list[GuardVerdict], model: Model, version: Version,
    guards: Mapping[str, Mapping[str, Guard]],
) -> bool:  # fmt: skip
    """Whether every limit that the canary fails is failed by stable as well, now."""
    plan = model.plan
    acting = [entry for entry in alarmed if entry.action != "alert"]
    if plan is None or role_of(model, version.name) != "canary" or not acting:
        return False
    stable = guards.get(plan.stable, {})
    return all(entry.name in stable and _failing(stable[entry.name]) for entry in acting)


def _stable_ill(model: Model, version: Version, guards: Mapping[str, Mapping[str, Guard]]) -> bool:
    """Whether the stable version fails an objective of its own that acts."""
    plan = model.plan
    if plan is None or role_of(model, version.name) != "canary":
        return False
    return any(
        guard.reading().fired_at is not None and _failing(guard)
        for guard in guards.get(plan.stable, {}).values()
        if guard.spec.acts != "alert"
    )


def is_turning(guard: Guard, since_ms: int) -> bool:
    """Whether a guard that acts fired since then, or fails of late and is half-way to an alarm."""
    if guard.gate or guard.spec.acts == "alert":
        return False
    reading = guard.reading()
    if reading.level == "alarm":
        return (reading.fired_ms or 0) >= since_ms
    return reading.level == "warning" and _failing(guard)


def _failing(guard: Guard) -> bool:
    """Whether a guard of one version fails its limit of late (or has proved that it did)."""
    if guard.arms != "single" or guard.limit is None:
        return False
    recent = guard.recent_mean()
    limit = 1 - guard.spec.quantile if guard.spec.quantile is not None else guard.limit
    return recent is not None and recent > limit
