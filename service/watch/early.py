"""Labels that count before their horizon: the modes `optimistic` and `conditional`.

Why. A horizon may be a week; a version that is plainly bad should not serve for a week. But labels
counted as they arrive accuse whatever is young or answered fast. Two forms are safe.

`optimistic`, for limits against a number: every prediction counts as good until its bad label
comes. No late or missing label can raise the evidence above what it will be in the end, so the
bound holds whatever the delays. It decides alone, on the guard's whole alpha; the matured labels
beside it only say how high the rate is, and whether it is proven to be within its limit.

`conditional`, for limits against the stable: given a bad label arrived, whose was it? That is right
if both versions' labels are equally late, which `detectors/delay_check.py` judges on matured rows.
Labels count on arrival only while it finds them equal, and never those that came before. The
matured form runs always. Each has half of the guard's alpha: the matured half stands whatever the
delays are, the other while they are equal.

Refused: signals of which it is not known, when a prediction is served, whether it will count (false
positive and false negative rate, recall need the label for that). They are judged matured.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from detectors import losses
from detectors.base import Bool, Rows
from detectors.delay_check import DelayCheck
from detectors.losses import Columns
from detectors.optimistic import Labels
from schemas.policies import NEEDS_LABELS, Policy
from service.watch.tables import Table

FROM_THE_START = frozenset({
    "error", "accuracy", "precision", "fp_per_prediction", "brier", "absolute_error", "cost",
})  # fmt: skip
"""Label signals of which a served prediction tells whether it counts."""


@dataclass
class Early:
    """The part of a guard that hears labels on arrival."""

    detector: Any
    """Optimistic: takes predictions and, apart, labels. Conditional: takes labelled rows."""
    check: DelayCheck | None = None
    """Conditional only."""
    since_ms: int = -1
    """Served time of the first prediction that it was given; -1: none yet."""

    @property
    def decides(self) -> bool:
        """Whether it decides alone."""
        return self.check is None

    @property
    def note(self) -> str:
        """What a verdict has to say of it."""
        if self.check is None or self.check.standing == "equal":
            return ""
        if self.check.standing == "unequal":
            return "delays differ between canary and stable, so labels are judged matured"
        return "too few labels yet to compare the delays, so labels are judged matured"

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""
        return {
            "detector": self.detector.state(), "since": self.since_ms,
            "check": None if self.check is None else self.check.state(),
        }  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; raises `StateMismatch` if it cannot."""
        self.detector.restore(state["detector"])
        self.since_ms = state["since"]
        if self.check is not None:
            self.check.restore(state["check"])


def awaited(signal: str, columns: Columns) -> Bool:
    """Which served predictions a label may give a loss to; shape (n,)."""
    told: Bool
    if signal in ("error", "accuracy"):
        told = columns.wrong >= 0
    elif signal == "precision":
        told = columns.positive_predicted == 1
    elif signal == "fp_per_prediction":
        told = columns.positive_predicted >= 0
    elif signal == "cost":
        told = np.ones(len(columns.error), np.bool_)
    else:
        told = np.isfinite(columns.score if signal == "brier" else columns.value)
    return told


def serve(early: Early, signal: str, table: Table, own: Bool, base: int) -> None:
    """Hand in predictions as served: good, so far."""
    index = np.flatnonzero(own & awaited(signal, table.columns))
    if not len(index):
        return
    if early.since_ms < 0:
        early.since_ms = int(table.served_ms[index[0]])
    early.detector.update(Rows(np.zeros(len(index)), base + index, table.served_ms[index]))


def arrive(early: Early, signal: str, table: Table, own: Bool, base: int, horizon_ms: int
           ) -> int | None:  # fmt: skip
    """Hand in labels that came within the horizon; the index of the one at which it fired."""
    index, loss = losses.select(signal, table.columns)
    keep = own[index] & (table.age_ms[index] <= horizon_ms) & (early.since_ms >= 0)
    keep &= table.served_ms[index] >= early.since_ms
    index, loss = index[keep], loss[keep]
    if not len(index):
        return None
    labels = Labels(loss, base + index, table.when_ms[index], table.served_ms[index])
    fired_at = early.detector.arrive(labels).fired_at
    return None if fired_at is None else int(fired_at) - base


def weigh_delays(check: DelayCheck, rows: Rows, table: Table, base: int) -> None:
    """Hand in the ages of bad labels of both arms, matured."""
    index = rows.position - base
    bad = (rows.loss > 0) & table.columns.labelled[index]
    if bad.any():
        ages = table.age_ms[index][bad].astype(np.float64)
        weight = None if rows.weight is None else rows.weight[bad]
        canary = None if rows.canary is None else rows.canary[bad]
        check.update(Rows(ages, rows.position[bad], rows.time_ms[bad], canary, weight))


def label_notes(policy: Policy) -> list[str]:
    """What a policy's label mode means for its guards, where it is not what one may think."""
    specs = [s for s in policy.guards
             if s.signal in NEEDS_LABELS - {"label_coverage"} and s.detector is None]  # fmt: skip
    if policy.labels == "conditional":
        paired = [s.label for s in specs if s.max_increase is not None]
        rest = [s.label for s in specs if s.max_increase is None]
        halves = (f"{', '.join(paired)}: half of alpha for labels on arrival while canary and "
                  "stable get theirs equally late, half for matured ones")  # fmt: skip
        return ([halves] if paired else []) + _matured(rest, "a limit against a number")
    if policy.labels == "optimistic":
        paired = [s.label for s in specs if s.max_increase is not None]
        open_ones = [s.label for s in specs
                     if s.max_increase is None and s.signal not in FROM_THE_START]  # fmt: skip
        return _matured(paired, "a limit against the stable") + _matured(
            open_ones, "a rate whose rows are known by their labels"
        )
    return []


def _matured(labels: list[str], why: str) -> list[str]:
    return [f"{', '.join(labels)} counts matured labels, being {why}"] if labels else []
