"""What people see of the demonstration: a live picture on a terminal, plain lines elsewhere.

Colour follows `NO_COLOR`; a pipe or a log gets one line for each step, as it happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.markup import escape
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from schemas.times import to_text
from service.demo.models import Rates
from service.demo.story import STEPS, Story

COLOURS = {"pass": "green", "breach": "bold red", "inconclusive": "cyan", "unknown": "yellow"}
TELLING = ("opened", "command", "receipt", "verified")


@dataclass
class Screen:
    """Shows a story on a console."""

    console: Console
    address: str
    """Of the daemon's page."""
    story: Story = field(default_factory=Story)
    shares: Mapping[str, float] = field(default_factory=dict)
    """Share of requests by version in the last second, by the router's own count."""
    answered: Mapping[str, int] = field(default_factory=dict)

    def say(self, text: str) -> None:
        """Print one line, above the live picture; a log's lines are never cut."""
        self.console.print(text, highlight=False, soft_wrap=not self.console.is_terminal)

    def models(self, measured: Mapping[str, Rates]) -> None:
        """Show what the models are worth on people that they never saw."""
        table = Table("model", "error", "false positives", "false negatives",
                      title="Trained on 2015, measured on 16,000 people of 2016")  # fmt: skip
        for name, rates in measured.items():
            table.add_row(name, *(f"{rate:.1%}" for rate in rates))
        self.console.print(table)

    def live(self) -> Live:
        """The picture that `show` refreshes; it does nothing where there is no terminal."""
        return Live(
            get_renderable=self.picture, console=self.console, refresh_per_second=5,
            transient=True, auto_refresh=self.console.is_terminal,
        )  # fmt: skip

    def reached(self, step: str) -> None:
        """Say that a step was reached, where no picture shows it."""
        if not self.console.is_terminal:
            after_s = self.story.seconds(step)
            when = f" ({after_s:+.1f} s)" if after_s else ""
            self.say(f"{dict(STEPS)[step]}{when}")

    def picture(self) -> Group:
        """Draw the state of things."""
        steps = Table.grid(padding=(0, 2))
        for step, words in STEPS:
            after_s = self.story.seconds(step)
            done = step in self.story.marks
            when = f"{after_s:+.1f} s" if after_s else ""
            mark = "[green]✔[/green]" if done else "[dim]·[/dim]"
            steps.add_row(mark, words if done else f"[dim]{words}[/dim]", when)
        return Group(Text(f"Page: {self.address}", "bold"), steps, self._versions())

    def _versions(self) -> Table:
        table = Table.grid(padding=(0, 2))
        for name in ("v41", "v42"):
            known, share = self.story.version(name), self.shares.get(name, 0.0)
            verdict, words = known.get("verdict") or "", known.get("text") or ""
            table.add_row(
                f"[bold]{name}[/bold]", ProgressBar(total=1.0, completed=share, width=30),
                f"{share:6.1%}", f"{self.answered.get(name, 0):,} answers",
                f"{known.get('outcomes', 0):,} labels",
                Text(f"{verdict}: {words}" if verdict else "", COLOURS.get(verdict, "")),
            )  # fmt: skip
        return table

    def summary(self) -> None:
        """Print when each step was reached, and the incident."""
        table = Table("step", "after the canary's start", title="What happened")
        for step, words in STEPS[2:]:
            after_s = self.story.seconds(step)
            table.add_row(words, "-" if after_s is None else f"{after_s:.1f} s")
        self.console.print(table)
        if self.story.incident:
            self._incident(self.story.incident)

    def _incident(self, incident: Mapping[str, Any]) -> None:
        self.say(f"[bold]Incident {incident['incident_id']}: {incident['state']}[/bold]")
        for entry in sorted(incident["entries"], key=lambda e: int(e["at"])):
            if entry["kind"] in TELLING:
                when = to_text(entry["at"])[11:23]
                self.say(f"  {when}  {entry['kind']:<9} {escape(entry['text'])}")
