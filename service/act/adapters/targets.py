"""What every adapter asks before it plans, in the order that matters.

The model first (a command about another one is no business of this target), then the versions that
the settings map, then whether it serves already, so that a repeat is `already_there`; then what was
expected, and last whether the target can take traffic.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from schemas.commands import Command
from schemas.secrets import Secret
from service.act.plans import (
    Current,
    Plan,
    Refusal,
    differs,
    fault_of_expected,
    fault_of_ready,
    fault_of_target,
    wanted_shares,
)


def decide(
    now: Current, command: Command, versions: Mapping[str, Any], model: str | None
) -> Plan | Refusal | dict[str, float]:
    """Give the percent by version to plan for, or what ends it here.

    Parameters
    ----------
    versions : mapping
        Version -> what it is on the platform; nothing else is ever touched.
    model : str or None
        The one model that the target serves.
    """
    if model is not None and command.model != model:
        text = f"this adapter serves {model!r}, not {command.model!r}"
        return Refusal("refused", "H13", "no_target", text)
    if refusal := fault_of_target(command, versions):
        return refusal
    wanted = wanted_shares(command)
    if not differs(now, wanted):
        return Plan(wanted=wanted, before=now.shares)
    return fault_of_expected(now, command) or fault_of_ready(now, wanted) or wanted


def whole_weights(wanted: Mapping[str, float]) -> dict[str, int] | Refusal:
    """Round shares to whole percents that total 100, or refuse one that would vanish.

    Examples
    --------
    >>> whole_weights({"v41": 94.6, "v42": 5.4})
    {'v41': 95, 'v42': 5}
    """
    weights = {version: round(share) for version, share in wanted.items()}
    if any(weights[version] == 0 for version, share in wanted.items() if share > 0):
        return Refusal("refused", "H13", "no_weight", "a share below 0.5 % cannot be set here")
    largest = max(weights, key=lambda version: weights[version])
    weights[largest] += 100 - sum(weights.values())
    return weights


def shares_of(weights: Mapping[str, float]) -> dict[str, float]:
    """Turn weights into percents of their total; all zero stays zero.

    Examples
    --------
    >>> shares_of({"v41": 3.0, "v42": 1.0})
    {'v41': 75.0, 'v42': 25.0}
    """
    total = sum(weights.values())
    return {version: 100 * w / total if total else 0.0 for version, w in weights.items()}


def words_of_shares(shares: Mapping[str, float]) -> str:
    """Say shares for a person."""
    return ", ".join(f"{version} {share:g} %" for version, share in sorted(shares.items()))


def check_versions(name: str, versions: Mapping[str, str], form: re.Pattern[str]) -> None:
    """Refuse a map of versions that is too small, doubled, or could become another address.

    Raises
    ------
    ValueError
        Naming the setting.
    """
    for version, text in versions.items():
        check_name(f"{name}.{version}", text, form)
    if len(versions) < 2 or len(set(versions.values())) != len(versions):
        raise ValueError(f"{name}: expected at least two versions, each with a target of its own")


def check_name(name: str, text: str, form: re.Pattern[str]) -> None:
    """Refuse a name that is empty, a wildcard, or could become another address.

    Raises
    ------
    ValueError
        Naming the setting.
    """
    if not form.fullmatch(str(text)) or set(str(text)) <= {"."}:
        raise ValueError(f"{name}: found {text!r}, expected a name as the platform knows it")


def as_secret(value: object) -> Secret:
    """Make a secret of what the settings gave."""
    return value if isinstance(value, Secret) else Secret(str(value))
