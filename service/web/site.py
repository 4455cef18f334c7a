"""What the HTTP side of a process is given, and how it says no."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import msgspec
from fastapi import HTTPException
from starlette.responses import Response

from service.clock import Clock
from service.config import HttpSettings
from service.engine.base import Engine
from service.storage.checkpoints import CheckpointStore
from service.storage.history import VerdictHistory
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.storage.receipts import ReceiptStore
from service.telemetry import Metrics

STAGE = "web"


@dataclass(frozen=True)
class Site:
    """What every process has."""

    engine: Engine
    clock: Clock
    metrics: Metrics
    settings: HttpSettings
    health: Callable[[], Mapping[str, Any]] | None = None
    """`{"ready", "lag_s", "detail"}` of this process; the engine's own when left out."""


class Stores(NamedTuple):
    """What only the API needs."""

    log: IncidentLog
    holds: HoldStore
    checkpoints: CheckpointStore
    history: VerdictHistory
    receipts: ReceiptStore | None = None
    """What `act` is writing; without it Flagger's rollback hook always says no."""


def answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Answer with JSON."""
    body = msgspec.json.encode(value)
    return Response(body, status, dict(headers or {}), media_type="application/json")


def no(status: int, sentence: str, headers: Mapping[str, str] | None = None) -> HTTPException:
    """Refuse with one sentence that says what to do."""
    return HTTPException(status, sentence, dict(headers or {}))
