"""Ids are derived from what they stand for, never drawn.

The same decision made twice has the same id, so repeated delivery, replays and two workers that
overlap are harmless: every reader drops what it has seen.

Each field enters the hash behind its length, so no delimiter inside a name can make two different
tuples look alike.
"""

from __future__ import annotations

import hashlib


def derive(kind: str, *fields: str | int) -> str:
    """Derive a 32 character id (128 bits of SHA-256) from a kind and its fields, in order.

    Examples
    --------
    >>> derive("x", "a", "bc") == derive("x", "ab", "c")
    False
    """
    digest = hashlib.sha256()
    for field in (kind, *fields):
        data = str(field).encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(4, "big"))
        digest.update(data)
    return digest.hexdigest()[:32]


def rollout_id(model: str, stable: str, canary: str | None, first_at_ms: int) -> str:
    """Id of a traffic plan that came without one."""
    return derive("rollout", model, stable, canary or "", first_at_ms)


def incident_id(model: str, version: str, rollout: str) -> str:
    """Id of the story of one version failing in one rollout."""
    return derive("incident", model, version, rollout)


def breach_id(incident: str, guard: str, segment: str = "") -> str:
    """Id of one guard's breach within an incident."""
    return derive("breach", incident, guard, segment)


def command_id(incident: str, action: str, to_version: str, hop: int) -> str:
    """Id of an order; a second try after a rollback that did not take is the next hop."""
    return derive("command", incident, action, to_version, hop)


def entry_id(incident: str, kind: str, cause: str) -> str:
    """Id of one entry of an incident, derived from what caused it."""
    return derive("entry", incident, kind, cause)
