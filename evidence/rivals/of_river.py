"""river 0.26's binary detectors with river's defaults: DDM, EDDM, HDDM-A, and its Dummy.

They are given 1 for a bad row. The flag of an alarm is up for one row only, so it is read after
each. HDDM-A tests one side, as its default is. The Dummy fires every 300 rows whatever comes: what
it scores, anyone can score.

References
----------
Gama et al. (2004), DDM. Baena-García et al. (2006), EDDM. Frías-Blanco et al. (2015), HDDM.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from river.drift import DummyDriftDetector
from river.drift.binary import DDM, EDDM, HDDMA

from detectors.base import Rows
from evidence.cells import Judge


def of_river(make: Callable[[], Any]) -> Judge:
    """Judge by a fresh river object each run."""

    def judge(rows: Rows) -> int | None:
        detector = make()
        update = detector.update
        for index, loss in enumerate((rows.loss > 0).tolist()):
            update(loss)
            if detector.drift_detected:
                return index
        return None

    return judge


ddm = of_river(DDM)
eddm = of_river(EDDM)
hddm_a = of_river(HDDMA)
dummy = of_river(DummyDriftDetector)
