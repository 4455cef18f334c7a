"""FHDDM of river: has the share of good rows in a window fallen below its best?

Why. A window of a hundred rows finds a collapse within a window's length. It sees nothing else:
with river's defaults the share must fall by more than .26, so 2 % to 20 % of errors is invisible.

How. river's documentation says that a 1 is an error; its code alarms when the share of 1s *falls*
below its maximum. Fed as documented it is deaf to errors that rise from .05 to .60 and alarms when
they fall. So it is given 1 - x here: a 1 is a good row, and only worse alarms. (Its doctest feeds
rising 1s and shows alarms, before any has risen; the code is what counts.)
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from math import log, sqrt
from typing import Any, ClassVar

from river.drift.binary import FHDDM

from detectors.base import require_at_least, require_open_unit
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("fhddm", arms="single", losses="binary", guarantee="no", trigger="advised_against")
@dataclass
class Fhddm(RiverLatch):
    """River's fast Hoeffding drift detection method, fed with good rows, latched.

    Parameters
    ----------
    sliding_window_size : int
        Rows of the window, >= 2.
    confidence_level : float
        Chance that Hoeffding's bound leaves to one look, in (0, 1): no bound over a life.
    short_window_size : int or None
        Rows of a second window inside the first, >= 1 and at most its size; None: no second one.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range; also where no fall could ever be large enough.

    References
    ----------
    Pesaranghader, Viktor (2016), Fast Hoeffding drift detection method for evolving data streams.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Fhddm(), np.arange(1000)
    >>> guard.update(Rows((when % 10 == 0).astype(float), when, when)).level
    'quiet'
    >>> guard.update(Rows((when % 10 < 6).astype(float), when + 1000, when)).level
    'alarm'
    """

    sliding_window_size: int = 100
    confidence_level: float = 0.000001
    short_window_size: int | None = None
    level: Raised = "alarm"
    side: Side = field(default="up", init=False)

    KEPT: ClassVar[tuple[str, ...]] = ("n_one", "_u_max", "_drift_detected")

    def _check(self) -> None:
        require_at_least(2, sliding_window_size=self.sliding_window_size)
        require_at_least(1, short_window_size=self.short_window_size)
        require_open_unit(confidence_level=self.confidence_level)
        if (self.short_window_size or 0) > self.sliding_window_size:
            raise ValueError(
                f"short_window_size must be at most sliding_window_size "
                f"({self.sliding_window_size}), got {self.short_window_size}"
            )
        if self.jump >= 1:
            raise ValueError(
                f"sliding_window_size {self.sliding_window_size} can never alarm at "
                f"confidence_level {self.confidence_level:g}; choose a larger one"
            )

    @property
    def jump(self) -> float:
        """By how much the error share of a whole window must rise to be seen, Hoeffding."""
        return sqrt(log(1 / self.confidence_level) / (2 * self.sliding_window_size))

    def _build(self) -> None:
        self._river = FHDDM(self.sliding_window_size, self.confidence_level, self.short_window_size)

    @property
    def _warm(self) -> int:
        return self.sliding_window_size

    def _feed(self, loss: float) -> bool:
        self._river.update(1 - int(loss))
        return bool(self._river.drift_detected)

    def _saved(self) -> dict[str, Any]:
        short = getattr(self._river, "_u_short_max", None)
        window = "".join(map(str, self._river._sliding_window))
        return {"numbers": super()._saved(), "window": window, "short": short}

    def _load(self, saved: dict[str, Any]) -> None:
        super()._load(saved["numbers"])
        window = [int(bit) for bit in saved["window"]]
        self._river._sliding_window = deque(window, maxlen=self.sliding_window_size)
        if saved["short"] is not None:
            self._river._u_short_max = saved["short"]

    @property
    def beware(self) -> str | None:
        """What it does not see."""
        return f"blind to a rise of the rate by less than {self.jump:.2f}"
