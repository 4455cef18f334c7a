"""Policies side by side on one history: what each would have found and ordered, and when."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from msgspec import Struct


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


def compared(policy: str, told: Iterable[dict[str, Any]], summary: dict[str, Any]) -> list[Side]:
    """One row for each version, in the order of the summary.

    Parameters
    ----------
    told : iterable of dict
        All lines of the result, in order.
    """
    first: dict[tuple[str, str, str], dict[str, Any]] = {}
    for line in told:
        first.setdefault((line["kind"], line["model"], line["version"]), line)
    sides = []
    for model, found in summary["models"].items():
        for version, counts in found["versions"].items():
            breach = first.get(("breach", model, version), {})
            command = first.get(("command", model, version), {})
            action = f"{command['action']} ({command['mode']})" if command else None
            sides.append(Side(
                policy, model, version, counts["verdict"], counts["predictions"],
                breach.get("guard"), breach.get("at"), breach.get("line"), action,
                command.get("at"), command.get("line"),
            ))  # fmt: skip
    return sides
