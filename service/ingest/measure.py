"""What a step does to the metrics."""

from __future__ import annotations

import structlog

from service.ingest.state import Partition, Window
from service.telemetry import Metrics

log = structlog.get_logger(__name__)

STAGE = "ingest"


def measure_received(metrics: Metrics, count: int, unknown_fields: int) -> None:
    """Count what was read."""
    metrics.received.labels(stage=STAGE).inc(count)
    if unknown_fields:
        metrics.unknown_fields.inc(unknown_fields)


def measure_step(metrics: Metrics, part: Partition, window: Window, sent: int) -> None:
    """Count what a step said and what it dropped."""
    number = str(part.number)
    metrics.sent.labels(stage=STAGE).inc(sent)
    if window.duplicates:
        metrics.duplicates.labels(stage=STAGE).inc(window.duplicates)
    if window.corrections:
        metrics.corrections.inc(window.corrections)
        # Without ids: they may stand for people.
        log.debug("outcomes_contradict_earlier_ones", partition=number, count=window.corrections)
    if dropped := part.slices.dropped:
        part.slices.dropped = 0
        metrics.segments_dropped.inc(dropped)
        log.warning("no_room_for_segments", partition=number, predictions=dropped)
    metrics.pending.labels(partition=number).set(part.pending.count)
    metrics.watermark_ms.labels(partition=number).set(part.watermark_ms)
