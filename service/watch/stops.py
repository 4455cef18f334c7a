"""What stops automatic action beyond the rules of one model, as it is at this moment.

Holds, the kill switch and the notes on the whole fleet are read immediately before a command would
be sent. Blocking; the worker calls it in threads. Doubt means no: what cannot be read counts as
held, and nothing is raised.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import structlog

from schemas.commands import Hold
from schemas.facts import Breach
from schemas.policies import Freeze
from service import harm
from service.config import FleetSettings
from service.harm import Fleet
from service.switch import pressed
from service.watch.order import Said
from service.watch.step import Book, Wanting

NOTE_EVERY_MS = 3_600_000
"""Wall time after which it is noted again that a model is watched."""

WATCHED_MS = 86_400_000
"""Wall time for which a model counts as watched."""

log = structlog.get_logger()


class Holds(Protocol):
    """What people have stopped (`service/storage/holds.py`)."""

    def blocking(self, model: str, now_ms: int) -> Hold | None:
        """The hold in force for a model, if any."""
        ...

    def set(self, hold: Hold) -> Hold:
        """Hold here and now."""
        ...


class Notes(Protocol):
    """What is known of all models together (`service/storage/fleet.py`)."""

    def watch(self, models: list[str], now_ms: int) -> None: ...
    def breached(self, breaches: list[tuple[str, str]], now_ms: int) -> None: ...
    def models(self, kind: str, since_ms: int) -> set[str]: ...
    def reserve(
        self, model: str, reference: str, now_ms: int, since_ms: int, most: int
    ) -> bool: ...
    def release(self, model: str, reference: str) -> None: ...


class Stops(NamedTuple):
    """Where all that is looked up."""

    holds: Holds
    fleet: Notes
    limits: FleetSettings
    freezes: Sequence[Freeze] = ()
    kill_switch_file: Path | None = None


class Seen(NamedTuple):
    """What was found."""

    held: str | None = None
    fleet: Fleet | None = None
    reserved: bool = False
    """One rollback of the fleet's budget is reserved for the case."""
    hold: Hold | None = None
    """A hold on everything that was set just now, to be told to all (H7)."""


def look(stops: Stops, wanting: Wanting, now_ms: int, turning: Collection[str] = ()) -> Seen:
    """Look up everything for one case that wants a command.

    Parameters
    ----------
    turning : collection of str
        Models of this partition whose guards are on their way to an alarm (H7).
    """
    model, case = wanting.model.name, wanting.case
    try:
        if (held := _held(stops, model, now_ms)) is not None:
            return Seen(held)
        if case.kind == "promotion":
            return Seen()
        limits = stops.limits
        breached = stops.fleet.models("breach", now_ms - limits.together_within.ms) | set(turning)
        watched = stops.fleet.models("watched", now_ms - WATCHED_MS)
        why = harm.together(breached, len(watched), limits.together_share, limits.together_models)
        if why is not None:
            return Seen(fleet=Fleet(together=why), hold=_hold_all(stops, why, now_ms))
        if wanting.policy.mode != "enforce" or case.hop > case.base:
            return Seen(fleet=Fleet())
        since_ms = now_ms - limits.per.ms
        free = stops.fleet.reserve(model, case.incident_id, now_ms, since_ms, limits.rollbacks)
        return Seen(fleet=Fleet(over_budget=not free), reserved=free)
    except Exception as fault:  # whatever keeps a stop from being read, it may be there
        log.error("stops_unreadable", model=model, reason=str(fault))
        return Seen(f"holds and budgets cannot be read ({type(fault).__name__})")


def _held(stops: Stops, model: str, now_ms: int) -> str | None:
    if (why := pressed(stops.kill_switch_file)) is not None:
        return why
    hold = stops.holds.blocking(model, now_ms)
    return None if hold is None else f"{hold.actor}: {hold.reason}"


def _hold_all(stops: Stops, why: str, now_ms: int) -> Hold:
    """Hold all automatic action until a person has looked."""
    reason = f"{why}; release when the cause is known"
    return stops.holds.set(
        Hold(model="*", active=True, reason=reason, actor="rollbackd", at=now_ms)
    )


class Memory:
    """What one process has noted of late, so that notes cost little."""

    def __init__(self) -> None:
        self._watched_ms: dict[str, int] = {}

    def note(self, stops: Stops, book: Book, said: Sequence[Said], now_ms: int) -> str | None:
        """Note watched models and breaches; why that failed, which counts as held."""
        breaches = [(fact.model, fact.breach_id) for fact in said
                    if isinstance(fact, Breach) and fact.action != "alert"]  # fmt: skip
        new = [name for name in book.changed if name and book.policy(name) is not None
               and now_ms - self._watched_ms.get(name, 0) > NOTE_EVERY_MS]  # fmt: skip
        try:
            if new:
                stops.fleet.watch(new, now_ms)
                self._watched_ms |= dict.fromkeys(new, now_ms)
            if breaches:
                stops.fleet.breached(breaches, now_ms)
        except Exception as fault:
            log.error("fleet_notes_failed", reason=str(fault))
            return f"what is known of all models cannot be noted ({type(fault).__name__})"
        return None
