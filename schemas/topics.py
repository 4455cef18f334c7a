"""Every topic by its name without prefix: what keys it and how long it is kept."""

from __future__ import annotations

from typing import Any

TOPICS: dict[str, dict[str, Any]] = {
    "predictions": {"keyed_by": "prediction_id", "cleanup": "delete", "retention_s": 8 * 86_400},
    "outcomes": {"keyed_by": "prediction_id", "cleanup": "delete", "retention_s": 8 * 86_400},
    "rollouts": {"keyed_by": "model", "cleanup": "compact"},
    "holds": {"keyed_by": "model", "cleanup": "compact"},
    "observations": {"keyed_by": "model", "cleanup": "delete", "retention_s": 6 * 3600},
    "verdicts": {"keyed_by": "model", "cleanup": "compact"},
    "breaches": {"keyed_by": "model", "cleanup": "delete", "retention_s": 28 * 86_400},
    "commands": {"keyed_by": "model", "cleanup": "delete", "retention_s": 28 * 86_400},
    "receipts": {"keyed_by": "model", "cleanup": "delete", "retention_s": 28 * 86_400},
    "progress": {"keyed_by": "model", "cleanup": "delete", "retention_s": 28 * 86_400},
    "orders": {"keyed_by": "model", "cleanup": "delete", "retention_s": 28 * 86_400},
    "anchors": {"keyed_by": "log", "cleanup": "delete", "retention_s": 3650 * 86_400},
    "dead-letters": {"keyed_by": "source topic", "cleanup": "delete", "retention_s": 28 * 86_400},
}
"""`progress` (what became of an incident), `orders` (what people want) and `anchors` (what the
incident log was, signed) are internal."""
