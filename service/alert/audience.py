"""Who hears which notice, and when: the part of an `alerts` entry that is no notifier's own.

Why. A channel that gets what does not concern it is muted, and then it is silent for the one notice
that mattered. So an entry may name models and severities, and hours in which only what cannot wait
is sent.

How. Pure: a notice and the time give the moment from which it may be sent, or None when it is not
for this endpoint. Two entries with the same notifier settings are one endpoint that hears what
either of them wants. What asks for an answer or for a person is never held back; a breach of which
nobody knows yet what will be done waits a quarter of an hour at most, for if nothing follows,
nothing was done. Trouble of rollbackd itself has no model and passes `models`.

Refused here: merging what waits (`service/storage/deliveries.py`).
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from datetime import time as Hour
from typing import Any, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Struct, field

from service.alert.route import Notice, Tone
from service.faults import faults_of, read_custom, shown

TONES: tuple[Tone, ...] = get_args(Tone)
NEVER_HELD: frozenset[Tone] = frozenset({"person", "question"})
UNHANDLED_MS = 15 * 60_000
"""How long a breach may wait in quiet hours for the news of what was done about it."""

_HOUR = re.compile("([01]?[0-9]|2[0-3]):([0-5][0-9])")


class Quiet(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Hours in which only what cannot wait is sent, by the clock on a wall of that zone."""

    begins: str | int = field(name="from")
    """Such as "22:00"; YAML reads it without quotes as a number of minutes, which is the same."""
    ends: str | int = field(name="to")
    zone: str = "UTC"
    """Such as Europe/Berlin."""


class Audience(Struct, frozen=True, forbid_unknown_fields=True):
    """What one entry of `alerts` wants to hear; everything at once when left out."""

    models: list[str] = field(default_factory=lambda: ["*"])
    """Names or globs."""
    severity: list[Tone] = field(default_factory=lambda: list(TONES))
    quiet: Quiet | None = None


EVERYTHING = (Audience(),)
FIELDS = tuple(Audience.__struct_fields__)


def parted(alert: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Part one entry of `alerts` into the notifier's own settings and those of its audience."""
    own = {name: value for name, value in alert.items() if name not in FIELDS}
    return own, {name: alert[name] for name in FIELDS if name in alert}


def read_audience(settings: Mapping[str, Any], path: str, lines: list[str]) -> Audience:
    """Read the second part; what is wrong with it is added to `lines`.

    Parameters
    ----------
    path : str
        Where the entry stands, as in `alerts[0]`.
    """
    readable: dict[str, Any] = {}
    before = len(lines)
    for each in msgspec.structs.fields(Audience):
        if each.name not in settings:
            continue
        if found := list(faults_of(each.type, settings[each.name], f"{path}.{each.name}")):
            lines += found
        else:
            readable[each.name] = settings[each.name]
    audience = msgspec.convert(readable, Audience, dec_hook=read_custom)
    lines += _faults_beyond_types(audience, path)
    return audience if len(lines) == before else Audience()


def _faults_beyond_types(audience: Audience, path: str) -> Iterator[str]:
    for name in ("models", "severity"):
        if not getattr(audience, name):
            yield f"{path}.{name}: found an empty list, expected at least one (or leave it out)"
    if audience.quiet is None:
        return
    hours = []
    for name, value in (("from", audience.quiet.begins), ("to", audience.quiet.ends)):
        if (hour := _hour(value)) is None:
            yield f'{path}.quiet.{name}: found {shown(value)}, expected a time such as "22:00"'
        hours.append(hour)
    if hours[0] is not None and hours[0] == hours[1]:
        yield f"{path}.quiet.to: found the time of from, expected another one"
    if _zone(audience.quiet.zone) is None:
        yield (
            f"{path}.quiet.zone: found {shown(audience.quiet.zone)}, "
            "expected a time zone that this machine knows, such as Europe/Berlin"
        )


def notes_of(audiences: Iterable[Audience]) -> list[str]:
    """Say which notices nobody might hear.

    Examples
    --------
    >>> notes_of([Audience(models=["fraud-*"])])[0]
    'alerts: no endpoint hears problem, question, good, person of every model; add one without \
models and severity, or those notices of the other models are only in the incident log'
    """
    heard = {tone for each in audiences if "*" in each.models for tone in each.severity}
    missing = [tone for tone in TONES if tone not in heard]
    if not missing:
        return []
    return [
        f"alerts: no endpoint hears {', '.join(missing)} of every model; add one without models "
        "and severity, or those notices of the other models are only in the incident log"
    ]


def hears(audience: Audience, notice: Notice) -> bool:
    """Whether a notice concerns this audience."""
    concerns = not notice.model or any(
        notice.model == name or fnmatch.fnmatchcase(notice.model, name) for name in audience.models
    )
    return concerns and notice.tone in audience.severity


def send_from(audiences: Sequence[Audience], notice: Notice, at_ms: int) -> int | None:
    """Give the time from which a notice may be sent to an endpoint, epoch ms; None: it is not.

    Parameters
    ----------
    audiences : sequence of Audience
        The endpoint's; it is sent as soon as one of them wants it.
    at_ms : int
        When it would be sent otherwise, wall time, epoch ms.
    """
    times = [_released(each.quiet, notice, at_ms) for each in audiences if hears(each, notice)]
    return min(times, default=None)


def _released(quiet: Quiet | None, notice: Notice, at_ms: int) -> int:
    if quiet is None or notice.tone in NEVER_HELD:
        return at_ms
    end = quiet_until(quiet, at_ms)
    return min(end, at_ms + UNHANDLED_MS) if notice.pending else end


def quiet_until(quiet: Quiet, at_ms: int) -> int:
    """Give the end of the quiet hours that a time lies in, or the time itself; epoch ms.

    An hour that the clock skips counts as the one after the skip; of an hour that comes twice the
    first one counts.
    """
    zone, begins, ends = _zone(quiet.zone) or UTC, _hour(quiet.begins), _hour(quiet.ends)
    if begins is None or ends is None:
        return at_ms
    today = datetime.fromtimestamp(at_ms / 1000, zone).date()
    for day in (today - timedelta(days=1), today):
        last = day if begins < ends else day + timedelta(days=1)
        begin_ms, end_ms = _instant(day, begins, zone), _instant(last, ends, zone)
        if begin_ms <= at_ms < end_ms:
            return end_ms
    return at_ms


def _instant(day: date, hour: Hour, zone: tzinfo) -> int:
    return round(datetime.combine(day, hour, tzinfo=zone).timestamp() * 1000)


def _hour(value: str | int) -> Hour | None:
    """Read a time of day; minutes since midnight are what YAML makes of 22:00 without quotes."""
    if isinstance(value, int):
        return Hour(value // 60, value % 60) if 0 <= value < 1440 else None
    found = _HOUR.fullmatch(value.strip())
    return Hour(int(found[1]), int(found[2])) if found else None


def _zone(name: str) -> tzinfo | None:
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return None
