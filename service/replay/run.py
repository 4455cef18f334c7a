"""A whole recording: lines in, lines of the result out, and the summary at the end.

Results come in order of the line that decided. A model whose rows still wait may yet speak about an
earlier line than another one has, so lines are held back until that is settled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from heapq import heappop, heappush
from typing import Any

import msgspec
import numpy as np

from schemas.commands import Command
from schemas.facts import Breach
from schemas.verdicts import Verdict
from service.ingest.find import Ints
from service.replay.course import Course, Terms, Told
from service.replay.join import Block, Join, Made
from service.replay.queue import NEVER, Part
from service.replay.read import Read, read

WINDOW = 16_384
"""Lines taken in at once."""

KINDS: dict[type, str] = {Verdict: "verdict", Breach: "breach", Command: "command"}


class Replay:
    """One recording under one configuration."""

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.join = Join(terms.policies)
        self._courses: dict[str, Course] = {}
        self._held: list[tuple[int, int, int, Told]] = []
        self._order = 0
        self._matured = 0
        self._last = (0, 0)
        self._breached: dict[tuple[str, str], int] = {}
        self._commands: dict[tuple[str, str], int] = {}

    def take(self, first: int, lines: Sequence[bytes]) -> Iterator[dict[str, Any]]:
        """Take in the next lines; gives what is settled by now.

        Parameters
        ----------
        first : int
            Number of the first line.
        lines : sequence of bytes
            At most `WINDOW`, or places where a cool-down ends may shift by a few lines.
        """
        return self.take_events(read(first, lines))

    def take_events(self, events: Read) -> Iterator[dict[str, Any]]:
        """Take in the events of the next lines, or messages; gives what is settled by now."""
        block = self.join.take(events)
        if len(block.lines):
            self._last = (int(block.lines[-1]), int(block.marks[-1]))
        for _, model, _ in block.cuts:
            if model not in self._courses:
                self._courses[model] = Course(model, self._terms, self.join.part)
        parts = self._parts(block)
        empty = _nothing(self.join)
        for name, course in self._courses.items():
            code = self.join.models.index.get(name, -1)
            versions = self.join.models.versions[code] if code >= 0 else []
            course.take(block, parts.get(code, empty), versions)
        yield from self._settled(min((c.first_line() for c in self._courses.values()),
                                     default=NEVER))  # fmt: skip

    def finish(self) -> Iterator[dict[str, Any]]:
        """Judge at the end, where time stands still, and give the rest."""
        for course in self._courses.values():
            course.finish(*self._last)
        yield from self._settled(NEVER)

    def summary(self) -> dict[str, Any]:
        """What the recording held and what was thought of it."""
        counts = self.join.counts
        return {
            "read": counts.read, "accepted": counts.accepted, "refused": counts.refused,
            "duplicates": counts.duplicates, "corrections": counts.corrections,
            "models": {name: self._of_model(self._courses[name]) for name in sorted(self._courses)},
        }  # fmt: skip

    # -- rows to models --------------------------------------------------------------------------

    def _parts(self, block: Block) -> dict[int, tuple[Part, Part, Part]]:
        """The rows of a block by model."""
        numbers = np.arange(self._matured, self._matured + len(block.final.lines))
        self._matured += len(numbers)
        made = (block.served, block.labelled, block.final)
        names = (block.served.lines, block.labelled.lines, numbers)
        parts: dict[int, list[Part]] = {}
        for kind, (rows, own) in enumerate(zip(made, names, strict=True)):
            events = block.events if kind == 0 else []
            for code, part in self._by_model(block, rows, own, events):
                parts.setdefault(code, [_nothing(self.join)[0]] * 3)[kind] = part
        return {code: (three[0], three[1], three[2]) for code, three in parts.items()}

    def _by_model(
        self, block: Block, made: Made, names: Ints, events: list[Any]
    ) -> Iterator[tuple[int, Part]]:
        if not len(made.lines):
            return
        rows = self.join.rows[made.rows]
        marks = block.marks[np.searchsorted(block.lines, made.lines, side="right") - 1]
        models = rows["model"]
        first = int(models[0])
        if bool((models == first).all()):
            yield first, Part(made.lines, marks, names, rows, events)
            return
        order = np.argsort(models, kind="stable")
        edges = np.flatnonzero(np.diff(models[order])) + 1
        for chosen in np.split(order, edges):
            own = [events[at] for at in chosen.tolist()] if events else []
            yield (
                int(models[chosen[0]]),
                Part(made.lines[chosen], marks[chosen], names[chosen], rows[chosen], own),
            )

    # -- telling ---------------------------------------------------------------------------------

    def _settled(self, before: int) -> Iterator[dict[str, Any]]:
        """What was said about lines before this one, in their order."""
        for number, course in enumerate(self._courses.values()):
            for told in course.told:
                self._order += 1
                heappush(self._held, (told.line, number, self._order, told))
            course.told.clear()
        while self._held and self._held[0][0] < before:
            yield self._line(heappop(self._held)[3])

    def _line(self, told: Told) -> dict[str, Any]:
        fields = msgspec.to_builtins(told.said)
        version = told.said.from_version if isinstance(told.said, Command) else told.said.version
        key = (told.said.model, version)
        if isinstance(told.said, Breach):
            self._breached.setdefault(key, told.line)
        elif isinstance(told.said, Command):
            self._commands[key] = self._commands.get(key, 0) + 1
        kind = KINDS[type(told.said)]
        head = {"kind": kind, "at": told.at_ms, "line": told.line, "model": told.said.model,
                "version": version}  # fmt: skip
        return head | {name: value for name, value in fields.items() if name not in head}

    def _of_model(self, course: Course) -> dict[str, Any]:
        model = course.model
        plan = model.plan if model is not None else None
        versions = {}
        for version in model.versions.values() if model is not None else ():
            key = (course.name, version.name)
            versions[version.name] = {
                "predictions": version.predictions, "outcomes": version.outcomes,
                "unlabelled": version.unlabelled, "coverage": version.coverage,
                "verdict": version.verdict.verdict if version.verdict else None,
                "first_breach_line": self._breached.get(key),
                "commands": self._commands.get(key, 0),
            }  # fmt: skip
        return {"stable": plan.stable if plan else None, "canary": plan.canary if plan else None,
                "versions": versions}  # fmt: skip


def _nothing(join: Join) -> tuple[Part, Part, Part]:
    none = np.empty(0, np.int64)
    part = Part(none, none, none, join.rows[:0].copy(), [])
    return part, part, part
