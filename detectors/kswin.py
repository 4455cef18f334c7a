"""KSWIN of river: are the last rows distributed as those before them?

Why. It sees a change of shape that leaves the mean alone, which no other detector here does; with
`side: both` that is a warning about a feature or a score. It cannot be trusted alone: it tests
anew at every row, and 258 alarms were counted in 200,000 rows without any change.

How. river's object, whose last `stat_size` rows are compared with as many drawn from the rest of
the window by a seeded generator. It knows no side, so the means of the two parts tell it. river
asks scipy for a p-value at every row, 240 microseconds each. Both parts always have one size, so
that p-value depends on the distance alone, and the least distance that alarms is looked up once.
The decisions are river's, row by row.
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from collections import deque
from dataclasses import dataclass
from functools import lru_cache
from operator import gt
from statistics import fmean
from typing import Any, ClassVar

import numpy as np
from river.drift import KSWIN

from detectors.base import require_at_least, require_open_unit
from detectors.chance import load_draws, saved_draws
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("kswin", arms="single", losses="value", guarantee="no", restless="yes",
        trigger="advised_against")  # fmt: skip
@dataclass
class Kswin(RiverLatch):
    """River's Kolmogorov-Smirnov window, on one side, latched, seeded.

    Parameters
    ----------
    alpha : float
        Significance of one look, in (0, 1): river's word, and no error budget.
    window_size : int
        Rows of the window, >= 2 * `stat_size`.
    stat_size : int
        Rows of each of the two samples, >= 2.
    seed : int
        Of the draws from the older rows, >= 0.
    side : {"up", "down", "both"}
        Which way the recent mean must lie to raise the flag; "up" is worse. "both" also sees
        changes that leave the mean alone.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range; also where no distance could ever be enough.

    References
    ----------
    Raab, Heusinger, Schleif (2020), Reactive soft prototype computing for concept drift streams.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Kswin(), np.arange(1000)
    >>> guard.update(Rows(np.tile([0.2, 0.3], 500), when, when)).level
    'quiet'
    >>> guard.update(Rows(np.tile([0.7, 0.8], 500), when + 1000, when)).level
    'alarm'
    """

    alpha: float = 0.005
    window_size: int = 100
    stat_size: int = 30
    seed: int = 0
    side: Side = "up"
    level: Raised = "alarm"

    KEPT: ClassVar[tuple[str, ...]] = ("n", "_drift_detected")

    def _check(self) -> None:
        require_open_unit(alpha=self.alpha)
        require_at_least(2, stat_size=self.stat_size)
        require_at_least(2 * self.stat_size, window_size=self.window_size)
        require_at_least(0, seed=self.seed)
        if least_shift(self.stat_size, self.alpha) > self.stat_size:
            raise ValueError(
                f"stat_size {self.stat_size} can never alarm at alpha {self.alpha:g}; "
                "choose a larger one"
            )

    def _build(self) -> None:
        self._river = _Windows(self.alpha, self.window_size, self.stat_size, self.seed)

    @property
    def _warm(self) -> int:
        return self.window_size

    def _feed(self, loss: float) -> bool:
        self._river.update(loss)
        if not self._river.drift_detected:
            return False
        return self.side == "both" or self._river.moved == self.side

    def _saved(self) -> dict[str, Any]:
        return {
            "numbers": super()._saved(),
            "window": b85encode(np.array(self._river.window, "<f8").tobytes()).decode(),
            "draws": saved_draws(self._river._rng),
        }

    def _load(self, saved: dict[str, Any]) -> None:
        super()._load(saved["numbers"])
        window = np.frombuffer(b85decode(saved["window"]), "<f8").tolist()
        self._river.window = deque(window, maxlen=self.window_size)
        load_draws(self._river._rng, saved["draws"])

    @property
    def beware(self) -> str | None:
        """How often it cries wolf."""
        return (
            "healthy versions alarm too, about once in 1,500 rows of a score or a latency; "
            "of a rate it sees nothing but a collapse"
        )


class _Windows(KSWIN):
    """river's window with the p-value looked up, and which way the mean moved."""

    moved = "none"

    def update(self, x: float) -> None:
        if self.drift_detected:
            self._reset()  # type: ignore[no-untyped-call]
        self.n += 1
        self.window.append(x)
        self._drift_detected = False
        if len(self.window) < self.window_size:
            return
        window = list(self.window)
        past, recent = window[: -self.stat_size], window[-self.stat_size :]
        drawn = sorted(self._rng.sample(past, self.stat_size))
        if apart(drawn, sorted(recent), least_shift(self.stat_size, self.alpha)):
            self._drift_detected = True
            was, now = fmean(past), fmean(recent)
            self.moved = "up" if now > was else "down" if now < was else "none"
            self.window = deque(recent, maxlen=self.window_size)


def apart(left: list[float], right: list[float], shift: int) -> bool:
    """Whether two sorted samples of one size differ by at least `shift` ranks somewhere.

    Their empirical distributions differ by shift / size at t if one has at least i + shift values
    up to t where the other has at most i.

    >>> apart([1, 2, 3], [2, 3, 4], 1), apart([1, 2, 3], [2, 3, 4], 2)
    (True, False)
    """
    top = len(left) - shift + 1
    return any(map(gt, right[:top], left[shift - 1 :])) or any(
        map(gt, left[:top], right[shift - 1 :])
    )


@lru_cache(maxsize=256)
def least_shift(size: int, alpha: float) -> int:
    """Fewest ranks by which two samples of `size` must differ to be told apart; size + 1: none.

    river itself is asked, with a window whose recent half has so many higher values.
    """
    low, high = 1, size + 1
    while low < high:
        middle = (low + high) // 2
        window = [0.0] * (2 * size - middle) + [1.0] * middle
        river = KSWIN(alpha, 2 * size, size, seed=0, window=window[:-1])
        river.update(window[-1])  # type: ignore[no-untyped-call]
        if river.drift_detected:
            high = middle
        else:
            low = middle + 1
    return low
