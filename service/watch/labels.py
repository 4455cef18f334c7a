"""What is known of labels that come late, in part, or never.

Why. A rate of labelled rows says something about predictions only if it is known which predictions
have labels. Three things are watched for each version: how many labels are there at the horizon,
how many at each age before it, and whether predicted negatives get any at all.

How. Counts of final rows (matured or unlabelled), apart for predicted positives ("flagged") and
others. For coverage by age the predictions and their labels are counted in 64 buckets of the
horizon by the time at which they were served; a bucket says something about an age once all of its
predictions are that old.

Refused here: what follows from it (`decide.py`).
"""

from __future__ import annotations

import numpy as np

from detectors.base import I64, Bool
from schemas.policies import GuardSpec, Policy
from service.watch.state import Version
from service.watch.tables import Table

BUCKETS = 64
"""Of served time per horizon."""

KEPT = 2 * BUCKETS
"""Buckets that are remembered: two horizons."""

AGES = (16, 4, 1)
"""Coverage is told at this part of the horizon: a sixteenth, a quarter, all of it."""

ENOUGH = 200
"""Labelled rows after which it can be said that predicted negatives get no labels."""

FEW = 0.005
"""Share of labels on predicted negatives that counts as none."""

UNFLAGGED = 0.2
"""Share of predicted negatives among predictions from which they can be missed."""

OF_FLAGGED = frozenset({"precision", "fp_per_prediction"})
"""Signals whose labels are those of predicted positives."""

OF_NEGATIVES = frozenset({"false_positive_rate", "false_negative_rate", "recall"})
"""Signals that need labels of predicted negatives."""


def count(version: Version, rows: Bool, table: Table, horizon_ms: int) -> None:
    """Take the rows of a version, True in `rows`, of any table."""
    if table.sort == "final":
        predicted, labelled = table.columns.positive_predicted[rows], table.columns.labelled[rows]
        version.flagged += int(np.count_nonzero(predicted == 1))
        version.flagged_labelled += int(np.count_nonzero((predicted == 1) & labelled))
        version.unflagged += int(np.count_nonzero(predicted == 0))
        version.unflagged_labelled += int(np.count_nonzero((predicted == 0) & labelled))
        chance = table.sampled[rows][labelled]
        version.stood_for += float(np.where(np.isnan(chance), 1.0, 1 / chance).sum())
        return
    if not horizon_ms:
        return
    width_ms = max(1, horizon_ms // BUCKETS)
    served = table.served_ms[rows] // width_ms
    if table.sort == "served":
        _add(version, served, 0)
        return
    age_ms = table.when_ms[rows] - table.served_ms[rows]
    for place, part in enumerate(AGES, start=1):
        _add(version, served[age_ms <= horizon_ms // part], place)


def _add(version: Version, buckets: I64, place: int) -> None:
    for bucket, n in zip(*(a.tolist() for a in np.unique(buckets, return_counts=True)),
                         strict=True):  # fmt: skip
        version.ages.setdefault(bucket, [0] * (1 + len(AGES)))[place] += n
    if len(version.ages) > KEPT:
        for bucket in sorted(version.ages)[:-KEPT]:
            del version.ages[bucket]


def coverage_by_age(version: Version, horizon_ms: int, now_ms: int) -> list[tuple[float, float]]:
    """Share of predictions that had a label at each age, of those that are that old.

    Returns
    -------
    list of (age in seconds, share in [0, 1])
        Youngest age first; ages that no prediction has reached are left out.
    """
    if not horizon_ms:
        return []
    width_ms = max(1, horizon_ms // BUCKETS)
    told = []
    for place, part in enumerate(AGES, start=1):
        age_ms = horizon_ms // part
        old = [row for bucket, row in version.ages.items()
               if (bucket + 1) * width_ms + age_ms <= now_ms]  # fmt: skip
        served = sum(row[0] for row in old)
        if served:
            told.append((age_ms / 1000, min(1.0, sum(row[place] for row in old) / served)))
    return told


def lost(version: Version, policy: Policy | None, spec: GuardSpec) -> bool:
    """Whether too few of a guard's matured predictions have a label."""
    if policy is None:
        return False
    share = coverage(version, spec)
    of_flagged = spec.signal in OF_FLAGGED and spec.sampled_at_least is None
    total = version.flagged if of_flagged else version.matured + version.unlabelled
    return total >= policy.min_rows and share is not None and share < policy.min_coverage


def coverage(version: Version, spec: GuardSpec) -> float | None:
    """Share of a guard's matured predictions that have a label, or for which one stands."""
    labelled: float = version.matured
    total = version.matured + version.unlabelled
    if spec.sampled_at_least is not None:
        labelled = min(version.stood_for, total)
    elif spec.signal in OF_FLAGGED:
        labelled, total = version.flagged_labelled, version.flagged
    return labelled / total if total else None


def unidentified(version: Version, spec: GuardSpec, *, fired: bool) -> bool:
    """Whether a signal cannot be known because predicted negatives get no labels.

    Then no true negative is ever seen, and every false positive rate is 1: a guard that fired on it
    has proved nothing. Against the concurrent stable a false positive rate can be known all the
    same, since a random split gives both versions the same negatives.
    """
    if spec.signal not in OF_NEGATIVES or spec.detector is not None:
        return False
    if spec.max_increase is not None and spec.signal == "false_positive_rate":
        return False
    labelled = version.flagged_labelled + version.unflagged_labelled
    total = version.flagged + version.unflagged
    if not total or version.unflagged < UNFLAGGED * total:
        return False
    return (fired or labelled >= ENOUGH) and version.unflagged_labelled <= FEW * labelled


def unidentified_text(name: str, signal: str) -> str:
    """Say what cannot be known, and what can be watched instead."""
    return (f"{signal} of {name} cannot be known: predictions that were not flagged get no labels. "
            "fp_per_prediction and precision can be watched instead.")  # fmt: skip


def lost_text(name: str, signal: str, share: float | None, policy: Policy) -> str:
    """Say that labels are missing."""
    which = "flagged predictions" if signal in OF_FLAGGED else "predictions"
    wanted = f"at least {policy.min_coverage:.0%} expected"
    return (f"Only {share or 0.0:.0%} of {name}'s {which} have a label at their horizon "
            f"({wanted}), so {signal} says nothing.")  # fmt: skip
