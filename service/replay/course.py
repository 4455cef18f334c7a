"""One model's course through a recording: the live core, judged at lines that only the lines fix.

Why. A reader wants the line that decided; a judgement after every line would cost a hundred times
the rest. So the model is judged at chosen lines, and when something new is said there, the first
line that says so is looked for in between.

How. Rows wait until a judgement is due and are then fed at once. It is due

- after the first row since the plan changed, then each time a quarter more, at least `FEWEST_ROWS`
  and at most `MOST_ROWS` apart;
- on the line on which a version falls silent or speaks again, a rollout event takes effect or a new
  version comes;
- on the first line of the model after a cool-down, or after a step of its canary or a
  response had its time.

A guard that fired names its line; for a verdict the lines between two judgements are halved. Both
begin again from the state saved at the last judgement, as a restarted worker would. None of this
depends on how the recording is cut into blocks.

Missed by this: a verdict that changes and changes back between two judgements. A breach never is.

There is no receipt: nothing is known of what traffic would have done, so cases stay open and the
cool-down holds. Wall time is event time. Holds belong to the time of living people: there is none.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import NamedTuple

import msgspec
import numpy as np

from schemas.commands import Command
from schemas.events import Rollout
from schemas.facts import Breach, Progress
from schemas.plugins import Registry
from schemas.policies import Policy, policy_for
from schemas.times import to_ms
from schemas.verdicts import Verdict
from service.ingest.state import Partition
from service.replay.join import SOURCE, Block
from service.replay.queue import NEVER, Part, Queues
from service.replay.silence import Silence
from service.watch.order import Said, Wall, wants_command
from service.watch.promote import waits_ms
from service.watch.respond import due_ms
from service.watch.state import Model
from service.watch.step import JUDGE_EVERY_MS, Book
from service.watch.weights import canaries_of, weight_of

PORTION = 4
FEWEST_ROWS = 16
"""Fewest rows between two judgements, after that of a plan's first row."""
MOST_ROWS = 4096
"""Most rows between two judgements."""
QUIET_MS = 0
"""Log time at which nothing is judged that need not be."""

Position = dict[str, int | str]


class Terms(NamedTuple):
    """By what a recording is judged."""

    policies: list[Policy]
    registry: Registry
    digest: str


class Told(NamedTuple):
    """One line of the result."""

    line: int
    at_ms: int
    """Event time."""
    said: Verdict | Breach | Command


class Course:
    """One model."""

    def __init__(self, name: str, terms: Terms, part: Partition) -> None:
        self.name, self._terms = name, terms
        self.policy = policy_for(terms.policies, name)
        acting = self.policy
        if acting is not None and acting.mode == "observe":
            acting = msgspec.structs.replace(acting, mode="enforce")
        policies = [] if acting is None else [acting]
        self._book = Book(policies, terms.registry, terms.digest)
        self._queues = Queues(name, part)
        self._silence = Silence(acting.max_silence.ms if acting is not None else None)
        self._since = 0
        self._line = self._mark_ms = 0
        self._base = {"": self._book.save("")}
        self._last: dict[str, tuple[object, ...]] = {}
        self._block = Block(0)
        self.told: list[Told] = []

    @property
    def model(self) -> Model | None:
        """What the core knows."""
        return self._book.models.get(self.name)

    def first_line(self) -> int:
        """The first line about which something may still be said; `NEVER` without any."""
        return int(self._queues.merged[self._queues.at]) if self._queues.waiting() else NEVER

    def take(self, block: Block, parts: tuple[Part, Part, Part], versions: list[str]) -> None:
        """Take in what a block brought for this model, and judge where it is due."""
        self._block = block
        self._queues.add(*parts)
        self._silence.take(block, parts, versions)
        for line, _, event in (cut for cut in block.cuts if cut[1] == self.name):
            self._run(line - 1)
            self._settle(line - 1)
            self._since, self._line = 0, line - 1
            if event is not None:
                self._roll_out(line, event)
        last = int(block.lines[-1]) if len(block.lines) else 0
        self._run(last)

    def finish(self, line: int, mark_ms: int) -> None:
        """Judge at the end of the recording."""
        while self._queues.waiting():
            self._judge(line, mark_ms)

    # -- where to judge --------------------------------------------------------------------------

    def _run(self, end: int) -> None:
        """Judge at every line up to `end` where it is due."""
        while True:
            plan, silent = self._plan_line(), self._silent_lines()
            line = min(plan, self._row_line(), self._cooled_line(), self._baked_line(),
                       *silent.values())  # fmt: skip
            if line > end:
                return
            if plan == line:
                self._settle(line - 1)
                self._since = 0
            turned = {name for name, at in silent.items() if at == line}
            self._judge(line, self._mark_at(line), turned)

    def _settle(self, line: int) -> None:
        """Feed and judge what is left up to a line."""
        while (last := self._queues.last(line)) is not None:
            self._judge(last, self._mark_at(last))

    def _row_line(self) -> int:
        """The line with which enough rows have come."""
        fewest = FEWEST_ROWS if self._since else 1
        wanted = min(MOST_ROWS, max(fewest, self._since // PORTION))
        at = self._queues.at + wanted - 1
        return int(self._queues.merged[at]) if at < len(self._queues.merged) else NEVER

    def _silent_lines(self) -> dict[str, int]:
        """The lines on which live versions fall silent, or silent ones speak again."""
        model = self.model
        plan = model.plan if model is not None else None
        if model is None or plan is None:
            return {}
        lines: dict[str, int] = {}
        for name in (plan.stable, *canaries_of(plan)):
            version = model.versions.get(name)
            verdict = version.verdict if version is not None else None
            is_silent = verdict is not None and verdict.reason in ("stale", "no_data")
            if is_silent:
                lines[name] = self._silence.speaks_after(name, self._line)
            elif name == plan.stable or weight_of(plan, name) != 0:
                lines[name] = self._silence.silent_after(name, self._line)
        return lines

    def _plan_line(self) -> int:
        """The line on which a rollout event's time is reached."""
        pending = self.model.pending if self.model is not None else []
        return min((self._line_of(to_ms(event.at)) for event in pending), default=NEVER)

    def _cooled_line(self) -> int:
        """The model's first line after a cool-down that withholds a command."""
        model = self.model
        if model is None or self.policy is None or not model.last_rollback_ms:
            return NEVER
        if not any(wants_command(case) for case in model.cases.values()):
            return NEVER
        ends_ms = model.last_rollback_ms + self.policy.cooldown.ms
        return NEVER if ends_ms <= self._mark_ms else self._queues.line_at(ends_ms)

    def _baked_line(self) -> int:
        """The model's first line after a step of its canary, or a response, had its time."""
        model, policy = self.model, self.policy
        if model is None or policy is None:
            return NEVER
        dues_ms = [due_ms(case, policy) for case in model.cases.values()]
        if policy.promote is not None and model.plan is not None and model.plan.canary is not None:
            dues_ms.append(model.now_ms + waits_ms(model, policy.promote))
        times_ms = [ms for ms in dues_ms if ms is not None and ms > model.now_ms]
        return self._queues.line_at(min(times_ms)) if times_ms else NEVER

    def _line_of(self, time_ms: int) -> int:
        """First line after the last judgement on which the watermark reaches a time."""
        if time_ms <= self._mark_ms:
            return NEVER
        at = int(np.searchsorted(self._block.marks, time_ms))
        return int(self._block.lines[at]) if at < len(self._block.lines) else NEVER

    def _mark_at(self, line: int) -> int:
        """Watermark after a line."""
        block = self._block
        at = int(np.searchsorted(block.lines, line, side="right"))
        if at:
            return int(block.marks[at - 1])
        # A line of an earlier block: its rows still wait, and know.
        lines, marks = self._queues.lines(line)
        return int(marks[-1]) if len(lines) else block.before_ms

    # -- judging ---------------------------------------------------------------------------------

    def _judge(self, line: int, mark_ms: int, turned: Collection[str] = ()) -> None:
        """Judge on the first line up to this one that says something new, or on this one.

        Parameters
        ----------
        turned : collection of str
            Versions that fall silent or speak on this very line: that needs no search.
        """
        if not self._queues.count(line - 1):
            said = self._try(line, mark_ms, {SOURCE: line})
        else:
            fired_before = self._fired()
            said = self._try(line, mark_ms, {})
            fired = [self._queues.line_of(p) for key, p in self._fired().items()
                     if key not in fired_before]  # fmt: skip
            if fired or self._news(said, turned):
                line, mark_ms = self._search(line, mark_ms, min(fired, default=line))
                self._restore()
                said = self._try(line, mark_ms, {SOURCE: line})
        before = self._queues.at
        self._queues.fed(line)
        self._line, self._mark_ms = line, mark_ms
        self._since += self._queues.at - before
        self._tell(line, [*said, *self._act()])

    def _search(self, line: int, mark_ms: int, fired: int) -> tuple[int, int]:
        """Halve the lines: the first that says something new, and its watermark."""
        lines, marks = self._queues.lines(min(line, fired))
        if fired == line and (not len(lines) or int(lines[-1]) < line):
            lines, marks = np.append(lines, line), np.append(marks, mark_ms)
        # A guard's line is exact, so the line before it is asked first.
        low, high = 0, len(lines) - 1
        middle = high - 1
        while low < high:
            self._restore()
            if self._news(self._try(int(lines[middle]), int(marks[middle]), {})):
                high = middle
            else:
                low = middle + 1
            middle = (low + high) // 2
        return int(lines[high]), int(marks[high])

    def _try(self, line: int, mark_ms: int, newest: dict[str, int]) -> list[Said]:
        """Feed all up to a line, and judge."""
        said: list[Said] = []
        last_ms = self._queues.last_mark(line)
        messages = self._queues.messages(line, mark_ms if last_ms is None else last_ms, newest)
        if last_ms is not None and last_ms < mark_ms:
            # Time went on without rows of this model, which the core has to see as such.
            messages.append(self._queues.no_rows(mark_ms))
        for message in messages[:-1]:
            said += self._book.observe(message, QUIET_MS)
        return said + self._book.observe(messages[-1], self._loud_ms())

    def _loud_ms(self) -> int:
        """A log time at which the model is judged."""
        return (self.model.judged_ms if self.model is not None else 0) + JUDGE_EVERY_MS

    def _restore(self) -> None:
        self._book.models.pop(self.name, None)
        self._book.guards.pop(self.name, None)
        self._book.restore(self._base)

    def _fired(self) -> dict[tuple[str, str], Position]:
        """Positions of the guards that fired."""
        return {
            (version, name): guard.fired
            for version, own in self._book.guards.get(self.name, {}).items()
            for name, guard in own.items()
            if guard.fired
        }

    def _roll_out(self, line: int, event: Rollout) -> None:
        """Let a rollout event take effect at its place, or wait for its time."""
        mark_ms = self._mark_at(line)
        now = self._queues.no_rows(mark_ms)
        said = list(self._book.observe(now, QUIET_MS))
        said += self._book.roll_out(event, self._loud_ms())
        model = self.model
        if model is not None and any(to_ms(e.at) <= model.now_ms for e in model.pending):
            # Behind others that wait: the core takes it with the next observations.
            said += self._book.observe(now, self._loud_ms())
        self._line, self._mark_ms = line, max(self._mark_ms, mark_ms)
        self._tell(line, [*said, *self._act()], mark_ms or to_ms(event.at))

    def _act(self) -> list[Said]:
        """What would be ordered now."""
        said: list[Said] = []
        for wanting in list(self._book.wanting()):
            wall = Wall(wanting.model.now_ms, 1, self._terms.digest)
            said += self._book.act(wanting, wall, None)
        return said

    # -- telling ---------------------------------------------------------------------------------

    def _news(self, said: Iterable[Said], known: Collection[str] = ()) -> bool:
        """Whether something new is said, verdicts of some versions left aside."""
        return any(
            fact.version not in known and self._is_new(fact)
            if isinstance(fact, Verdict)
            else isinstance(fact, Breach)
            for fact in said
        )

    def _is_new(self, verdict: Verdict) -> bool:
        return self._last.get(verdict.version) != _shown(verdict)

    def _tell(self, line: int, said: list[Said], at_ms: int = 0) -> None:
        """Keep what is new, and save the state from which to go on."""
        position: Position = {"topic": SOURCE, "partition": 0, "offset": line}
        for fact in said:
            if isinstance(fact, Verdict):
                if not self._is_new(fact):
                    continue
                self._last[fact.version] = _shown(fact)
            if isinstance(fact, Verdict | Breach):
                decided = msgspec.structs.replace(fact, position=position)
                self._keep(line, fact.decided_at or at_ms, decided)
            elif (command := self._command(fact)) is not None:
                self._keep(line, command.issued_at, command)
        if self.model is not None:
            self._base = {"": self._book.save(""), self.name: self._book.save(self.name)}

    def _keep(self, line: int, at_ms: int, fact: Verdict | Breach | Command) -> None:
        self.told.append(Told(line, at_ms, fact))

    def _command(self, fact: Said) -> Command | None:
        """A command, or one that a person would have been asked to approve."""
        mode = self.policy.mode if self.policy is not None else "observe"
        if isinstance(fact, Progress):
            proposed = fact.kind == "proposed" and fact.command is not None
            return msgspec.convert(fact.command, Command) if proposed else None
        if not isinstance(fact, Command):
            return None
        return fact if mode != "observe" else msgspec.structs.replace(fact, mode=mode)


def _shown(verdict: Verdict) -> tuple[object, ...]:
    """What makes a verdict another one."""
    breached = tuple(guard.name for guard in verdict.guards if guard.verdict == "breach")
    return (verdict.verdict, verdict.reason, verdict.rollout_id, verdict.role, breached)
