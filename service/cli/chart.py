"""A line chart as plain SVG, by hand: no plotting library for one picture.

Both axes are logarithmic, with ticks at 1, 2 and 5 times a power of ten; each line bears its name
at its right end, moved apart where names would lie on each other, so that no legend has to be
matched by colour. Colours are Okabe and Ito's, which the colour-blind can tell apart.

Refused: values that are not above 0, and anything else that a plotting library would do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import ceil, floor, log10
from typing import NamedTuple
from xml.sax.saxutils import escape

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WIDTH, HEIGHT = 900, 480
LEFT, RIGHT, TOP, BOTTOM = 90, 290, 60, 70
NAME_PX = 16
LONGEST_NAME = 42


class Line(NamedTuple):
    """One line of a chart."""

    name: str
    points: list[tuple[float, float]]
    """From left to right, both values above 0."""
    dashed: bool = False


class Axis(NamedTuple):
    """One axis: its words, and the values at its two ends, both above 0."""

    label: str
    low: float
    high: float

    def at(self, value: float, start_px: float, end_px: float) -> float:
        """Where a value lies between two pixels."""
        part = log10(value / self.low) / log10(self.high / self.low)
        return start_px + part * (end_px - start_px)

    def ticks(self) -> list[float]:
        """1, 2 and 5 times powers of ten within the axis; powers alone where it is long."""
        first, last = floor(log10(self.low)), ceil(log10(self.high))
        steps = (1, 2, 5) if last - first <= 4 else (1,)
        every = [s * 10.0**power for power in range(first, last + 1) for s in steps]
        return [tick for tick in every if self.low * 0.999 <= tick <= self.high * 1.001]


def draw(title: str, x: Axis, y: Axis, lines: Sequence[Line]) -> str:
    """Draw lines as one SVG document.

    Raises
    ------
    ValueError
        When there is nothing to draw.
    """
    if not any(line.points for line in lines):
        raise ValueError("nothing to draw")
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="sans-serif" font-size="13">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="white"/>',
        _text(LEFT, 32, title, size=17),
        *_grid(x, y),
        *_lines(x, y, lines),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _grid(x: Axis, y: Axis) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    for tick in x.ticks():
        at = x.at(tick, LEFT, right)
        yield f'<path d="M{at:.1f} {TOP}V{bottom}" stroke="#ddd"/>'
        yield _text(at, bottom + 20, f"{tick:g}", anchor="middle")
    for tick in y.ticks():
        at = y.at(tick, bottom, TOP)
        yield f'<path d="M{LEFT} {at:.1f}H{right}" stroke="#ddd"/>'
        yield _text(LEFT - 8, at + 4, f"{tick:,.0f}", anchor="end")
    yield f'<path d="M{LEFT} {TOP}V{bottom}H{right}" stroke="#444" fill="none"/>'
    yield _text((LEFT + right) / 2, HEIGHT - 22, x.label, anchor="middle")
    yield _text(LEFT, TOP - 10, y.label)


def _lines(x: Axis, y: Axis, lines: Sequence[Line]) -> Iterator[str]:
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM
    shown = [line for line in lines if line.points]
    wanted = [y.at(line.points[-1][1], bottom, TOP) for line in shown]
    for index, (line, name_at) in enumerate(zip(shown, _apart(wanted), strict=True)):
        colour = COLOURS[index % len(COLOURS)]
        dots = " ".join(
            f"{x.at(px, LEFT, right):.1f},{y.at(py, bottom, TOP):.1f}" for px, py in line.points
        )
        dash = ' stroke-dasharray="6 4"' if line.dashed else ""
        yield (f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="2"{dash}/>')
        end = x.at(line.points[-1][0], LEFT, right)
        yield (f'<path d="M{end:.1f} {wanted[index]:.1f}L{right + 12} {name_at:.1f}" '
               f'stroke="{colour}" stroke-width="0.7"/>')  # fmt: skip
        short = line.name if len(line.name) <= LONGEST_NAME else line.name[: LONGEST_NAME - 1] + "…"
        yield _text(right + 16, name_at + 4, short, colour=colour)


def _apart(wanted: list[float]) -> list[float]:
    """The same heights, moved down, and then up, until names do not lie on each other."""
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    placed = dict.fromkeys(order, 0.0)
    above = -float("inf")
    for i in order:
        above = placed[i] = max(wanted[i], above + NAME_PX)
    below = float(HEIGHT - BOTTOM + NAME_PX)
    for i in reversed(order):
        below = placed[i] = min(placed[i], below - NAME_PX)
    return [placed[i] for i in range(len(wanted))]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 13,
          colour: str = "#222") -> str:  # fmt: skip
    return (f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" '
            f'fill="{colour}">{escape(text)}</text>')  # fmt: skip
