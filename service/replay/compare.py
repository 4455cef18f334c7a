"""Policies side by side on one history: what each would have found and ordered, and when."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace


class Side(Struct, frozen=True):
    """What one policy file made of one version."""

    policy: str
    model: str
    version: str
    verdict: str | None
    """The last one."""
    predictions: int
    guard: str | None
    """Of the first breach."""
    breach_at: int | None
    """Event time of the first breach, epoch ms."""
    breach_line: int | None
    command: str | None
    """Action of the first command that would have been made, and its mode."""
    command_at: int | None
    command_line: int | None
    breached: list[str]
    """All guards that breached, in their order."""
    commands: int
    withheld: str | None
    """After a breach without a command: the action it asks for, or the reason it asks for none."""
    sooner_s: float | None = None
    """Event time by which the first command comes before that of the first policy; below 0: after.
    None: one of the two orders nothing."""


def compared(policy: str, told: Iterable[dict[str, Any]], summary: dict[str, Any]) -> list[Side]:
    """One row for each version, in the order of the summary.

    Parameters
    ----------
    told : iterable of dict
        All lines of the result, in order.
    """
    said: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for line in told:
        said.setdefault((line["kind"], line["model"], line["version"]), []).append(line)
    sides = []
    for model, found in summary["models"].items():
        for version, counts in found["versions"].items():
            breaches = said.get(("breach", model, version), [])
            commands = said.get(("command", model, version), [])
            breach, command = (lines[0] if lines else {} for lines in (breaches, commands))
            action = f"{command['action']} ({command['mode']})" if command else None
            sides.append(Side(
                policy, model, version, counts["verdict"], counts["predictions"],
                breach.get("guard"), breach.get("at"), breach.get("line"), action,
                command.get("at"), command.get("line"), [line["guard"] for line in breaches],
                len(commands), _withheld(breach) if breach and not commands else None,
            ))  # fmt: skip
    return sides


def _withheld(breach: dict[str, Any]) -> str:
    return str(breach["reason" if breach["action"] == "rollback" else "action"])


def side_by_side(columns: Sequence[Sequence[Side]]) -> list[Side]:
    """All policies' sides, those of one version together, measured against the first policy's."""
    first = {(side.model, side.version): side.command_at for side in columns[0]}
    sides = []
    for number, side in ((number, side) for number, one in enumerate(columns) for side in one):
        base_ms = first.get((side.model, side.version))
        if number and base_ms is not None and side.command_at is not None:
            side = replace(side, sooner_s=(base_ms - side.command_at) / 1000)
        sides.append(side)
    return sorted(sides, key=lambda side: (side.model, side.version))
