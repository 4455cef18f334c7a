"""Logs and metrics: one typed list of metric names, and structured logs without secrets.

Every worker emits the same four counts: received, sent, rejected, errors. Names of models may be
labels (their number is capped); ids never are.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from schemas.secrets import Secret

_URL = re.compile(r"(https?://[^/\s\"']+)/[^\s\"']*")
_USER = re.compile(r"(\w+://)[^/\s:@]+:[^/\s@]+@")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u202a-\u202e\u2066-\u2069]")
MAX_FIELD = 2000


class Metrics:
    """Every metric of this process. Build one per process; tests build their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        stage = ["stage"]
        self.received = self._counter("received_total", "Messages taken in, by stage", stage)
        self.sent = self._counter("sent_total", "Messages appended, by stage", stage)
        self.rejected = self._counter(
            "rejected_total", "Messages refused, by stage and reason", ["stage", "reason"]
        )
        self.errors = self._counter("errors_total", "Failed attempts that are tried again", stage)
        self.duplicates = self._counter("duplicates_total", "Repeated events dropped by id", stage)
        self.corrections = self._counter("corrections_total", "Outcomes that change a label", [])
        self.unknown_fields = self._counter("unknown_fields_total", "Fields the contract lacks", [])
        self.segments_dropped = self._counter(
            "segments_dropped_total", "Predictions whose segments found no room", []
        )
        self.pending = self._gauge("pending_predictions", "Predictions waiting", ["partition"])
        self.lag_s = self._gauge("lag_seconds", "How far a stage is behind its topic", stage)
        self.watermark_ms = self._gauge("watermark_ms", "Event time of a partition", ["partition"])
        self.verdicts = self._counter("verdicts_total", "Verdict changes", ["verdict"])
        self.breaches = self._counter("breaches_total", "Breaches, by signal", ["signal"])
        self.commands = self._counter("commands_total", "Commands sent, by action", ["action"])
        self.receipts = self._counter("receipts_total", "Receipts, by status", ["status"])
        self.refusals = self._counter("refusals_total", "Commands withheld, by rule", ["rule"])
        self.verified = self._counter(
            "verifications_total", "Rollbacks by what traffic said", ["result"]
        )
        self.decision_s = Histogram(
            "rollbackd_decision_seconds", "Observation read to its verdict appended, seconds",
            registry=self.registry, buckets=(.001, .005, .02, .05, .1, .25, .5, 1, 2, 5, 10),
        )  # fmt: skip
        self.deliveries = self._counter(
            "deliveries_total", "Notifications, by kind and result", ["kind", "result"]
        )
        self.http_requests = self._counter(
            "http_requests_total", "HTTP answers", ["route", "status"]
        )

    def _counter(self, name: str, text: str, labels: list[str]) -> Counter:
        return Counter(f"rollbackd_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, labels: list[str]) -> Gauge:
        return Gauge(f"rollbackd_{name}", text, labels, registry=self.registry)


def redact(text: str) -> str:
    """Hide what addresses carry beyond the host, and credentials: webhook addresses are secrets.

    Examples
    --------
    >>> redact("POST https://hooks.example/T0/B0/x failed")
    'POST https://hooks.example/*** failed'
    """
    return _URL.sub(r"\1/***", _USER.sub(r"\1***@", text))


def clean(value: Any) -> Any:
    """Make one log field harmless: no secret, no control characters, no endless text."""
    if isinstance(value, Secret):
        return "***"
    if isinstance(value, str):
        text = _CONTROL.sub("\N{REPLACEMENT CHARACTER}", redact(value))
        return text if len(text) <= MAX_FIELD else text[:MAX_FIELD] + "…"
    return value


def _clean_fields(_: Any, __: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name, value in fields.items():
        fields[name] = clean(value)
    return fields


def configure_logs(pretty: bool, level: str = "info") -> None:
    """Send structured logs to standard error: JSON lines, or colour for a person at a terminal."""
    threshold = logging.getLevelNamesMapping().get(level.upper(), logging.INFO)
    renderer: Any = (
        structlog.dev.ConsoleRenderer() if pretty else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _clean_fields,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory(file=sys.stderr),
        cache_logger_on_first_use=False,
    )
    for noisy in ("aiokafka", "faust", "mode", "httpx", "httpx2", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
