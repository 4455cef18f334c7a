"""The log: one structured line for each notice. What is told when no other endpoint is named."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import structlog

from schemas.plugins import plugin
from service.alert.notifiers.base import Letter, Payload
from service.alert.route import Notice
from service.http import Http, Reach

logs: Any = structlog.get_logger("alert")


@plugin("log")
@dataclass(frozen=True)
class Log:
    """Standard error, by way of the service's own log."""

    @property
    def pause_s(self) -> float:
        """A log takes everything."""
        return 0.0

    @property
    def reach(self) -> Reach:
        """It reaches nothing."""
        return Reach()

    def render(self, notice: Notice) -> Payload:
        """Give the fields of the line."""
        shown: Payload = {
            "title": notice.title,
            "kind": notice.kind,
            "incident": notice.incident_id,
            "model": notice.model,
            "version": notice.version,
            "what": notice.what,
            "why": notice.why,
            "done": notice.done,
        }
        return shown | ({"commands": notice.commands} if notice.commands else {})

    async def send(self, letter: Letter, http: Http) -> None:
        """Write the line."""
        fields = {name: value for name, value in letter.payload.items() if name != "title"}
        logs.warning(str(letter.payload["title"]), delivery=letter.delivery_id, **fields)
