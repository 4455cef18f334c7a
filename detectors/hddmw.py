"""HDDM with weighted averages, of river: is the recent average above its best past?

Why. An average that forgets finds a collapse soon, .2 to .8 within tens of rows. It sees nothing
else: McDiarmid's bound on two such averages does not shrink with more rows, so with river's
defaults the rate must jump by more than .42, and 2 % to 10 % of errors is never found.

How. river's object with its test of a rise; the test of both sides is not offered. Each average is
saved as its value: an average that starts at a value goes on from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any, ClassVar

from river.drift.binary import HDDMW

from detectors.base import require_open_unit
from detectors.hddma import require_confidences
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin

AVERAGES = ("_total", "_s1_decr", "_s1_incr", "_s2_decr", "_s2_incr")


@plugin("hddmw", arms="single", losses="binary", guarantee="no", trigger="advised_against")
@dataclass
class Hddmw(RiverLatch):
    """River's HDDM_W, latched; only a rise of the error rate alarms.

    Parameters
    ----------
    drift_confidence : float
        Chance that McDiarmid's bound leaves to one look, in (0, 1): no bound over a life.
    warning_confidence : float
        The same for a warning, in (0, 1), at least `drift_confidence`.
    lambda_val : float
        Weight of the newest row in the averages, in (0, 1): smaller sees less of a jump, later.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range; also where no jump could ever be large enough.

    References
    ----------
    Frías-Blanco, del Campo-Ávila, Ramos-Jiménez and others (2015), Online and non-parametric drift
    detection methods based on Hoeffding's bounds.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Hddmw(), np.arange(1000)
    >>> guard.update(Rows((when % 10 == 0).astype(float), when, when)).level
    'quiet'
    >>> guard.update(Rows((when % 10 < 7).astype(float), when + 1000, when)).level
    'alarm'
    """

    drift_confidence: float = 0.001
    warning_confidence: float = 0.005
    lambda_val: float = 0.05
    level: Raised = "alarm"
    side: Side = field(default="up", init=False)

    KEPT: ClassVar[tuple[str, ...]] = (
        *(f"{name}.{part}" for name in AVERAGES for part in ("_is_init", "_ibc")),
        "_incr_cutpoint", "_decr_cutpoint", "_drift_detected", "_warning_detected",
    )  # fmt: skip

    def _check(self) -> None:
        require_confidences(self.drift_confidence, self.warning_confidence)
        require_open_unit(lambda_val=self.lambda_val)
        if self.jump >= 1:
            raise ValueError(
                f"lambda_val {self.lambda_val:g} can never alarm at drift_confidence "
                f"{self.drift_confidence:g}; choose a smaller one"
            )

    @property
    def jump(self) -> float:
        """By how much the rate must rise to be seen, after however many rows."""
        return self._bound(self.lambda_val / (2 - self.lambda_val))

    def _bound(self, spread: float) -> float:
        return sqrt(2 * spread * log(1 / self.drift_confidence) / 2)

    def _build(self) -> None:
        self._river = HDDMW(  # type: ignore[no-untyped-call]
            self.drift_confidence, self.warning_confidence, self.lambda_val
        )
        # The bound is widest at the start; good rows and then as many bad ones alarm first.
        spread, rows = 1.0, 0
        while self._bound(spread) >= 1:
            spread = self.lambda_val**2 + (1 - self.lambda_val) ** 2 * spread
            rows += 1
        self._fewest = max(2, 2 * rows - 1)

    @property
    def _warm(self) -> int:
        return self._fewest

    def _saved(self) -> dict[str, Any]:
        means = {name: getattr(self._river, name).ewma for name in AVERAGES}
        return {"numbers": super()._saved(), "means": means}

    def _load(self, saved: dict[str, Any]) -> None:
        super()._load(saved["numbers"])
        for name in AVERAGES:
            average = getattr(self._river, name)
            if average.is_init:
                average._ewma.update(float(saved["means"][name]))

    @property
    def beware(self) -> str | None:
        """What it does not see."""
        return f"blind to a jump of the rate by less than {self.jump:.2f}"
