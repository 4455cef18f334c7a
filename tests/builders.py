"""Valid objects by default; one argument breaks one thing."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from schemas.commands import Command, Expected, Hold
from schemas.facts import Breach, Progress, Receipt
from schemas.ids import breach_id, command_id, entry_id, incident_id
from schemas.incidents import Entry
from schemas.verdicts import GuardVerdict

NOW = 1_767_225_600_000
"""2026-01-01T00:00:00Z, epoch ms."""


def a_guard_verdict(**changes: Any) -> GuardVerdict:
    """The part of a guard that has proved that its objective failed."""
    made = GuardVerdict(
        name="error_rate", signal="error_rate", verdict="breach", estimate=0.081, lower=0.072,
        upper=0.093, stable_estimate=0.039, evidence=5.1, threshold=4.6, n=4210, limit=0.05,
    )  # fmt: skip
    return replace(made, **changes)


def a_breach(**changes: Any) -> Breach:
    """v42 of credit-risk fails its error rate."""
    model = changes.get("model", "credit-risk")
    version = changes.get("version", "v42")
    incident = incident_id(model, version, "r1")
    made = Breach(
        breach_id=breach_id(incident, changes.get("guard", "error_rate")), incident_id=incident,
        model=model, version=version, rollout_id="r1", guard="error_rate", signal="error_rate",
        action="rollback", reason="guard_alarmed",
        text=f"{version} fails error_rate: 0.081 against 0.05 allowed",
        evidence=a_guard_verdict(), stable="v41", roles="declared", decided_at=NOW,
        position={"topic": "outcomes", "partition": 0, "offset": 17}, config_digest="c0ffee",
    )  # fmt: skip
    return replace(made, **changes)


def a_command(**changes: Any) -> Command:
    """Rollback of credit-risk from v42 to v41."""
    incident = incident_id("credit-risk", "v42", "r1")
    made = Command(
        command_id=command_id(incident, "rollback", "v41", 1), action="rollback",
        model="credit-risk", rollout_id="r1", from_version="v42", to_version="v41",
        expected=Expected("v41", "v42", 0.1), incident_id=incident, issued_at=NOW + 500,
        expires_at=NOW + 300_500, fence=3, mode="enforce", reason="v42 fails error_rate.",
        adapter="prod",
    )  # fmt: skip
    return replace(made, **changes)


def a_receipt(**changes: Any) -> Receipt:
    """The platform applied `a_command`."""
    command = a_command()
    made = Receipt(
        command_id=command.command_id, status="applied", before={"v41": 90.0, "v42": 10.0},
        after={"v41": 100.0, "v42": 0.0}, detail={}, adapter="prod", started_at=NOW + 600,
        finished_at=NOW + 900, attempts=1, model="credit-risk", incident_id=command.incident_id,
        from_version="v42", to_version="v41",
    )  # fmt: skip
    return replace(made, **changes)


def a_progress(**changes: Any) -> Progress:
    """Traffic confirms `a_command`."""
    incident = incident_id("credit-risk", "v42", "r1")
    kind = changes.get("kind", "verified")
    made = Progress(
        progress_id=f"p-{kind}", incident_id=incident, model="credit-risk", kind=kind,
        reason="share", text="v42 has 0.0 % of the last 80 predictions", at=NOW + 9000,
    )  # fmt: skip
    return replace(made, **changes)


def a_proposal(**changes: Any) -> Progress:
    """`a_command`, waiting for a person."""
    command = a_command(mode="propose")
    plain = {name: getattr(command, name) for name in command.__struct_fields__}
    made = a_progress(
        kind="proposed",
        reason="mode_propose",
        text="Rollback from v42 to v41 waits for approval",
        command_id=command.command_id,
        command={**plain, "expected": {}},
    )
    return replace(made, **changes)


def a_hold(**changes: Any) -> Hold:
    """A hold on credit-risk without an end."""
    made = Hold(model="credit-risk", active=True, reason="migration", actor="ann", at=NOW)
    return replace(made, **changes)


def an_entry(**changes: Any) -> Entry:
    """A note in the incident of `a_breach`."""
    incident = changes.get("incident_id", incident_id("credit-risk", "v42", "r1"))
    kind = changes.get("kind", "note")
    made = Entry(
        entry_id=entry_id(incident, kind, changes.get("text", "")), incident_id=incident,
        model="credit-risk", version="v42", kind=kind, at=NOW, recorded_at=NOW, reason="test",
        text="a note",
    )  # fmt: skip
    return replace(made, **changes)
