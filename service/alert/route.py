"""Decide what of an incident people are told, and in which words.

Why. Someone who is woken wants one message: what happened, why we believe it, what was done, what
to type. So a notice always carries the evidence of the opening breach, also when it tells of
something later; then an `opened` notice that has not left yet can be replaced by the next one
(`service/storage/deliveries.py`) and nothing is missing.

How. Pure: an incident as it stood and the entry that is new give a notice, or None when the entry
is not worth a message. Names come from producers, so what cannot be seen (control, bidirectional
and zero-width characters) is taken out here, and every field is capped; each notifier then escapes
in its platform's own way.

Refused here: any platform's markup, limits or addresses.
"""

from __future__ import annotations

import unicodedata
from typing import Any, Literal
from urllib.parse import quote

from msgspec import Struct

from schemas.incidents import Entry, Incident
from service.harm import NEEDS_A_PERSON

Tone = Literal["problem", "question", "good", "person"]
"""What is wanted of the reader: to know, to answer, nothing more, or to come."""

MAX_NAME = 128
MAX_TEXT = 1200

_BAD_RECEIPTS = frozenset({"failed", "refused", "partial", "expired", "superseded"})
_TONES: dict[str, Tone] = {
    "opened": "problem",
    "withheld": "problem",
    "proposed": "question",
    "receipt": "person",
    "verified": "good",
    "unverified": "person",
    "escalated": "person",
    "paged": "person",
    "undelivered": "person",
}

_PROMOTION_TONES: dict[str, Tone] = {
    "proposed": "question",
    "unverified": "person",
    "paged": "person",
    "verified": "good",
}
"""A promotion is no trouble: what did not happen is on the record, and nobody is woken for it."""


class Notice(Struct, frozen=True, kw_only=True):
    """One message to people, before any platform's markup. All texts are harmless and capped."""

    notice_id: str
    incident_id: str
    kind: str
    tone: Tone
    model: str
    version: str
    state: str
    title: str
    what: str
    why: str
    done: str
    commands: list[str] = []
    """What a reader can type now."""
    link: str | None = None
    at: int = 0
    """When it happened, epoch ms."""
    pending: bool = False
    """What is done about it is not known yet; another notice follows when it is."""


def route(incident: Incident, entry: Entry, public_url: str | None = None) -> Notice | None:
    """Give the notice of one new entry, or None when it is not worth a message.

    Parameters
    ----------
    incident : Incident
        As it stood when the entry was added, with entries.
    public_url : str or None
        Address of the pages as people reach them.
    """
    tone = _TONES.get(entry.kind)
    if incident.kind == "promotion":
        tone = _PROMOTION_TONES.get(entry.kind)
    if entry.kind == "withheld" and entry.reason in NEEDS_A_PERSON and tone is not None:
        tone = "person"
    if tone is None or (entry.kind == "receipt" and entry.reason not in _BAD_RECEIPTS):
        return None
    model, version = harmless(entry.model, MAX_NAME), harmless(incident.version, MAX_NAME)
    return Notice(
        notice_id=entry.entry_id,
        incident_id=entry.incident_id,
        kind=entry.kind,
        tone=tone,
        model=model,
        version=version,
        state=incident.state,
        title=f"{model}: {_headline(incident, entry, version)}",
        what=harmless(incident.text, MAX_TEXT),
        why=harmless(_evidence(incident), MAX_TEXT),
        done=harmless(_done(incident, entry), MAX_TEXT),
        commands=_commands(entry),
        link=f"{public_url.rstrip('/')}/#incident={quote(entry.incident_id)}"
        if public_url
        else None,
        at=entry.at,
        pending=entry.kind == "opened" and not _alert_only(incident),
    )


def undelivered(endpoint: str, reason: str, day: int) -> Notice:
    """Give the notice, for the other endpoints, that one endpoint does not take messages.

    Parameters
    ----------
    day : int
        Days since the epoch: the same trouble is told once a day.
    """
    name = harmless(endpoint, MAX_NAME)
    return Notice(
        notice_id=f"undelivered-{endpoint}-{day}",
        incident_id="",
        kind="undelivered",
        tone="person",
        model="",
        version="",
        state="",
        title=f"Notifications to {name} fail",
        what=f"A message to {name} could not be delivered.",
        why=harmless(reason, MAX_TEXT),
        done="It is on the dead-letter list; nobody tries it again until the endpoint is mended.",
    )


def harmless(text: str, limit: int) -> str:
    """Take out what cannot be seen, put spaces for line breaks, and cap the length.

    Examples
    --------
    >>> harmless("a\\u202eb\\u200bc\\nd", 10), harmless("abcdef", 4)
    ('abc d', 'abc…')
    """
    text = text if len(text) <= 4 * limit else text[: 4 * limit]
    seen = "".join(_visible(character) for character in text).strip()
    return seen if len(seen) <= limit else seen[: limit - 1] + "…"


def _visible(character: str) -> str:
    if character in "\n\r\t\u2028\u2029":
        return " "
    # Cc control, Cf format (bidirectional, zero-width, tags), Cs halves of pairs.
    return "" if unicodedata.category(character) in ("Cc", "Cf", "Cs") else character


def _headline(incident: Incident, entry: Entry, version: str) -> str:
    guard = next((g for g in incident.guards if g), "")
    fails = f"{version} fails {_named(guard)}"
    target = harmless(_target(incident, entry), MAX_NAME)
    to = f" to {target}" if target else ""
    if incident.kind == "promotion":
        return _promotion(incident, entry, version)
    if entry.kind == "opened":
        return f"{version}: alert on {_named(guard)}" if _alert_only(incident) else fails
    if entry.kind == "withheld":
        return f"{fails}; nothing was done ({harmless(entry.reason, MAX_NAME)})"
    if entry.kind == "proposed":
        return f"{fails}; rollback{to} waits for approval"
    if entry.kind == "receipt":
        return f"rollback of {version}{to} {harmless(entry.reason, MAX_NAME)}"
    if entry.kind == "verified":
        return f"{version} rolled back{to}, confirmed by traffic"
    if entry.kind == "unverified":
        return f"rollback of {version} is not seen in traffic"
    return f"{version} needs a person now"


def _named(guard: str) -> str:
    return harmless(guard, MAX_NAME) or "a guard"


def _promotion(incident: Incident, entry: Entry, version: str) -> str:
    if entry.kind == "proposed":
        return f"{version} has earned its next step; it waits for approval"
    if entry.kind == "verified":
        return f"{version} has its next share of traffic, confirmed by traffic"
    if entry.kind == "unverified":
        return f"the next share of {version} is not seen in traffic"
    return f"the promotion of {version} needs a person now"


def _target(incident: Incident, entry: Entry) -> str:
    command = entry.data.get("command")
    proposed = command.get("to_version") if isinstance(command, dict) else None
    return str(proposed or incident.rolled_back_to or incident.stable or "")


def _alert_only(incident: Incident) -> bool:
    opened = _opening(incident)
    return opened.get("action") == "alert"


def _opening(incident: Incident) -> dict[str, Any]:
    return next((entry.data for entry in incident.entries if entry.kind == "opened"), {})


def _done(incident: Incident, entry: Entry) -> str:
    if entry.kind != "opened":
        return entry.text
    if _alert_only(incident):
        return "Nothing: this guard only alerts."
    return "Nothing yet; what follows is told when it is known."


def _evidence(incident: Incident) -> str:
    breaches = [e.data for e in incident.entries if e.kind in ("opened", "evidence")]
    lines = [_numbers(b["evidence"]) for b in breaches if isinstance(b.get("evidence"), dict)]
    more = len(lines) - 3
    shown = "; ".join(lines[:3])
    return f"{shown}; and {more} more" if more > 0 else shown


def _numbers(evidence: dict[str, Any]) -> str:
    """One guard's numbers as a person reads them, with the interval that holds at any time."""
    parts = [f"{evidence.get('signal', '')}"]
    if evidence.get("estimate") is not None:
        parts.append(f"{evidence['estimate']:.4g}")
    if evidence.get("lower") is not None and evidence.get("upper") is not None:
        parts.append(f"[{evidence['lower']:.4g}, {evidence['upper']:.4g}]")
    text = " ".join(parts)
    if evidence.get("limit") is not None:
        text += f", limit {evidence['limit']:.4g}"
    if evidence.get("stable_estimate") is not None:
        text += f", stable {evidence['stable_estimate']:.4g}"
    if evidence.get("n"):
        text += f", from {evidence['n']:,} events"
    return text


def _commands(entry: Entry) -> list[str]:
    command_id = entry.data.get("command_id")
    if entry.kind != "proposed" or not isinstance(command_id, str):
        return []
    # Ids are hexadecimal; anything else in a line to be typed into a shell would be a trap.
    safe = "".join(c for c in command_id if c.isascii() and (c.isalnum() or c in "-_"))
    return [f"rollbackd approve {safe}", f"rollbackd reject {safe}"]
