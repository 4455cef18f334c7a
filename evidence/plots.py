"""Two pictures as plain SVG: who rolls back healthy versions, and who is how late.

Drawn by hand, as `rollbackd plan --plot` is; shares are on a logarithmic axis that starts at one in
ten thousand, since the question is whether they are near one in a hundred.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf, log10
from xml.sax.saxutils import escape

from evidence.cells import Tally
from evidence.rivals.lineup import ADWIN, OURS, TUNED
from evidence.scenarios.late_change import JUMPS, jump, table
from service.cli.chart import Axis, Line, draw

WIDTH, LEFT, RIGHT, TOP, ROW = 900, 260, 40, 96, 26
LOWEST = 1e-4
OUR_COLOUR, THEIR_COLOUR = "#0072B2", "#D55E00"
WORLDS = (
    ("S1", "share of bad rows .020", "exactly at its limit, 100,000 rows"),
    ("S3", "step .010 → .018", "a harmless change below the limit"),
)


def false_alarm_plot(tallies: Sequence[Tally]) -> str | None:
    """Bars of false rollbacks with their intervals; None where S1 was not run."""
    shown = [
        (words, [t for t in tallies if t.cell.scenario == number and t.cell.world_name == world])
        for number, world, words in WORLDS
    ]
    shown = [(words, [t for t in found if t.cell.table.startswith("Limit")])
             for words, found in shown]  # fmt: skip
    if not all(found for _, found in shown):
        return None
    height = TOP + sum(40 + ROW * len(found) for _, found in shown) + 50
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" font-family="sans-serif" font-size="13">',
        "<title>Share of healthy versions rolled back</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="white"/>',
        _text(20, 32, "How many healthy versions are rolled back?", size=19),
        _text(20, 54, "Share of runs with a false rollback, with 95 % intervals. The dashed line "
              "is what rollbackd promises.", colour="#555"),
    ]  # fmt: skip
    parts += _scale(height)
    y = TOP
    for words, found in shown:
        parts.append(_text(20, y + 22, f"A version {words}" if "exactly" in words
                           else words.capitalize(), size=14))  # fmt: skip
        y += 34
        ordered = sorted(found, key=lambda t: (t.cell.rival != OURS, t.alarms / t.n))
        for tally in ordered:
            parts += _bar(tally, y)
            y += ROW
        y += 6
    return "\n".join([*parts, "</svg>"]) + "\n"


def _x(value: float) -> float:
    part = log10(max(value, LOWEST) / LOWEST) / log10(1 / LOWEST)
    return LEFT + part * (WIDTH - LEFT - RIGHT)


def _scale(height: int) -> Iterator[str]:
    for tick, words in (
        (1e-4, "≤ .01 %"),
        (1e-3, ".1 %"),
        (0.01, "1 %"),
        (0.1, "10 %"),
        (1.0, "100 %"),
    ):
        promised = tick == 0.01
        stroke = 'stroke="#000" stroke-dasharray="5 4"' if promised else 'stroke="#ddd"'
        yield f'<path d="M{_x(tick):.1f} {TOP - 14}V{height - 44}" {stroke}/>'
        yield _text(_x(tick), height - 24, words + (" promised" if promised else ""),
                    anchor="middle")  # fmt: skip


def _bar(tally: Tally, y: float) -> Iterator[str]:
    low, high = tally.interval
    ours = tally.cell.rival == OURS
    colour, middle = OUR_COLOUR if ours else THEIR_COLOUR, y + ROW / 2
    yield _text(LEFT - 12, middle + 4, tally.cell.rival, anchor="end",
                colour=OUR_COLOUR if ours else "#222", bold=ours)  # fmt: skip
    at = _x(tally.alarms / tally.n)
    yield (f'<rect x="{LEFT}" y="{y + 5:.1f}" width="{max(at - LEFT, 1):.1f}" height="{ROW - 10}" '
           f'fill="{colour}" fill-opacity="0.75"/>')  # fmt: skip
    yield (f'<path d="M{_x(low):.1f} {middle:.1f}H{_x(high):.1f}M{_x(high):.1f} {middle - 4:.1f}v8'
           f'M{_x(low):.1f} {middle - 4:.1f}v8" stroke="#222" fill="none"/>')  # fmt: skip


def delay_plot(tallies: Sequence[Tally]) -> str | None:
    """Median delay against the rate after the step, after 20,000 healthy rows and from row one."""
    lines = []
    late = {(t.cell.rival, t.cell.world_name): t for t in tallies if t.cell.table == table(20_000)}
    for rival in (OURS, ADWIN, TUNED, "plain e-process", "Page-Hinkley 50", "HDDM-A"):
        points = [
            (rate, found.quantile(0.5))
            for rate in JUMPS
            if (found := late.get((rival, jump(rate)))) and found.quantile(0.5) < inf
        ]
        if points:
            lines.append(Line(rival, points))
    first = [t for t in tallies if t.cell.scenario == "S5" and t.cell.rival == OURS]
    points = [
        (float(t.cell.world_name.split(": ")[1]), t.quantile(0.5))
        for t in first
        if ": " in t.cell.world_name
    ]
    if points:
        lines.append(Line("rollbackd, bad from row one", points, dashed=True))
    if not late or not lines:
        return None
    highest = max(y for line in lines for _, y in line.points)
    return draw(
        "How soon is a bad version found? After 20,000 healthy rows at .015, limit .02",
        Axis("share of bad rows after the change", 0.02, 0.105),
        Axis("rows to the alarm, median", 50, max(1.2 * highest, 1000)),
        lines,
    )


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13,
          colour: str = "#222", bold: bool = False) -> str:  # fmt: skip
    weight = ' font-weight="bold"' if bold else ""
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"{weight} '
            f'fill="{colour}">{escape(text)}</text>')  # fmt: skip
