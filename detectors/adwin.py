"""ADWIN of river: has the mean of a stream changed of late?

Why. It needs no limit and finds a step soon, which makes it a good warning of drift in scores and
features. It is no judge for a rollback: it fires on harmless changes too, since it knows no limit,
and is blind to a canary that was bad from its first row.

How. river's window drops its older part when the two parts' means differ. It fires either way, so
the side is read from the window's mean before and after. Its Rust core saves itself as bytes; they
are kept as base64 with a checksum, because damaged bytes would panic inside the extension.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from dataclasses import dataclass
from typing import Any
from zlib import crc32

from river.drift import ADWIN

from detectors.base import require_at_least, require_open_unit
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("adwin", arms="single", losses="value", guarantee="no")
@dataclass
class Adwin(RiverLatch):
    """River's adaptive window, on one side, latched.

    Parameters
    ----------
    delta : float
        Significance of one look, in (0, 1): no bound on false alarms over a life.
    clock : int
        Rows between looks, >= 1.
    max_buckets : int
        Buckets of one size before two are merged, >= 1: more are finer, and slower.
    min_window_length : int
        Rows that each part of the window must have to be compared, >= 1.
    grace_period : int
        Rows before the first look, >= 1.
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
    Bifet, Gavaldà (2007), Learning from time-changing data with adaptive windowing.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Adwin(), np.arange(1000)
    >>> guard.update(Rows(np.tile([0.2, 0.3], 500), when, when)).level
    'quiet'
    >>> guard.update(Rows(np.tile([0.7, 0.8], 500), when + 1000, when)).level
    'alarm'
    """

    delta: float = 0.002
    clock: int = 32
    max_buckets: int = 5
    min_window_length: int = 5
    grace_period: int = 10
    side: Side = "up"
    level: Raised = "alarm"

    def _check(self) -> None:
        require_open_unit(delta=self.delta)
        require_at_least(
            1, clock=self.clock, max_buckets=self.max_buckets,
            min_window_length=self.min_window_length, grace_period=self.grace_period,
        )  # fmt: skip

    def _build(self) -> None:
        self._river = ADWIN(  # type: ignore[no-untyped-call]
            delta=self.delta, clock=self.clock, max_buckets=self.max_buckets,
            min_window_length=self.min_window_length, grace_period=self.grace_period,
        )  # fmt: skip

    @property
    def _warm(self) -> int:
        return max(self.clock, self.grace_period)

    def _feed(self, loss: float) -> bool:
        before = self._river.estimation
        self._river.update(loss)
        if not self._river.drift_detected:
            return False
        rose = self._river.estimation > before
        return self.side == "both" or rose == (self.side == "up")

    def _saved(self) -> list[Any]:
        core = self._river._helper.__getstate__()
        return [b64encode(core).decode(), crc32(core), self._river.drift_detected]

    def _load(self, saved: list[Any]) -> None:
        text, checksum, detected = saved
        core = b64decode(text, validate=True)
        if crc32(core) != checksum:
            raise ValueError("checksum differs")
        self._river._helper.__setstate__(core)
        # The flag makes the next row reset the window, so it is part of the state.
        self._river._drift_detected = bool(detected)
