"""HDDM with moving averages, of river: is the mean of all rows above its best past?

Why. Hoeffding's bound makes it calm: no false alarm was seen where DDM and EDDM have hundreds. The
price is at low rates: the bound knows no variance, so .015 to .03 is not found, and .06 late.

How. river's object with its test of a rise; the test of both sides is not offered.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil, log
from typing import ClassVar

from river.drift.binary import HDDMA

from detectors.base import require_open_unit
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("hddma", arms="single", losses="binary", guarantee="no", trigger="advised_against")
@dataclass
class Hddma(RiverLatch):
    """River's HDDM_A, latched; only a rise of the error rate alarms.

    Parameters
    ----------
    drift_confidence : float
        Chance that Hoeffding's bound leaves to one look, in (0, 1): no bound over a life.
    warning_confidence : float
        The same for a warning, in (0, 1), at least `drift_confidence`.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Frías-Blanco, del Campo-Ávila, Ramos-Jiménez and others (2015), Online and non-parametric drift
    detection methods based on Hoeffding's bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Hddma(), np.arange(1000)
    >>> guard.update(Rows((when % 10 == 0).astype(float), when, when)).level
    'quiet'
    >>> guard.update(Rows((when % 10 < 6).astype(float), when + 1000, when)).level
    'alarm'
    """

    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    level: Raised = "alarm"
    side: Side = field(default="up", init=False)

    KEPT: ClassVar[tuple[str, ...]] = (
        "_x_min.n", "_x_min._mean", "_x_max.n", "_x_max._mean", "_z.n", "_z._mean",
        "_drift_detected", "_warning_detected",
    )  # fmt: skip

    def _check(self) -> None:
        require_confidences(self.drift_confidence, self.warning_confidence)

    def _build(self) -> None:
        self._river = HDDMA(self.drift_confidence, self.warning_confidence)  # type: ignore[no-untyped-call]

    @property
    def _warm(self) -> int:
        # k good rows and then m bad ones alarm once k m / (k + m) reaches half of this log; that
        # takes the fewest rows at k = m.
        return ceil(2 * log(2 / self.drift_confidence))

    @property
    def beware(self) -> str | None:
        """What it does not see."""
        return "slow or blind at low rates: .015 to .03 is not found, .06 after 2,000 rows"


def require_confidences(drift: float, warning: float) -> None:
    """Raise `ValueError` unless both are chances and a warning is the easier of the two."""
    require_open_unit(drift_confidence=drift, warning_confidence=warning)
    if warning < drift:
        raise ValueError(
            f"warning_confidence must be at least drift_confidence ({drift:g}), got {warning:g}"
        )
