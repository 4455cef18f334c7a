"""Walk one command through its adapter's steps and say honestly what came of it.

Why. Time, retries, conflicts, expiry, doubt and receipts are the same on every platform; written
once here, an adapter cannot get them wrong. A receipt never rests on a status code: what was
written is read back, and what cannot be read back is said to be unknown.

How. Read, plan, write, wait until it settled, read back; each round begins with a fresh read.
Whether a write may still happen (fence, expiry, kill switch) is asked right before it. Before the
first write the plan is marked in the store. A write whose outcome is unknown (a reset after it was
sent, a killed process) leaves *doubt*: the platform is read before anything is sent again, and
where it cannot be read nothing is. Where a platform shows its old state for a while, that is waited
out first.

    conflict            read and plan again, at most 3 rounds, then `failed` (contended)
    busy, in transition wait and read again until the expiry; no retry is counted
    transient           1, 2, 4 … 60 s with full jitter or as long as the platform asks
    unknown             doubt, then as transient
    permanent           `failed`, or `partial` when a part had been written

Expiry stops writes. Waiting for a write to settle and reading it back go on up to the adapter's
settle time. After doubt a state as wanted is `already_there`: it serves, but by whose hand is not
known.

Refused here: knowing a platform, publishing (`worker.py`), proof by traffic (`watch`).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from schemas.commands import Command
from schemas.facts import Receipt
from service.act import conclude
from service.act.adapters.base import Adapter, Ask, PlatformFault
from service.act.admit import Refuse
from service.act.conclude import Course, Effect, Outcome
from service.act.plans import Applied, Current, Plan, Refusal
from service.clock import Clock
from service.crash import crash_point

CONFLICT_ROUNDS = 3
LONGEST_PAUSE_S = 60.0
_LOG_MAX = 50


class Marks(Protocol):
    """Where a write that begins is noted (`service/storage/receipts.py`). Blocking."""

    def mark_writing(self, command_id: str, plan: Mapping[str, Any]) -> None:
        """Note what is about to be written."""
        ...


class Tools(NamedTuple):
    """What an execution needs of the world besides its platform."""

    clock: Clock
    marks: Marks
    standing: Callable[[Command], Awaitable[Refuse | None]]
    """Asked right before each write: fence, expiry, kill switch."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    chance: Callable[[], float] = random.SystemRandom().random
    """In [0, 1): the jitter."""


class _End(Exception):
    """The execution is over."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.status)
        self.outcome = outcome


class Execution:
    """One command on its way. Used once.

    Parameters
    ----------
    mark : mapping, optional
        What an earlier process noted before it wrote, when it left no receipt.
    """

    def __init__(
        self,
        tools: Tools,
        adapter: Adapter,
        command: Command,
        mark: Mapping[str, Any] | None = None,
    ) -> None:
        self._tools = tools
        self._adapter = adapter
        self._pace = adapter.pace
        self._command = command
        self._started_ms = tools.clock.now_ms()
        self._started_s = tools.clock.monotonic_s()
        self._doubt: Plan | None = None
        self._handle = ""
        if mark is not None:
            self._doubt = msgspec.convert(mark["plan"], Plan)
            self._handle = str(mark.get("handle", ""))
        self._doubt_s = self._started_s
        self._before = self._doubt.before if self._doubt is not None else None
        self._resumed = mark is not None
        self._attempts = self._reads = self._failures = self._conflicts = 0
        self._log: list[dict[str, Any]] = []

    async def run(self) -> Receipt:
        """Do it; give the receipt. What the store or the code itself raises passes through."""
        try:
            if self._doubt is not None and self._handle:
                await self._settle(self._doubt, Applied(handle=self._handle))
            while True:
                await self._round()
        except _End as end:
            return conclude.receipt_of(self._command, end.outcome, self._course())

    async def _round(self) -> None:
        """Read, plan and write once; returns when that has to be done again."""
        now = await self._read()
        crash_point("K8")
        if self._before is None:
            self._before = now.shares
        plan = self._adapter.plan(now, self._command)
        if isinstance(plan, Refusal):
            raise _End(conclude.refused(plan, now, self._doubt))
        if self._doubt is not None and now.shares is None:
            raise _End(conclude.unread("the platform cannot be asked", self._doubt))
        if not plan.requests:
            doubt = self._doubt is not None
            raise _End(conclude.there(now, plan, self._command, doubt))
        if now.transition:
            # It may show late what it moves to, from the next look on.
            self._doubt_s = self._now_s() + self._pace.poll_s
            await self._wait(self._pace.poll_s)
            return
        if self._lags():
            await self._tools.sleep(self._pace.poll_s)
            return
        if self._command.dry_run:
            raise _End(Outcome("applied", "dry_run", plan.diff, "none", now, plan))
        await self._may_write(now, plan)
        await self._mark(plan)
        try:
            applied = await self._write(plan)
        except PlatformFault as fault:
            await self._absorb(fault, plan)
            return
        await self._settle(plan, applied)

    async def _read(self, until_s: float | None = None) -> Current:
        """Read the platform, again and again until there is no time left for it.

        Parameters
        ----------
        until_s : float, optional
            Monotonic time; the expiry when left out, or longer when a write is in doubt.
        """
        while True:
            self._reads += 1
            try:
                async with asyncio.timeout(self._pace.call_s):
                    return await self._adapter.current(self._ask())
            except TimeoutError:
                fault = PlatformFault("transient", f"no answer within {self._pace.call_s:g} s")
            except PlatformFault as found:
                fault = found
            pause_s = self._pause_s(fault)
            limit_s = self._time_left_s() if until_s is None else until_s - self._now_s()
            if self._doubt is not None and until_s is None:
                limit_s = max(limit_s, self._started_s + self._pace.settle_s - self._now_s())
            if fault.kind in ("permanent", "credentials") or pause_s >= limit_s:
                raise _End(conclude.unread(str(fault), self._doubt))
            await self._tools.sleep(pause_s)

    async def _may_write(self, now: Current, plan: Plan) -> None:
        """Ask the last questions before a write."""
        refuse = await self._tools.standing(self._command)
        if refuse is None and self._time_left_s() <= 0:
            text = "the command expired while it was carried out"
            refuse = Refuse("H5", "expired", text, {}, "expired")
        if refuse is None:
            return
        status, effect = conclude.after_doubt(refuse.status, now, self._doubt)
        raise _End(Outcome(status, refuse.reason, refuse.text, effect, now, plan, rule=refuse.rule))

    async def _mark(self, plan: Plan, handle: str = "") -> None:
        mark = {"plan": msgspec.to_builtins(plan), "handle": handle}
        command_id = self._command.command_id
        await asyncio.to_thread(self._tools.marks.mark_writing, command_id, mark)

    async def _write(self, plan: Plan) -> Applied:
        self._attempts += 1
        call_s = self._pace.call_s * len(plan.requests)
        try:
            async with asyncio.timeout(call_s):
                applied = await self._adapter.apply(self._ask(), plan)
        except TimeoutError:
            raise PlatformFault("unknown", f"no answer within {call_s:g} s") from None
        crash_point("K10")
        self._log += applied.log
        return applied

    async def _absorb(self, fault: PlatformFault, plan: Plan) -> None:
        """Decide what a failed write means; returns when another round may help."""
        self._log.append({"fault": fault.kind, "text": str(fault)})
        if fault.kind == "conflict":
            self._conflicts += 1
            if self._conflicts >= CONFLICT_ROUNDS:
                text = f"somebody else wrote {self._conflicts} times in between"
                raise _End(Outcome("failed", "contended", text, "none", plan=plan))
            return
        if fault.kind == "busy":
            await self._wait(fault.retry_after_s or self._pace.poll_s)
            return
        if fault.done or fault.kind == "unknown":
            self._doubt, self._doubt_s = plan, self._now_s()
        if fault.kind in ("permanent", "credentials"):
            await self._give_up(fault, plan)
        pause_s = self._pause_s(fault)
        if self._doubt is None and pause_s >= self._time_left_s():
            text = f"tried {self._attempts} times until no time was left: {fault}"
            raise _End(Outcome("failed", "retries_used_up", text, "none", plan=plan))
        await self._tools.sleep(pause_s)

    async def _give_up(self, fault: PlatformFault, plan: Plan) -> None:
        """End on what a person must mend, with what had been written before seen."""
        if self._doubt is None:
            raise _End(Outcome("failed", fault.kind, str(fault), "none", plan=plan))
        now = await self._read()
        status, effect = conclude.after_doubt("failed", now, self._doubt)
        raise _End(Outcome(status, fault.kind, str(fault), effect, now, plan))

    async def _settle(self, plan: Plan, applied: Applied) -> None:
        """Wait until a write shows, read it back, look once more; always ends."""
        until_s = self._now_s() + self._pace.settle_s
        applied = await self._follow(plan, applied, until_s)
        self._doubt = plan
        if applied.status not in (None, "applied", "already_there"):
            raise _End(conclude.declined(applied, plan))
        if not plan.wanted:
            raise _End(conclude.by_account(applied, plan, self._command))
        now = await self._read(until_s)
        while now.shares is not None and self._adapter.settled(now, plan) != "settled":
            if self._now_s() + self._pace.poll_s > until_s:
                raise _End(conclude.unsettled(now, plan))
            await self._tools.sleep(self._pace.poll_s)
            now = await self._read(until_s)
        if self._pace.recheck_s > 0 and now.shares is not None:
            await self._tools.sleep(self._pace.recheck_s)
            now = await self._read(max(until_s, self._now_s() + self._pace.call_s))
            if now.shares is not None and self._adapter.settled(now, plan) != "settled":
                raise _End(conclude.unsettled(now, plan))
        if now.shares is None:
            raise _End(conclude.by_account(applied, plan, self._command))
        raise _End(conclude.read_back(applied.status or "applied", now, plan, self._command))

    async def _follow(self, plan: Plan, applied: Applied, until_s: float) -> Applied:
        """Ask how an accepted write goes until the platform says what came of it."""
        while applied.handle:
            if applied.handle != self._handle:
                self._handle = applied.handle
                await self._mark(plan, applied.handle)
            pause_s = max(applied.retry_after_s or 0.0, self._pace.poll_s)
            if self._now_s() + pause_s > until_s:
                return Applied()  # what it did is read back instead
            await self._tools.sleep(pause_s)
            try:
                async with asyncio.timeout(self._pace.call_s):
                    applied = await self._adapter.follow(self._ask(), applied.handle)
                self._log += applied.log
            except TimeoutError:
                continue
            except PlatformFault as fault:
                self._log.append({"fault": fault.kind, "text": str(fault)})
                if fault.kind in ("permanent", "credentials"):
                    return Applied()
                applied = msgspec.structs.replace(applied, retry_after_s=fault.retry_after_s)
        return applied

    def _lags(self) -> bool:
        """Whether what is read may still be from before a write in doubt."""
        lag_s = self._pace.lag_s - (self._now_s() - self._doubt_s)
        return self._doubt is not None and lag_s > 0 and self._pace.poll_s < self._time_left_s()

    async def _wait(self, pause_s: float) -> None:
        """Wait for a platform that is at work; nothing is written meanwhile."""
        if pause_s >= self._time_left_s():
            effect: Effect = "none" if self._doubt is None else "unknown"
            text = "the platform was moving until the command expired"
            raise _End(Outcome("expired", "in_transition", text, effect))
        await self._tools.sleep(pause_s)

    def _pause_s(self, fault: PlatformFault) -> float:
        longest_s = min(LONGEST_PAUSE_S, 2.0 ** min(self._failures, 10))
        self._failures += 1
        return max(self._tools.chance() * longest_s, fault.retry_after_s or 0.0)

    def _time_left_s(self) -> float:
        """Until the expiry, by the stricter of both clocks: one of them may be set back."""
        by_wall_s = (self._command.expires_at - self._tools.clock.now_ms()) / 1000
        at_start_s = (self._command.expires_at - self._started_ms) / 1000
        return min(by_wall_s, at_start_s - (self._now_s() - self._started_s))

    def _now_s(self) -> float:
        return self._tools.clock.monotonic_s()

    def _ask(self) -> Ask:
        return Ask(self._command, self._tools.clock.now_ms())

    def _course(self) -> Course:
        return Course(
            started_at=self._started_ms,
            finished_at=self._tools.clock.now_ms(),
            attempts=self._attempts,
            reads=self._reads,
            before=self._before,
            log=tuple(self._log[-_LOG_MAX:]),
            resumed=self._resumed,
            dry=self._adapter.dry or self._command.dry_run,
        )
