"""Page-Hinkley of river: has the mean of a stream moved away from its own past?

Why. A cumulative sum finds a small lasting shift that a window overlooks. Its threshold depends on
the scale of the values and has no meaning as an error rate, so it warns and does not judge.

How. river's object, with its mode as the side; its numbers are plain and saved as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from river.drift import PageHinkley as RiverPageHinkley

from detectors.base import require_above_zero, require_at_least
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("page_hinkley", arms="single", losses="value", guarantee="no")
@dataclass
class PageHinkley(RiverLatch):
    """River's Page-Hinkley test, on one side, latched.

    Parameters
    ----------
    min_instances : int
        Rows before the first look, >= 1.
    delta : float
        Movement of the mean that is borne, in the loss's own unit, >= 0.
    threshold : float
        Cumulative movement that raises the flag, in the loss's own unit, > 0.
    alpha : float
        Weight that the sum keeps per row, in (0, 1]: river's word, and no error budget.
    side : {"up", "down", "both"}
        Which movement of the mean raises the flag; "up" is worse.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Page (1954), Continuous inspection schemes.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = PageHinkley(), np.arange(1000)
    >>> guard.update(Rows(np.tile([0.2, 0.3], 500), when, when)).level
    'quiet'
    >>> guard.update(Rows(np.tile([0.7, 0.8], 500), when + 1000, when)).level
    'alarm'
    """

    min_instances: int = 30
    delta: float = 0.005
    threshold: float = 50.0
    alpha: float = 0.9999
    side: Side = "up"
    level: Raised = "alarm"

    KEPT: ClassVar[tuple[str, ...]] = (
        "_x_mean.n", "_x_mean._mean", "_sum_increase", "_sum_decrease", "_min_increase",
        "_max_decrease", "_drift_detected",
    )  # fmt: skip

    def _check(self) -> None:
        require_at_least(1, min_instances=self.min_instances)
        require_at_least(0, delta=self.delta)
        require_above_zero(threshold=self.threshold)
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must lie above 0 and up to 1, got {self.alpha}")

    def _build(self) -> None:
        self._river = RiverPageHinkley(
            min_instances=self.min_instances,
            delta=self.delta,
            threshold=self.threshold,
            alpha=self.alpha,
            mode=self.side,
        )

    @property
    def _warm(self) -> int:
        return self.min_instances
