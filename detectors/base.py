"""What every detector is given, says, and remembers.

A detector is pure: `update` takes one batch of columns, oldest first, and nothing else; it reads no
clock and draws no chance but from a seed that is a parameter. How rows are packed into batches
changes nothing: not the statistic, not the row that is named as the first crossing.

An alarm is latched. The evidence stands as it was at the first crossing, because the ground of a
decision must not move after the decision; later rows are still counted. `rearm` clears the latch.
(`stable_watch.py` re-arms itself, and says so in its mark; what a gate proves is good news.)

`warming` means that no sequence of so few rows could alarm. `warning` is a hint without a
guarantee: half of the evidence (in nats) that an alarm takes.

What a detector remembers is plain data with a version. Under another version, kind or set of
parameters it is refused (`StateMismatch`), and the caller starts afresh: evidence gathered for one
question must not answer another.

Refused here: any knowledge of signals (`losses.py`), policies, streams or storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from math import isfinite
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from schemas.plugins import mark_of

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
I8 = npt.NDArray[np.int8]
Bool = npt.NDArray[np.bool_]
Level = Literal["warming", "quiet", "warning", "alarm"]

LOG_CAP = 700.0
"""Highest log e-value that is kept, nats: exp of more overflows, and e^700 is proof enough."""


class Rows(NamedTuple):
    """One batch of what a guard sees, oldest first; every array has shape (n,)."""

    loss: F64
    """Larger is worse: 0 or 1 for rates, else the value itself (milliseconds, a score)."""
    position: I64
    """Ordinal given by the caller, strictly increasing over the guard's life."""
    time_ms: I64
    """Event time, epoch milliseconds; need not be sorted."""
    canary: Bool | None = None
    """Paired guards: True where the row is of the version under judgement, False: stable."""
    weight: F64 | None = None
    """Paired guards: the canary's assigned probability when the row was served; NaN: unknown."""
    stable_loss: F64 | None = None
    """Votes of units with rows in both arms: the stable's part of the vote, beside `loss`."""
    canary_part: F64 | None = None
    """Votes of units: share of the unit's rows that were the canary's; None: 1 or 0, by arm."""


class Reading(Struct, frozen=True):
    """What a detector says after a batch."""

    level: Level
    statistic: float | None
    """Log e-value, nats; None: nothing seen yet, or the detector has none (river)."""
    threshold: float | None
    """What the statistic must reach, nats; None where there is no statistic at all."""
    n: int
    """Rows of the version under judgement."""
    fired_at: int | None
    """`position` of the first crossing, latched; None: never."""
    fired_ms: int | None
    """Event time of that row, epoch ms."""


class Interval(Struct, frozen=True):
    """An estimate and its bounds, which hold at all times at once; for display and for `pass`."""

    estimate: float | None = None
    lower: float | None = None
    """None: no lower bound is known."""
    upper: float | None = None
    """None: no upper bound is known."""
    stable_estimate: float | None = None
    """The same quantity of the stable version, where the guard sees it."""


class Fired(NamedTuple):
    """The first crossing."""

    position: int
    time_ms: int
    statistic: float | None


class Detector(Protocol):
    """One guard's judge. `update` is the only verb that changes what it thinks."""

    def update(self, rows: Rows) -> Reading:
        """Take one batch; raises `InvalidRows` on rows that break their contract."""

    def reading(self) -> Reading:
        """Say again what the last `update` said."""

    def interval(self) -> Interval:
        """Estimate what is watched, in the loss's own unit."""

    def rearm(self) -> None:
        """Clear the latch and the evidence, not the counts; the error budget is not refilled."""

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; raises `StateMismatch` and is fresh if it cannot."""

    def explain(self) -> dict[str, Any]:
        """Say what an alarm proves: `h0` in words, the budget by its name, `guarantee` (or not)."""


class PairedDetector(Detector, Protocol):
    """A detector that compares the canary with the concurrent stable."""

    def ratio(self) -> Interval:
        """Estimate how many times the stable's rate the canary's is."""


class InvalidRows(ValueError):
    """Rows break their contract; the message says which column and how."""


class StateMismatch(ValueError):
    """Saved state is of another version, kind or parameters, or damaged."""


def require_open_unit(**values: float) -> None:
    """Raise `ValueError` unless every named value lies in (0, 1)."""
    for name, value in values.items():
        if not 0 < value < 1:
            raise ValueError(f"{name} must lie above 0 and below 1, got {value}")


def require_at_least(least: float, **values: float | None) -> None:
    """Raise `ValueError` unless every named value is finite and >= `least`; None passes."""
    for name, value in values.items():
        if value is not None and not (isfinite(value) and value >= least):
            raise ValueError(f"{name} must be at least {least:g}, got {value}")


def require_above_zero(**values: float) -> None:
    """Raise `ValueError` unless every named value is finite and above 0."""
    for name, value in values.items():
        if not (isfinite(value) and value > 0):
            raise ValueError(f"{name} must be above 0, got {value}")


def require_rows(rows: Rows, last: int | None, *, paired: bool, binary: bool) -> None:
    """Raise `InvalidRows` unless the columns fit each other and the guard.

    Parameters
    ----------
    rows : Rows
        The batch.
    last : int or None
        Position of the last row taken; a row at or below it would be counted twice.
    paired, binary : bool
        Whether the guard compares two arms; whether its losses must be 0 or 1.
    """
    shape = rows.loss.shape
    if len(shape) != 1 or any(column is not None and column.shape != shape for column in rows):
        raise InvalidRows("columns must all have one shape (n,)")
    if (rows.canary is not None) != paired:
        kind = "a paired guard needs" if paired else "a guard of one version takes no"
        raise InvalidRows(f"canary: {kind} column that tells the arms apart")
    if not shape[0]:
        return
    if binary and not ((rows.loss == 0) | (rows.loss == 1)).all():
        raise InvalidRows("loss: this guard takes 0 (good) or 1 (bad), no other value")
    if not binary and not np.isfinite(rows.loss).all():
        raise InvalidRows("loss: must be finite; leave out rows that have none")
    if (rows.position[1:] <= rows.position[:-1]).any() or (
        last is not None and rows.position[0] <= last
    ):
        raise InvalidRows(f"position: must grow from row to row and lie above {last}")
    if rows.weight is not None and ((rows.weight < 0) | (rows.weight > 1)).any():
        raise InvalidRows("weight: must lie in [0, 1], or be NaN where it is unknown")


def log_mean(levels: F64) -> F64:
    """Log of the mean of exp(levels) over the first axis, shape (k, m) -> (m,); k a power of two.

    The sum is folded by halves, elementwise, so that its last bit does not depend on m.
    """
    top = levels.max(axis=0)
    # A column of -inf only (no mass yet) would give NaN below.
    top = np.where(np.isneginf(top), 0.0, top)
    mass = np.exp(levels - top)
    while len(mass) > 1:
        half = len(mass) // 2
        mass = mass[:half] + mass[half:]
    with np.errstate(divide="ignore"):
        logs: F64 = np.log(mass[0] / len(levels))
    return np.minimum(logs + top, LOG_CAP)


def running(level: F64, increments: F64) -> F64:
    """Levels after each increment, added one by one in order: (k,), (m, k) -> (m, k)."""
    stacked = np.concatenate((level[None, :], increments))
    # accumulate is sequential by definition; a plain sum may pair its terms.
    return np.add.accumulate(stacked, axis=0)[1:]


def first_crossing(statistics: F64, threshold: float) -> int | None:
    """Index of the first value at or above the threshold."""
    crossed = np.flatnonzero(statistics >= threshold)
    return int(crossed[0]) if len(crossed) else None


def level_of(
    statistic: float | None, threshold: float, fired: Fired | None, warming: bool
) -> Level:
    """The level of a detector that has an e-value."""
    if fired is not None:
        return "alarm"
    if warming:
        return "warming"
    return "warning" if statistic is not None and statistic >= threshold / 2 else "quiet"


def plain(level: F64) -> list[float] | None:
    """Levels as plain data; None before any mass has entered (they are -inf, which JSON lacks)."""
    return None if np.isneginf(level[0]) else [float(x) for x in level]


def levels_from(saved: list[float] | None, size: int) -> F64:
    """The reverse of `plain`."""
    if saved is None:
        return np.full(size, -np.inf)
    level = np.array(saved, dtype=np.float64)
    if level.shape != (size,) or not np.isfinite(level).all():
        raise ValueError(f"{size} finite levels expected")
    return level


def header(detector: object, version: int) -> dict[str, Any]:
    """What saved state says of its owner: kind, version of the layout, parameters."""
    mark = mark_of(type(detector))
    return {
        "kind": mark.kind if mark else type(detector).__name__,
        "version": version,
        "parameters": parameters_of(detector),
    }


def parameters_of(detector: object) -> dict[str, Any]:
    """The constructor's fields with their values."""
    return {f.name: getattr(detector, f.name) for f in fields(detector) if f.init}  # type: ignore[arg-type]


@contextmanager
def restoring(detector: Any, version: int, state: dict[str, Any]) -> Iterator[None]:
    """Check the header; whatever goes wrong inside leaves the detector fresh, never half restored.

    Raises
    ------
    StateMismatch
        On another kind, version or parameters, or on damaged data.
    """
    try:
        for name, mine in header(detector, version).items():
            if (found := state.get(name)) != mine:
                raise StateMismatch(
                    f"saved state has {name} {found!r}, this detector has {mine!r}; start afresh"
                )
        yield
    except StateMismatch:
        detector.__post_init__()
        raise
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as fault:
        detector.__post_init__()
        raise StateMismatch(f"saved state is damaged ({fault!r}); start afresh") from fault
