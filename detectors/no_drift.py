"""river's detector that never alarms.

Why. The other end of the yardstick: what a benchmark gives to one that does nothing.

How. river's object, which remembers nothing; only rows are counted.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from river.drift import NoDrift as RiverNoDrift

from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("no_drift", arms="single", losses="value", guarantee="no", hears="nothing")
@dataclass
class NoDrift(RiverLatch):
    """River's detector that never alarms: a yardstick that looks at no loss.

    Parameters
    ----------
    level : {"warning", "alarm"}
        What the flag would be read as, so that it can stand where another detector stood.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Montiel and others (2021), River: machine learning for streaming data in Python.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = NoDrift(), np.arange(1000)
    >>> guard.update(Rows(np.ones(1000), when, when)).level
    'quiet'
    """

    level: Raised = "alarm"
    side: Side = field(default="both", init=False)

    def _check(self) -> None:
        """river's has no parameters."""

    def _build(self) -> None:
        self._river = RiverNoDrift()  # type: ignore[no-untyped-call]

    @property
    def _warm(self) -> int:
        return 1

    def explain(self) -> dict[str, Any]:
        """Say that there is never an alarm."""
        return super().explain() | {"h0": "none: it never alarms; no false-alarm guarantee"}

    @property
    def beware(self) -> str | None:
        """What it is for."""
        return "benchmark only: it never alarms"
