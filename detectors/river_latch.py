"""What all detectors around a river object share: one side, a latch, and a saved form.

Why. A river detector raises its flag for one row and forgets everything at the next; many of them
fire on better as on worse. Behind a guard a flag must stay, and an improvement must not raise it.
river's own warning zone, where there is one, is read as `warning`; it comes and goes.

Numbers of a policy arrive as floats, and river's windows want whole ones: here they are made so, or
refused by name. Parameters bear river's names. Not offered are those that would undo this file
(`two_sided_test`, `mode`), that hold data (`window`) or that act only on copies
(`dynamic_cloning`).

State is the river object's own saved form with river's version. Under another version of river it
is refused, and the detector warms up afresh: the layout is river's affair and changes.

There is no error budget here: river's parameters bound one look, not a life. `explain()` says so.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import fields
from math import isfinite
from operator import attrgetter
from typing import Any, ClassVar, Literal

from river.__version__ import __version__ as river_version

from detectors.base import (
    Fired,
    Interval,
    Reading,
    Rows,
    StateMismatch,
    header,
    require_rows,
    restoring,
)
from detectors.latch import fired_at, fired_from, saved_fired
from schemas.plugins import mark_of

Side = Literal["up", "down", "both"]
Raised = Literal["warning", "alarm"]


class RiverLatch(ABC):
    """Feeds rows to a river object one by one and keeps its first flag."""

    VERSION = 1
    KEPT: ClassVar[tuple[str, ...]] = ()
    """Paths of the river object's plain numbers and flags that make up its state."""

    side: Side
    level: Raised
    _river: Any

    def __post_init__(self) -> None:
        if self.side not in ("up", "down", "both"):
            raise ValueError(f"side must be 'up', 'down' or 'both', got {self.side!r}")
        if self.level not in ("warning", "alarm"):
            raise ValueError(f"level must be 'warning' or 'alarm', got {self.level!r}")
        _settle_numbers(self)
        self._check()
        mark = mark_of(type(self))
        self._binary = mark is not None and mark.facts.get("losses") == "binary"
        self._n = 0
        self._mean = 0.0
        self._last: int | None = None
        self._fired: Fired | None = None
        self._build()

    @abstractmethod
    def _check(self) -> None:
        """Raise `ValueError` on parameters out of range, by name."""

    @abstractmethod
    def _build(self) -> None:
        """Make a fresh river object."""

    def _feed(self, loss: float) -> bool:
        """Give one value; whether it raised the flag on the guarded side."""
        self._river.update(loss)
        return bool(self._river.drift_detected)

    @property
    @abstractmethod
    def _warm(self) -> int:
        """Rows below which the river object never fires."""

    def _saved(self) -> Any:
        """The river object as plain data."""
        found = {name: attrgetter(name)(self._river) for name in self.KEPT}
        # What is none or infinite has not been touched yet; a fresh object has it so.
        return {name: value for name, value in found.items() if value is not None
                and isfinite(value)}  # fmt: skip

    def _load(self, saved: Any) -> None:
        """The reverse of `_saved`; raises on damaged data."""
        for name, value in saved.items():
            if name not in self.KEPT or not isinstance(value, bool | int | float):
                raise ValueError(f"{name}: {value!r}")
            owner, _, field = name.rpartition(".")
            setattr(attrgetter(owner)(self._river) if owner else self._river, field, value)

    @property
    def beware(self) -> str | None:
        """What to know before this detector is trusted with anything; None: nothing special."""
        return None

    def rearm(self) -> None:
        """Clear the latch; what the river object has learnt since stays."""
        self._fired = None

    def update(self, rows: Rows) -> Reading:
        """Take rows whose losses are values of any scale, or 0 and 1 where the mark says so."""
        require_rows(rows, self._last, paired=False, binary=self._binary)
        for index, loss in enumerate(rows.loss.tolist()):
            self._n += 1
            self._mean += (loss - self._mean) / self._n
            # Read after every single row: the flag is gone at the next one.
            if self._feed(loss) and self._fired is None:
                self._fired = fired_at(rows, index, None)
        if len(rows.loss):
            self._last = int(rows.position[-1])
        return self.reading()

    def reading(self) -> Reading:
        """Say whether the flag was ever raised; there is no statistic."""
        fired = self._fired
        quiet: Literal["warming", "quiet", "warning"] = "quiet"
        if self._n < self._warm:
            quiet = "warming"
        elif getattr(self._river, "warning_detected", False):
            quiet = "warning"
        return Reading(
            level=quiet if fired is None else self.level,
            statistic=None,
            threshold=None,
            n=self._n,
            fired_at=fired.position if fired else None,
            fired_ms=fired.time_ms if fired else None,
        )

    def interval(self) -> Interval:
        """The mean of all rows; river gives no bounds that hold at all times."""
        return Interval(estimate=self._mean) if self._n else Interval()

    def state(self) -> dict[str, Any]:
        """All it remembers, with river's version."""
        return {
            **header(self, self.VERSION),
            "river": [river_version, self._saved()],
            "counts": [self._n, self._mean],
            "last": self._last,
            "fired": saved_fired(self._fired),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()` of the same river."""
        with restoring(self, self.VERSION, state):
            version, saved = state["river"]
            if version != river_version:
                raise StateMismatch(
                    f"saved state is of river {version}, installed is {river_version}; start afresh"
                )
            self._build()
            self._load(saved)
            self._n, self._mean = state["counts"]
            self._last = state["last"]
            self._fired = fired_from(state["fired"])

    def explain(self) -> dict[str, Any]:
        """Say that an alarm proves nothing."""
        moved = {"up": "risen", "down": "fallen", "both": "changed"}[self.side]
        return {
            "h0": f"the mean of the losses has not {moved} since the detector last settled; "
            "no false-alarm guarantee",
            "alpha": None,
            "guarantee": False,
            "river": river_version,
            "beware": self.beware,
        }


def _settle_numbers(detector: Any) -> None:
    """Make each number what its field is declared as: 50.0 rows are 50 rows, 50.5 are refused."""
    for field in fields(detector):
        declared, value = str(field.type), getattr(detector, field.name)
        whole = declared.startswith("int")
        if not (whole or declared == "float") or (value is None and "None" in declared):
            continue
        if isinstance(value, str) or not isfinite(value):
            raise ValueError(f"{field.name} must be a finite number, got {value!r}")
        if whole and value != int(value):
            raise ValueError(f"{field.name} must be a whole number, got {value}")
        setattr(detector, field.name, int(value) if whole else float(value))
