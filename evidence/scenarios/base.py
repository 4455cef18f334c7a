"""What a scenario says of itself, and a way to declare its cells shortly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from evidence.cells import Cell, Promise, World
from evidence.rivals.lineup import OURS, Rival

ALPHA = 0.01


class Finding(NamedTuple):
    """A figure that is not made of runs in a world."""

    table: str
    row: str
    column: str
    text: str
    promise: str = ""
    held: bool | None = None
    """None: nothing is promised, or it could not be measured."""


class Ratio(NamedTuple):
    """A promise on two cells: our median over the rival's."""

    scenario: str
    table: str
    world_name: str
    rival: str
    most: float
    ours: str = OURS


class Scenario(NamedTuple):
    """One scenario."""

    number: str
    title: str
    truth: str
    reading: str
    """What the tables show, in a line or two."""
    cells: tuple[Cell, ...] = ()
    ratios: tuple[Ratio, ...] = ()
    measure: Callable[[bool], list[Finding]] | None = None
    """Findings beside the cells; told whether to be quick."""
    timed: bool = False
    """Its findings are times, which differ from run to run."""
    skipped: str = ""


def within_alpha(alpha: float = ALPHA) -> tuple[Promise, ...]:
    """The upper end of the interval stays below 1.5 alpha."""
    return (Promise("alarms", most=1.5 * alpha),)


def none_seen(most: float = 0.005) -> tuple[Promise, ...]:
    """Practically never."""
    return (Promise("alarms", most=most),)


def alarms(
    scenario: str, table: str, world_name: str, world: World, rivals: list[Rival],
    promised: Mapping[str, tuple[Promise, ...]],
) -> list[Cell]:  # fmt: skip
    """One world in which nothing may alarm, before all rivals."""
    return [
        Cell(scenario, table, world_name, rival.name, world, rival.judge, rival.runs, rival.quick,
             promises=promised.get(rival.name, ()))
        for rival in rivals
    ]  # fmt: skip


def delays(
    scenario: str, table: str, world_name: str, world: World, rivals: list[Rival], since: int,
    promised: Mapping[str, tuple[Promise, ...]] | None = None,
) -> list[Cell]:  # fmt: skip
    """One world that turns bad at a row, before all rivals."""
    return [
        Cell(scenario, table, world_name, rival.name, world, rival.judge, rival.runs, rival.quick,
             since=since, promises=(promised or {}).get(rival.name, ()))
        for rival in rivals
    ]  # fmt: skip
