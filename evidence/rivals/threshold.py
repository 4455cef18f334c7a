"""A rule of k bad measurements, as Argo Rollouts and Flagger apply it.

Flagger: a check every minute over the last minute (`interval: 1m`), and a rollback at the fifth
failed check (`threshold: 5`), as in its documented example. Argo Rollouts: a measurement every five
minutes over the last five (`interval: 5m`), and failure once more than three measurements failed
(`failureLimit: 3`), as in its documented example; `consecutiveErrorLimit` counts measurements that
could not be taken, of which there are none here. Both count failures over the whole analysis.

Kinder than the documents: a measurement fails only above 1.5 times the limit. With the bar at the
limit itself, as documented, a version on the limit fails every second measurement; Argo is measured
that way too.
"""

from __future__ import annotations

import numpy as np

from detectors.base import Rows
from evidence.cells import Judge
from evidence.worlds import STEP_MS

MINUTE = 60_000 // STEP_MS
HEADROOM = 1.5


def threshold(bar: float, window: int, failures: int) -> Judge:
    """Alarm at the end of the window in which the nth measurement failed."""

    def judge(rows: Rows) -> int | None:
        whole = len(rows.loss) // window
        means = rows.loss[: whole * window].reshape(whole, window).mean(axis=1)
        failed = np.flatnonzero(means > bar)
        return None if len(failed) < failures else int(failed[failures - 1] + 1) * window - 1

    return judge


def flagger(limit: float) -> Judge:
    """Five failed checks of a minute each."""
    return threshold(HEADROOM * limit, MINUTE, 5)


def argo(limit: float, headroom: float = HEADROOM) -> Judge:
    """More than three failed measurements of five minutes each."""
    return threshold(headroom * limit, 5 * MINUTE, 4)
