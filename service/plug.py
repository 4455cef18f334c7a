"""Build plugins from what the settings say, and find all faults of it at once, with paths.

A plugin's fields are its parameters, with their types; here a text becomes the secret or the
duration that a field wants, and what does not fit is said in one line each.
"""

from __future__ import annotations

import typing
from collections.abc import Mapping
from typing import Any

import msgspec

from schemas.plugins import PluginFault, Registry
from service.faults import faults_of, read_custom


def build(
    registry: Registry, settings: Mapping[str, Any], path: str, lines: list[str]
) -> Any | None:
    """Make one plugin; None, with lines added, when the settings do not fit it.

    Parameters
    ----------
    settings : mapping
        `kind`, and the plugin's fields.
    path : str
        Where the settings stand, as in `adapters.prod`.
    lines : list of str
        Faults are added here.
    """
    kind = str(settings.get("kind", ""))
    given = {name: value for name, value in settings.items() if name != "kind"}
    try:
        hints = typing.get_type_hints(registry.class_of(kind))
    except PluginFault as fault:
        lines.append(f"{path}.kind: {fault}")
        return None
    known = registry.parameters(kind)
    found = [
        line
        for name, value in given.items()
        if name in known
        for line in faults_of(hints[name], value, f"{path}.{name}")
    ]
    if found:
        lines += found
        return None
    params = {
        name: msgspec.convert(value, hints[name], dec_hook=read_custom) if name in known else value
        for name, value in given.items()
    }
    try:
        return registry.make(kind, **params)
    except (PluginFault, ValueError, TypeError) as fault:
        lines.append(f"{path}: {fault}")
        return None
