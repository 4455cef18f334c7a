"""`replay`: a recording through policies, offline. Connects to nothing and sends nothing.

Instead of files it may be given a Kafka cluster, from which it reads a range and nothing else.

Standard output holds only what the recording and the policies decide, so the same input gives the
same bytes. Progress and what was refused go to standard error.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from time import sleep
from typing import Annotated, Any

import msgspec
import typer
from rich import box
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from schemas.times import to_text
from service.app import detectors_known
from service.cli.base import (
    DEFAULT_CONFIG,
    AsJson,
    ConfigFile,
    Failure,
    app,
    err,
    out,
    print_json,
    settings,
)
from service.cli.ranges import SCHEME, Ranged, Wanted, edge_of
from service.clock import WallClock
from service.config import ConfigFaults
from service.memory import collect_seldom
from service.replay.compare import Side, compared, side_by_side
from service.replay.course import Terms
from service.replay.read import Read, RecordingFault, chunks, read, read_records
from service.replay.run import WINDOW, Replay
from service.watch.named import faults_of_detectors

_encode = msgspec.json.Encoder().encode
Source = Callable[[int], Iterator[tuple[int, Read]]]
"""Gives at most so many lines or messages at once: how many, and what they say."""

NAMES = ("model", "version", "policy")
"""Columns of a comparison that may be wide."""

SHOWN_REASONS = 5
"""Reasons of refusal that are told, the most frequent first."""


@app.command()
def replay(
    files: Annotated[
        list[str],
        typer.Argument(help="Recordings; - for standard input; or one kafka://HOST:PORT."),
    ],
    speed: Annotated[
        float | None,
        typer.Option(help="Events per second at most; as fast as it goes if left out."),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(help="Settings file to judge by instead; give two or more to compare them."),
    ] = None,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="Kafka: from this TIME (2026-11-24T09:00:00Z) by the log's clock, this OFFSET in "
            "every partition, or TOPIC/PARTITION=OFFSET,…; from the beginning if left out.",
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", help="Kafka: up to, but without; the present end if left out."),
    ] = None,
    prefix: Annotated[
        str | None, typer.Option(help="Kafka: put before topics' names, instead of the settings'.")
    ] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Run recordings through policies offline: what would have been said and ordered, and when.

    Each line of the result names in `line` the input line that decided, from 1 over all files. Of a
    Kafka range it counts messages in order of arrival: by the log's time, then rollouts,
    predictions, outcomes, then partition and offset.
    """
    if speed is not None and speed <= 0:
        raise typer.BadParameter("--speed: give events per second above 0")
    if len(files) != len(set(files)) and "-" in files:
        raise typer.BadParameter("standard input (-) can be read only once")
    is_kafka = any(file.startswith(SCHEME) for file in files)
    if is_kafka and len(files) > 1:
        raise typer.BadParameter("one kafka://… alone, or files")
    if not is_kafka and (begin, end, prefix) != (None, None, None):
        raise typer.BadParameter("--from, --to and --prefix speak of kafka://…")
    named = list(policy or [config])
    replays = [Replay(_terms(file)) for file in named]
    collect_seldom()
    if is_kafka:
        wanted = Wanted(files[0], edge_of("--from", begin), edge_of("--to", end), prefix)
        source = partial(_messages, Ranged(wanted, settings(named[0]).engine))
    else:
        source = partial(_lines_of, [Path(file) for file in files])
    try:
        if len(replays) == 1:
            _print_lines(replays[0], source, speed)
        else:
            sides = _sides(replays, named, source, speed)
            print_json(sides) if as_json else out.print(_table(sides))
    except RecordingFault as fault:
        raise Failure(str(fault)) from None
    _tell_refused(replays[0])


def _terms(file: Path) -> Terms:
    config, registry = settings(file), detectors_known()
    if lines := faults_of_detectors(config.policies, registry):
        raise ConfigFaults(lines)
    return Terms(config.policies, registry, config.digest)


def _lines_of(files: list[Path], most: int) -> Iterator[tuple[int, Read]]:
    """Lines of recordings: how many, and what they say."""
    return ((len(lines), read(first, lines)) for first, lines in chunks(files, most))


def _messages(ranged: Ranged, most: int) -> Iterator[tuple[int, Read]]:
    """Messages of a range: how many, and what they say."""
    for first, records in ranged.chunks(most):
        yield len(records), read_records(first, records)
    err.print(f"Read {ranged.edges()}", markup=False, highlight=False)


def _print_lines(one: Replay, source: Source, speed: float | None) -> None:
    written = sys.stdout.buffer
    for events in _paced(source, speed):
        written.writelines(_lines(one.take_events(events)))
        if speed is not None:
            written.flush()
    written.writelines(_lines(one.finish()))
    written.write(_encode({"summary": one.summary()}) + b"\n")
    written.flush()


def _lines(told: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    return (_encode(line) + b"\n" for line in told)


def _sides(
    replays: list[Replay], named: list[Path], source: Source, speed: float | None
) -> list[Side]:
    """Run all policies over one reading of the recording."""
    told: list[list[dict[str, Any]]] = [[] for _ in replays]
    for events in _paced(source, speed):
        for own, one in zip(told, replays, strict=True):
            own += one.take_events(events)
    for own, one in zip(told, replays, strict=True):
        own += one.finish()
    return side_by_side([
        compared(str(file), own, one.summary())
        for file, own, one in zip(named, told, replays, strict=True)
    ])  # fmt: skip


def _table(sides: list[Side]) -> Table:
    """One block of rows for each version, a row for each policy."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for name in (*NAMES, "verdict", "first breach", "line", "guard", "would order", "at", "line",
                 "than first"):  # fmt: skip
        table.add_column(name, no_wrap=name not in NAMES, overflow="fold")
    before = None
    for side in sides:
        one = (side.model, side.version)
        if before not in (None, one):
            table.add_section()
        names = ("", "") if one == before else (escape(side.model), escape(side.version))
        more = len(set(side.breached)) - 1
        guard = escape(side.guard or "-") + (f" and {more} more" if more > 0 else "")
        withheld = f"nothing ({side.withheld})" if side.withheld else "-"
        ordered = (side.command or withheld) + (f" x{side.commands}" if side.commands > 1 else "")
        table.add_row(
            *names, escape(side.policy), side.verdict or "-", _time(side.breach_at),
            _text(side.breach_line), guard, escape(ordered), _time(side.command_at),
            _text(side.command_line), _sooner(side.sooner_s),
        )  # fmt: skip
        before = one
    return table


def _sooner(seconds: float | None) -> str:
    if seconds is None:
        return "-"
    return f"{abs(seconds):.1f} s {'sooner' if seconds >= 0 else 'later'}" if seconds else "same"


def _time(at_ms: int | None) -> str:
    return "-" if at_ms is None else to_text(at_ms)[5:19].replace("T", " ")


def _text(number: int | None) -> str:
    return "-" if number is None else str(number)


def _paced(source: Source, speed: float | None) -> Iterator[Read]:
    """What the recording says, no faster than wanted, with progress where a person looks on."""
    clock, began_s, count = WallClock(), None, 0
    most = WINDOW if speed is None else max(1, min(WINDOW, int(speed / 4)))
    with _progress() as advance:
        for lines, events in source(most):
            began_s = clock.monotonic_s() if began_s is None else began_s
            yield events
            count += lines
            advance(count)
            if speed is not None:
                sleep(max(0.0, began_s + count / speed - clock.monotonic_s()))


@contextmanager
def _progress() -> Iterator[Any]:
    columns = (TextColumn("{task.description}"), BarColumn(),
               TextColumn("{task.completed} lines"), TimeElapsedColumn())  # fmt: skip
    with Progress(*columns, console=err, disable=not err.is_terminal, transient=True) as bar:
        task = bar.add_task("replaying", total=None)
        yield lambda count: bar.update(task, completed=count)


def _tell_refused(one: Replay) -> None:
    counts, reasons = one.join.counts, one.join.reasons
    if counts.refused:
        err.print(f"Refused {counts.refused} of {counts.read} events:", markup=False)
    for reason, count in reasons.most_common(SHOWN_REASONS):
        err.print(f"{count} times: {reason}", markup=False, highlight=False)
