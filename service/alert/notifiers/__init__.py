"""One file for each chat system; a file is a plugin because it exists (`schemas/plugins.py`)."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Mapping
from typing import Any

from schemas.plugins import Registry

ENTRY_POINTS = "rollbackd.notifiers"


def registry() -> Registry:
    """Every notifier of this folder, and those of outside packages."""
    return Registry.of(sys.modules[__name__], ENTRY_POINTS, "notifier")


def endpoint_name(settings: Mapping[str, Any]) -> str:
    """Name an endpoint by its kind and a digest of its settings.

    Deliveries remember it: moving the endpoint in the list changes nothing, and an address that
    was replaced after it was disabled (410) is an endpoint of its own.
    """
    text = json.dumps(settings, sort_keys=True, default=str)
    return f"{settings.get('kind')}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"
