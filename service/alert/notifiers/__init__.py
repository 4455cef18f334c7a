"""One file for each chat system; a file is a plugin because it exists (`schemas/plugins.py`)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from schemas.plugins import PluginFault, Registry
from service.alert.notifiers.base import Notifier
from service.faults import read_custom

ENTRY_POINTS = "rollbackd.notifiers"


def registry() -> Registry:
    """Every notifier of this folder, and those of outside packages."""
    return Registry.of(sys.modules[__name__], ENTRY_POINTS, "notifier")


def notifiers_of(
    alerts: Sequence[Mapping[str, Any]], known: Registry | None = None
) -> dict[str, Notifier]:
    """Make the endpoints that the settings name; the log alone when they name none.

    An endpoint's name is its kind and a digest of its settings: moving it in the list changes
    nothing, and an address that was replaced after a 410 is an endpoint of its own.

    Raises
    ------
    PluginFault
        With every fault, a line each, as `alerts[0].url: …`.
    """
    known = known or registry()
    made: dict[str, Notifier] = {}
    lines: list[str] = []
    for index, alert in enumerate(alerts or [{"kind": "log"}]):
        params = {name: value for name, value in alert.items() if name != "kind"}
        kind = str(alert.get("kind"))
        try:
            made[f"{kind}-{_digest(alert)}"] = known.make(kind, **_read(known, kind, params))
        except (PluginFault, ValueError) as fault:
            lines.append(f"alerts[{index}]: {fault}")
    if lines:
        raise PluginFault("\n".join(lines))
    return made


def _read(known: Registry, kind: str, params: Mapping[str, Any]) -> dict[str, Any]:
    cls = known.class_of(kind)
    hints = typing.get_type_hints(cls)
    fields = {field.name for field in dataclasses.fields(cls)}
    return {
        name: _leaf(name, value, hints[name]) if name in fields else value
        for name, value in params.items()
    }


def _leaf(name: str, value: Any, hint: Any) -> Any:
    try:
        return msgspec.convert(value, hint, dec_hook=read_custom)
    except (msgspec.ValidationError, ValueError) as fault:
        # A fault's text may show a number or a type, never the value of a secret.
        raise PluginFault(f"{name}: {str(fault).replace('`', '')}") from None


def _digest(alert: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(alert, sort_keys=True).encode()).hexdigest()[:8]
