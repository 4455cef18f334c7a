"""How far the demonstration has come, read from what the daemon's API says and nothing else.

Pure. `marks` are moments of wall time; seconds are counted from the moment the canary got traffic.
An incident's entries carry them: the breach, the command, the receipt, and the proof from traffic.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

STEPS = (
    ("serving", "v41 serves everybody"),
    ("canary", "v42 takes its share"),
    ("detected", "breach detected"),
    ("commanded", "rollback commanded"),
    ("applied", "router moved"),
    ("verified", "traffic confirms it"),
)
"""Steps in order, and what people read."""

_MISSING = {
    "detected": "no breach was detected",
    "commanded": "a breach was detected, but no rollback was commanded",
    "applied": "a rollback was commanded, but no receipt says that it was applied",
    "verified": "a rollback was applied, but traffic did not confirm it",
}


@dataclass
class Story:
    """What is known so far."""

    marks: dict[str, int] = field(default_factory=dict)
    """Step -> epoch ms."""
    model: Json = field(default_factory=dict)
    """As `GET /v1/models/{model}` last gave it."""
    incident: Json = field(default_factory=dict)
    """As `GET /v1/incidents/{id}` last gave it."""

    def mark(self, step: str, at_ms: int) -> None:
        """Note the first time that a step was reached."""
        self.marks.setdefault(step, at_ms)

    def learn(self, incident: Json) -> None:
        """Take the steps of an incident from its entries."""
        self.incident = incident
        for entry in incident["entries"]:
            step = _step_of(entry)
            if step is not None:
                self.mark(step, entry["at"])

    @property
    def verified(self) -> bool:
        """Whether traffic has confirmed the rollback."""
        return "verified" in self.marks

    def seconds(self, step: str) -> float | None:
        """Seconds from the canary's start to a step; None when either has not come."""
        if step not in self.marks or "canary" not in self.marks:
            return None
        return (self.marks[step] - self.marks["canary"]) / 1000

    def version(self, name: str) -> Json:
        """What the daemon knows of one version."""
        found = (v for v in self.model.get("versions", []) if v["version"] == name)
        return next(found, {})

    def missing(self) -> str:
        """Say in words what has not happened."""
        step = next((step for step in _MISSING if step not in self.marks), "verified")
        words = [_MISSING[step]]
        if self.incident:
            words.append(f"the incident is {self.incident['state']}: {self.incident['text']}")
        elif text := self.version("v42").get("text"):
            words.append(f"the last verdict was: {text}")
        return "; ".join(words)


def _step_of(entry: Json) -> str | None:
    """The step that an entry of an incident is; a drift warning is none, it moves nothing."""
    kind, data = entry["kind"], entry["data"]
    if kind in ("opened", "evidence") and data.get("action") == "rollback":
        return "detected"
    if kind == "receipt" and data.get("status") in ("applied", "already_there"):
        return "applied"
    return {"command": "commanded", "verified": "verified"}.get(kind)
