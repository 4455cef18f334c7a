"""The dummy of river: alarms by the count of rows, whatever they say.

Why. A detector that finds changes must beat one that does not look, and in a benchmark with many
changes that is harder than it sounds: F1 puts an always-alarming one above ADWIN. It is a yardstick
for benchmarks, and nothing but an alert may come of it.

How. river's object: every `t_0` rows, or at random about then, by a seeded generator. Refused is a
`w` so small beside `t_0` that river's sigmoid overflows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from river.drift import DummyDriftDetector

from detectors.base import require_at_least
from detectors.chance import load_draws, saved_draws
from detectors.river_latch import Raised, RiverLatch, Side
from schemas.plugins import plugin


@plugin("dummy", arms="single", losses="value", guarantee="no", hears="nothing")
@dataclass
class Dummy(RiverLatch):
    """River's dummy, latched, seeded: a yardstick that looks at no loss.

    Parameters
    ----------
    trigger_method : {"fixed", "random"}
        Every `t_0` rows, or at random around `t_0`.
    t_0 : int
        Rows between alarms, >= 1.
    w : int
        fixed: the first alarm is put off by up to so many rows, >= 0. random: alarms lie within
        about half of this around `t_0`, >= 1 and at least t_0 / 175.
    seed : int
        Of the draws, >= 0.
    level : {"warning", "alarm"}
        What the flag is read as.

    Raises
    ------
    ValueError
        On construction, naming field and range.

    References
    ----------
    Gomes, Montiel, Mastelini, Pfahringer, Bifet (2020), On ensemble techniques for data stream
    regression.

    Examples
    --------
    >>> import numpy as np
    >>> from detectors.base import Rows
    >>> guard, when = Dummy(t_0=300), np.arange(1000)
    >>> guard.update(Rows(np.zeros(1000), when, when)).fired_at
    299
    """

    trigger_method: Literal["fixed", "random"] = "fixed"
    t_0: int = 300
    w: int = 0
    seed: int = 0
    level: Raised = "alarm"
    side: Side = field(default="both", init=False)

    KEPT: ClassVar[tuple[str, ...]] = ("_n", "_warmup_done", "_drift_detected")

    def _check(self) -> None:
        if self.trigger_method not in ("fixed", "random"):
            raise ValueError(
                f"trigger_method must be 'fixed' or 'random', got {self.trigger_method!r}"
            )
        require_at_least(1, t_0=self.t_0)
        at_random = self.trigger_method == "random"
        require_at_least(max(1.0, self.t_0 / 175) if at_random else 0, w=self.w)
        require_at_least(0, seed=self.seed)

    def _build(self) -> None:
        self._river = DummyDriftDetector(self.trigger_method, self.t_0, self.w, seed=self.seed)
        # river sets this for one of the two methods only, and the state has one form.
        self._river._warmup_done = getattr(self._river, "_warmup_done", True)

    @property
    def _warm(self) -> int:
        return self.t_0 if self.trigger_method == "fixed" else 1

    def _saved(self) -> dict[str, Any]:
        return {"numbers": super()._saved(), "draws": saved_draws(self._river._rng)}

    def _load(self, saved: dict[str, Any]) -> None:
        super()._load(saved["numbers"])
        load_draws(self._river._rng, saved["draws"])

    def explain(self) -> dict[str, Any]:
        """Say that an alarm says nothing at all."""
        return super().explain() | {"h0": "none: no loss is looked at; no false-alarm guarantee"}

    @property
    def beware(self) -> str | None:
        """What it is for."""
        return "benchmark only: it alarms by the count of rows and looks at no loss"
