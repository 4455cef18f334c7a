"""The document: the promise, two pictures, and the tables of all scenarios.

Nothing in it depends on the hour or the machine but the table that says so, so the same code and
seeds give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import NamedTuple

from evidence.cells import Tally
from evidence.check import Verdict, say
from evidence.plots import delay_plot, false_alarm_plot
from evidence.prose import AFTER, MADE, PROMISE
from evidence.scenarios.base import Finding, Scenario


class Measured(NamedTuple):
    """All that was measured."""

    scenarios: Sequence[Scenario]
    tallies: Sequence[Tally]
    found: dict[str, list[Finding]]
    verdicts: Sequence[Verdict]
    quick: bool


def write(measured: Measured, path: Path) -> None:
    """Write the document, and its pictures into the folder of its name beside it."""
    folder = path.with_suffix("")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    plots = (
        ("false_alarms", false_alarm_plot, "Share of runs with a false rollback, by who decides"),
        ("delays", delay_plot, "Rows from the change to the alarm, by the size of the jump"),
    )
    for name, draw, words in plots:
        if (picture := draw(measured.tallies)) is not None:
            (folder / f"{name}.svg").write_text(picture, encoding="utf-8")
            pictures.append(f"![{words}]({folder.name}/{name}.svg)")
    path.write_text("\n".join(document(measured, pictures)) + "\n", encoding="utf-8")


def document(measured: Measured, pictures: Sequence[str]) -> Iterator[str]:
    """All lines."""
    yield from ["# Evidence", ""]
    if measured.quick:
        yield from ["*A quick run with few runs per cell: wide intervals, for checking only.*", ""]
    yield from [PROMISE, ""]
    for picture in pictures:
        yield from [picture, ""]
    yield from [MADE, ""]
    yield from ["## The promises, and whether they held", ""]
    held = sum(verdict.held for verdict in measured.verdicts)
    yield from [f"{held} of {len(measured.verdicts)} held.", ""]
    for verdict in measured.verdicts:
        if not verdict.held:
            yield f"- **not held** – {verdict}"
    for scenario in measured.scenarios:
        yield from ["", f"## {scenario.number} · {scenario.title}", ""]
        yield from [f"Truth: {scenario.truth}. {scenario.reading}"]
        of_this = [t for t in measured.tallies if t.cell.scenario == scenario.number]
        for table in dict.fromkeys(t.cell.table for t in of_this):
            yield from _tallies([t for t in of_this if t.cell.table == table], table)
        findings = measured.found.get(scenario.number, [])
        for table in dict.fromkeys(f.table for f in findings):
            yield from _findings([f for f in findings if f.table == table], table)
        if scenario.skipped:
            yield from ["", scenario.skipped]
    yield from ["", AFTER, "", "## All promises", "", "| figure | promised | measured | held |",
                "|---|---|---|---|"]  # fmt: skip
    for v in measured.verdicts:
        yield f"| {v.name} | {v.promise} | {v.measured} | {'yes' if v.held else '**no**'} |"


def _grid(table: str, rows: Sequence[str], columns: Sequence[str],
          texts: dict[tuple[str, str], str], corner: str) -> Iterator[str]:  # fmt: skip
    yield from ["", f"**{table}**", "", f"| {corner} | {' | '.join(columns)} |",
                "|---|" + "---|" * len(columns)]  # fmt: skip
    for row in rows:
        yield f"| {row} | {' | '.join(texts.get((row, column), '–') for column in columns)} |"


def _tallies(tallies: Sequence[Tally], table: str) -> Iterator[str]:
    rows = list(dict.fromkeys(t.cell.rival for t in tallies))
    columns = list(dict.fromkeys(t.cell.world_name for t in tallies))
    texts = {(t.cell.rival, t.cell.world_name): text_of(t) for t in tallies}
    yield from _grid(table, rows, columns, texts, "")


def _findings(findings: Sequence[Finding], table: str) -> Iterator[str]:
    rows = list(dict.fromkeys(f.row for f in findings))
    columns = list(dict.fromkeys(f.column for f in findings))
    texts = {(f.row, f.column): f.text for f in findings}
    yield from _grid(table, rows, columns, texts, "")


def share(value: float) -> str:
    """A share with as many digits as it needs.

    >>> share(0.0055), share(0.5), share(1.0), share(0)
    ('.0055', '.50', '1', '0')
    """
    if value in (0, 1):
        return f"{value:.0f}"
    return f"{value:.4f}"[1:] if value < 0.095 else f"{value:.2f}".removeprefix("0")


def text_of(tally: Tally) -> str:
    """One cell as the document has it."""
    if tally.cell.since is None:
        low, high = tally.interval
        return f"{share(tally.alarms / tally.n)} [{share(low)}, {share(high)}] of {tally.n:,}"
    judged = tally.n - tally.alarms
    early = f"; **{share(tally.alarms / tally.n)} before the change**" if tally.alarms else ""
    if judged == 0:
        return early.removeprefix("; ")
    median, late = tally.quantile(0.5), tally.quantile(0.9)
    if tally.found == 0:
        return f"never{early}"
    missed = judged - tally.found
    lost = f"; {share(missed / judged)} missed" if missed else ""
    times = say(median) if median == inf else f"{say(median)} ({say(late)})"
    return f"{times}{lost}{early}"
