"""EDDM of river: do errors follow each other at shorter distances than they once did?

Why. Distances between errors show a slow decline sooner than the rate does. It cannot be trusted
alone: it compares with the *largest* distance ever seen, and an average falls below nine tenths of
its own maximum by chance. At 5 % errors nine in ten healthy versions alarm within 3,000 rows.

How. river's object; it looks only at rows with an error, and only shorter distances alarm.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from river.drift.binary import EDDM

from detectors.base import require_at_least, require_open_unit
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("eddm", arms="single", losses="binary", guarantee="no", restless="yes",
        trigger="advised_against")  # fmt: skip
@dataclass
class Eddm(RiverLatch):
    """River's early drift detection method, latched; only errors that come closer alarm.

    Parameters
    ----------
    warm_start : int
        Errors before the first look, >= 1.
    alpha : float
        Share of the largest distance below which it warns, in (0, 1): river's word, and no error
        budget.
    beta : float
        Share of the largest distance below which the flag is raised, in (0, 1), at most `alpha`.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Baena-Garcia, del Campo-Ávila, Fidalgo, Bifet, Gavaldà, Morales-Bueno (2006), Early drift
    detection method.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Eddm(), np.arange(1000)
    >>> guard.update(Rows((when % 10 == 9).astype(float), when, when)).level
    'quiet'
    >>> guard.update(Rows((when % 10 < 6).astype(float), when + 1000, when)).level
    'alarm'
    """

    warm_start: int = 30
    alpha: float = 0.95
    beta: float = 0.9
    level: Raised = "alarm"
    side: Side = field(default="up", init=False)

    KEPT: ClassVar[tuple[str, ...]] = (
        "_error_distances.mean.n", "_error_distances.mean._mean", "_error_distances._S", "_n",
        "_last_error", "_n_errors", "_p2s_prime_max", "_drift_detected", "_warning_detected",
    )  # fmt: skip

    def _check(self) -> None:
        require_at_least(1, warm_start=self.warm_start)
        require_open_unit(alpha=self.alpha, beta=self.beta)
        if self.beta > self.alpha:
            raise ValueError(f"beta must be at most alpha ({self.alpha:g}), got {self.beta:g}")

    def _build(self) -> None:
        self._river = EDDM(self.warm_start, self.alpha, self.beta)

    @property
    def _warm(self) -> int:
        return self.warm_start + 1

    @property
    def beware(self) -> str | None:
        """How often it cries wolf."""
        return "healthy versions alarm too: at 5 % errors nine in ten within 3,000 rows"
