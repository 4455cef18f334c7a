"""What an adapter is: five steps towards one platform, of which two are pure.

Why. Nobody else proves a rollback: on several platforms a call that answered 200 changed nothing,
or was reverted a second later. So every adapter reads, plans, writes, waits until it settled, and
reads again; `execute.py` walks these steps, so that time, retries, expiry and receipts are written
once and an adapter stays small.

How. `current` reads and `apply` writes; `plan` and `settled` are pure. A plan sets an absolute
state ("v41 has 100"), so that saying it twice is harmless, and lists its requests as plain data; an
empty list means that there is nothing to do. An adapter never reads a clock, never sleeps and never
tries again: what failed leaves as a `PlatformFault` that says whether trying again can help.

Refused here: deleting anything, scaling anything away, acting on an empty or unknown target, and
imitating a verb that the platform lacks.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

from schemas.commands import Action, Command
from service.act.plans import Applied, Current, Plan, Refusal, Settled, compare

FaultKind = Literal["permanent", "credentials", "conflict", "busy", "transient", "unknown"]


class PlatformFault(RuntimeError):
    """A call did not do what it should; the text is fit for receipts.

    Parameters
    ----------
    kind : str
        `permanent`: a person must act; `credentials`: the same, about a key; `conflict`: somebody
        else wrote meanwhile, read again; `busy`: the platform is at work, wait; `transient`: it was
        not done, try again; `unknown`: it may have been done, read first.
    retry_after_s : float, optional
        How long the platform asks to be left alone, seconds.
    done : int
        How many requests of the plan had been carried out before.
    """

    def __init__(
        self, kind: FaultKind, text: str, retry_after_s: float | None = None, done: int = 0
    ) -> None:
        super().__init__(text)
        self.kind = kind
        self.retry_after_s = retry_after_s
        self.done = done


class Ask(NamedTuple):
    """What an adapter is asked about, and when."""

    command: Command
    now_ms: int
    """Wall time of this call."""


class Pace(NamedTuple):
    """How long things take on a platform, seconds."""

    call_s: float
    """Total time for one call."""
    settle_s: float
    """How long after a write its effect may take to show; also after the command's expiry."""
    poll_s: float
    """Pause between two looks meanwhile."""
    recheck_s: float = 0.0
    """After it settled, look once more this much later: some controllers revert. 0: never."""
    lag_s: float = 0.0
    """How long after a write the old state may still be read: one in doubt is not sent sooner."""


class Adapter(ABC):
    """One target on one platform; a plugin's fields are its parameters."""

    can: ClassVar[frozenset[Action]] = frozenset()
    """Verbs that the platform has."""
    dry: ClassVar[bool] = False
    """It changes nothing, and says so."""

    @property
    @abstractmethod
    def pace(self) -> Pace:
        """How long things take here."""

    @abstractmethod
    async def current(self, ask: Ask) -> Current:
        """Read. Raises PlatformFault."""

    @abstractmethod
    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        """Say what to write, from what was read. Pure."""

    @abstractmethod
    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        """Write, once. Raises PlatformFault."""

    async def follow(self, ask: Ask, handle: str) -> Applied:
        """Ask how an accepted write goes. Raises PlatformFault."""
        raise PlatformFault("permanent", "this platform has nothing to follow")

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare what is read after a write with what was wanted. Pure."""
        return compare(now, plan)

    @abstractmethod
    async def missing(self) -> list[str]:
        """Say what would keep a rollback from working, a sentence each; for `check --live`."""
