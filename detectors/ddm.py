"""DDM of river: is the error rate well above the lowest that it has had?

Why. It is the best known of its kind, and the yardstick that others are measured by. It cannot be
trusted alone: its three deviations are looked at after every row, so a healthy version alarms
sooner or later. At 1 % errors three in five have done so within 3,000 rows.

How. The lowest rate plus deviation is kept; the alarm is three such deviations above it. Only a
rise alarms. One trap is taken out: while no error was seen, river keeps a lowest rate of zero with
a deviation of zero, and then the first error is an alarm. Here that zero is not kept, so the first
error becomes the first lowest rate. (With the trap it is four in five.)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar

from river.drift.binary import DDM

from detectors.base import require_above_zero, require_at_least
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("ddm", arms="single", losses="binary", guarantee="no", restless="yes",
        trigger="advised_against")  # fmt: skip
@dataclass
class Ddm(RiverLatch):
    """River's drift detection method, latched; only a rise of the error rate alarms.

    Parameters
    ----------
    warm_start : int
        Rows before the first look, >= 1.
    warning_threshold : float
        Deviations above the lowest rate that warn, > 0 and at most `drift_threshold`.
    drift_threshold : float
        Deviations above the lowest rate that raise the flag, > 0.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Gama, Medas, Castillo, Rodrigues (2004), Learning with drift detection.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Ddm(), np.arange(1000)
    >>> guard.update(Rows((when % 10 == 0).astype(float), when, when)).level
    'quiet'
    >>> guard.update(Rows((when % 10 < 6).astype(float), when + 1000, when)).level
    'alarm'
    """

    warm_start: int = 30
    warning_threshold: float = 2.0
    drift_threshold: float = 3.0
    level: Raised = "alarm"
    side: Side = field(default="up", init=False)

    KEPT: ClassVar[tuple[str, ...]] = (
        "_p.n", "_p._mean", "_p_min", "_s_min", "_ps_min", "_drift_detected", "_warning_detected",
    )  # fmt: skip

    def _check(self) -> None:
        require_at_least(1, warm_start=self.warm_start)
        require_above_zero(
            warning_threshold=self.warning_threshold, drift_threshold=self.drift_threshold
        )
        if self.warning_threshold > self.drift_threshold:
            raise ValueError(
                f"warning_threshold must be at most drift_threshold ({self.drift_threshold:g}), "
                f"got {self.warning_threshold:g}"
            )

    def _build(self) -> None:
        self._river = DDM(self.warm_start, self.warning_threshold, self.drift_threshold)

    @property
    def _warm(self) -> int:
        return self.warm_start + 1

    def _feed(self, loss: float) -> bool:
        self._river.update(int(loss))
        if not self._river._p.get():
            # No error yet: a lowest rate of zero would make the first one an alarm.
            self._river._ps_min, self._river._p_min, self._river._s_min = inf, None, None
        return bool(self._river.drift_detected)

    @property
    def beware(self) -> str | None:
        """How often it cries wolf."""
        return "healthy versions alarm too: at 1 % errors three in five within 3,000 rows"
