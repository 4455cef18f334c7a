"""Last known good: which versions served as stable, for how long and how well. Pure.

Why. A canary goes back to the stable beside it. A *stable* that turns bad has nobody beside it; it
may only go back to a version that is known to have been good, never to "the one before by number".

How. A tenure is the time for which one version is stable. It gathers the event time for which the
version was judged and not found wanting, and the counts of every rate that a policy limits against
a stable. When it ends, it stays in the model's ledger; the newest one that may be returned to is
the target. A version that was rolled back is quarantined, and the tenure in which it failed never
makes a target again.

References. A version without a concurrent stable is compared with the one it followed: the limit of
a `max_increase` guard is then 1 + max_increase times the upper Clopper-Pearson bound of the
predecessor's rate, at a tenth of the guard's alpha; the other nine tenths are the test's own, so
that both errors together stay within alpha. The bound is frozen when the tenure begins. It speaks
of a world that stands still, which a concurrent stable does not need; that is said in the name.

Refused: asking a platform whether the version still exists. The adapter does, when it is ordered.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import log, log1p

import msgspec
import numpy as np

from detectors import losses
from schemas.plugins import Registry
from schemas.policies import NEEDS_LABELS, RATES, GuardSpec, Policy
from service.watch.detect import Guard, loss_limit
from service.watch.state import Model, Tenure
from service.watch.tables import Table
from service.watch.weights import canaries_of

MOST_TENURES = 20
"""How many are remembered per model."""

MOST_ROWS = 200_000
"""Rows after which the counts of a rate forget half: what was true of late."""

REFERENCE_SHARE = 0.1
"""Part of a guard's alpha that the bound of the predecessor's rate takes."""


def standing(model: Model) -> Tenure | None:
    """The tenure of the version that is stable now."""
    last = model.ledger[-1] if model.ledger else None
    return last if last is not None and not last.ended_ms else None


def succeed(model: Model, version: str, at_ms: int) -> None:
    """A version is stable from `at_ms` on; nothing happens when it is already."""
    before = standing(model)
    if before is not None and before.version == version:
        return
    tenure = Tenure(version, at_ms, seen_ms=at_ms)
    if before is not None:
        before.ended_ms = max(at_ms, 1)
        tenure.restored = before.failed
        if not before.failed:
            tenure.predecessor = before.version
            tenure.reference = {name: list(counts) for name, counts in before.rates.items()}
    model.ledger = [*model.ledger, tenure][-MOST_TENURES:]


def credit(model: Model, version: str, verdict: str) -> None:
    """Count the time since the last judgement as good, or not."""
    tenure = standing(model)
    if tenure is None or tenure.version != version:
        return
    if verdict in ("pass", "inconclusive"):
        tenure.good_ms += max(0, model.now_ms - tenure.seen_ms)
    tenure.seen_ms = max(tenure.seen_ms, model.now_ms)


def condemn(model: Model, version: str, incident: str) -> None:
    """A version was rolled back: quarantine it; its tenure, if it had one, makes no target."""
    model.quarantine.pop(version, None)
    model.quarantine[version] = (model.now_ms, incident)
    for oldest in list(model.quarantine)[:-MOST_TENURES]:
        del model.quarantine[oldest]
    for tenure in model.ledger:
        if tenure.version == version:
            tenure.failed = True


def quarantined(model: Model, version: str, policy: Policy) -> bool:
    """Whether a version was rolled back so recently that nothing may go to it."""
    found = model.quarantine.get(version)
    return found is not None and model.now_ms - found[0] < policy.quarantine.ms


def fault_of(model: Model, version: str, policy: Policy) -> str | None:
    """Why a version of the ledger is no target for a rollback, as a word; None: it is one."""
    if quarantined(model, version, policy):
        return "quarantined"
    if any(case.version == version and not case.closed and case.kind == "breach"
           and case.wanted != "alert" for case in model.cases.values()):  # fmt: skip
        return "no_target"
    tenures = [t for t in model.ledger if t.version == version and t.ended_ms and not t.failed]
    baked = any(tenure.good_ms >= policy.good_after.ms for tenure in tenures)
    return None if baked else "no_target"


def just_restored(model: Model, version: str, policy: Policy) -> bool:
    """Whether a version is stable because its successor was rolled back, and has not baked since.

    Going back further, one version after the other, would be a guess; a person decides.
    """
    tenure = standing(model)
    if tenure is None or tenure.version != version or not tenure.restored:
        return False
    return tenure.good_ms < policy.good_after.ms


def target_of(model: Model, version: str, policy: Policy | None) -> str | None:
    """Where a failing version is rolled back to; None: nowhere.

    A canary goes back to the stable beside it. A stable that has a canary beside it goes nowhere:
    which of the two is ill is a question for a person. A stable alone goes to the newest version of
    the ledger that is known good.
    """
    plan = model.plan
    if plan is None or policy is None:
        return None
    if version in canaries_of(plan):
        return plan.stable
    if version != plan.stable or plan.canary is not None:
        return None
    for tenure in reversed(model.ledger):
        if tenure.version != version and fault_of(model, tenure.version, policy) is None:
            return tenure.version
    return None


def count(model: Model, table: Table, policy: Policy) -> None:
    """Count the stable's rates that later limits may be made of."""
    tenure = standing(model)
    if tenure is None or tenure.version not in table.versions:
        return
    own = table.versions.index(tenure.version)
    for spec in relative(policy):
        if table.sort != _sort(spec):
            continue
        index, loss = losses.select(spec.signal, table.columns)
        mine = loss[table.version[index] == own]
        if not len(mine):
            continue
        bad, rows = tenure.rates.get(spec.label, [0, 0])
        bad, rows = bad + int(mine.sum()), rows + len(mine)
        while rows > MOST_ROWS:
            bad, rows = bad // 2, rows // 2
        tenure.rates[spec.label] = [bad, rows]


def relative(policy: Policy) -> list[GuardSpec]:
    """The guards against a concurrent stable that can be kept up without one."""
    return [g for g in policy.guards
            if g.max_increase is not None and g.signal in RATES and g.segment is None]  # fmt: skip


def guards_after(policy: Policy, model: Model, registry: Registry) -> dict[str, Guard]:
    """The guards of a stable version against the one it followed."""
    tenure = standing(model)
    if tenure is None:
        return {}
    built = {}
    for spec in relative(policy):
        bad, rows = tenure.reference.get(spec.label, [0, 0])
        if rows < policy.min_rows:
            continue
        alpha = policy.guard_alpha()
        bound = upper_bound(bad, rows, REFERENCE_SHARE * alpha)
        limit = round((1 + (spec.max_increase or 0.0)) * bound, 9)
        if not 0 < limit < 1:
            continue
        name = f"{spec.label} against {tenure.predecessor} before"
        kept = msgspec.structs.replace(spec, max_increase=None, max=limit, name=name)
        own_alpha = (1 - REFERENCE_SHARE) * alpha
        detector = registry.make("rate", alpha=own_alpha, limit=limit)
        built[name] = Guard(kept, detector, "single", alpha, limit)
    return built


def long_lived(model: Model, policy: Policy, guards: Mapping[str, Guard]) -> bool:
    """Give a stable that has become long-lived its run lengths; True when it just did.

    A budget for a whole life, once spent, would leave the years after it unwatched. The run length
    is as many rows as the version gets in `false_alarm_every`, at the pace it had until now.
    """
    tenure = standing(model)
    if tenure is None or tenure.run_lengths or not guards:
        return False
    elapsed_ms = model.now_ms - tenure.began_ms
    if elapsed_ms < policy.long_lived_after.ms or not elapsed_ms:
        return False
    tenure.run_lengths = {
        name: round(max(LEAST_RUN, guard.rows * policy.false_alarm_every.ms / elapsed_ms))
        for name, guard in guards.items()
        if guard.arms == "single" and guard.spec.detector is None and guard.limit is not None
        and guard.spec.quantile is None and guard.spec.signal in RATES
    }  # fmt: skip
    return bool(tenure.run_lengths)


LEAST_RUN = 100_000
"""Shortest run length, rows: a false alarm needs at least that many on average."""


def rearming(policy: Policy, model: Model, version: str, built: dict[str, Guard],
             registry: Registry) -> dict[str, Guard]:  # fmt: skip
    """Put the re-arming test in place of the spending one, for a long-lived stable."""
    tenure = standing(model)
    if tenure is None or tenure.version != version:
        return built
    changed = dict(built)
    for name, run_length in tenure.run_lengths.items():
        guard = built.get(name)
        if guard is not None and guard.limit is not None:
            detector = registry.make("stable_watch", limit=guard.limit, run_length=run_length)
            limit = guard.limit if guard.spec.max_increase is None else loss_limit(guard.spec)
            changed[name] = Guard(guard.spec, detector, "single", None, limit, slice=guard.slice)
    return changed


def upper_bound(bad: int, rows: int, alpha: float) -> float:
    """Upper Clopper-Pearson bound of a rate: P(X <= bad) is alpha there. `rows` >= 1.

    >>> round(upper_bound(0, 100, 0.05), 4), round(upper_bound(20, 1000, 0.001), 4)
    (0.0295, 0.0374)
    """
    if bad >= rows:
        return 1.0
    k = np.arange(1, bad + 1, dtype=np.float64)
    chooses = np.concatenate(([0.0], np.cumsum(np.log((rows - k + 1) / k))))
    hits = np.arange(bad + 1, dtype=np.float64)
    low, high, wanted = bad / rows, 1.0, log(alpha)
    for _ in range(60):
        rate = (low + high) / 2
        if not low < rate < high:
            break
        logs = chooses + hits * log(rate) + (rows - hits) * log1p(-rate)
        top = float(logs.max())
        below = top + log(float(np.exp(logs - top).sum()))
        low, high = (rate, high) if below > wanted else (low, rate)
    return high


def _sort(spec: GuardSpec) -> str:
    return "final" if spec.signal in NEEDS_LABELS else "served"
