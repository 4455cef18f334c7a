"""Delay check: do the bad labels of canary and stable come equally late?

The label mode `conditional` counts labels as they arrive, which is right only if both arms' labels
are equally late. This judges that, on bad rows that had their whole horizon.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from detectors.base import Rows

Standing = Literal["unknown", "equal", "unequal"]


@dataclass
class DelayCheck:
    """Are the arms' bad labels equally late? Not a guard: it says whether a mode may be trusted.

    The caller feeds a paired guard with labels on arrival only while `standing` is "equal" (and
    not with those that came before), and judges by matured labels otherwise.

    Parameters
    ----------
    horizon_ms : int
        Age at which a prediction is mature, ms, >= 1.
    alpha : float
        Bound on P(ever "unequal" while the arms' labels are equally late), in (0, 1).
    """

    horizon_ms: int
    alpha: float = 0.01

    @property
    def standing(self) -> Standing:
        """"equal": enough rows to see a doubling, none seen; "unequal": seen, for good."""
        raise NotImplementedError

    @property
    def reason(self) -> str:
        """One sentence for people: why it stands so."""
        raise NotImplementedError

    def update(self, rows: Rows) -> Standing:
        """Take matured bad rows of both arms: `loss` is the label's age, ms (observed - served)."""
        raise NotImplementedError

    def state(self) -> dict[str, Any]:
        """All it remembers, as plain data."""
        raise NotImplementedError

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from `state()`; raises `StateMismatch` and is fresh if it cannot."""
        raise NotImplementedError
