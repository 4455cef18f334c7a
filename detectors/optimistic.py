"""What a guard in the optimistic label mode is given and is: labels apart from predictions.

A prediction is a row when it is served, with loss 0 (good so far). Its label is handed in when it
comes, by `arrive`, and finds its bucket by the time at which its prediction was served.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

from detectors.base import F64, I64, Detector, Reading


class Labels(NamedTuple):
    """Labels that came, oldest first; every array has shape (n,).

    Only labels of predictions that were handed in before may be here. Rows with loss 0 are allowed
    and change nothing.
    """

    loss: F64
    """Larger is worse: 0 or 1 for rates, else the value itself."""
    position: I64
    """Ordinal of the label, above every position handed in before, of rows and of labels."""
    time_ms: I64
    """When it was observed, epoch milliseconds."""
    served_ms: I64
    """When its prediction was served: `Rows.time_ms` of that prediction, epoch milliseconds."""


class OptimisticDetector(Detector, Protocol):
    """A detector whose rows are predictions as served, and whose labels come later.

    `update(rows)` takes predictions: `loss` 0 (nothing bad is known of them yet), `time_ms` when
    they were served. Its mark says `labels="arrive"`; kinds: `optimistic_rate(limit, horizon_ms,
    alpha, bucket, bucket_ms)` and `optimistic_mean(limit, cap, horizon_ms, alpha, …)`.
    """

    def arrive(self, labels: Labels) -> Reading:
        """Take labels; `fired_at` is then the position of a label."""
