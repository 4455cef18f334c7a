"""Curves over time as plain SVG: lines, bands between bounds, and marked moments.

Each element is built as a tree, so no text can break out of it. Colours are Okabe and Ito's, which
the colour-blind can tell apart; names stand at the ends of lines, so that no legend is matched by
colour. Text and axes take the page's own colour (`currentColor`) and work on light and dark.

Refused: a plotting library for three kinds of pictures.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from math import floor, log10
from typing import NamedTuple
from xml.etree import ElementTree as ET

from schemas.times import to_text
from service.report.plain import clean

COLOURS = {"canary": "#D55E00", "stable": "#0072B2", "limit": "#CC79A7", "other": "#009E73"}
WIDTH, HEIGHT = 860, 300
LEFT, RIGHT, TOP, BOTTOM = 70, 150, 34, 44
NAME_PX = 15
ACROSS, UP = 5, 4
"""About so many ticks."""


class Curve(NamedTuple):
    """One line over time; a point is (event time in ms, value)."""

    name: str
    tone: str
    """A key of `COLOURS`."""
    points: Sequence[tuple[int, float]]
    band: Sequence[tuple[int, float, float]] = ()
    """(time, lower, upper)."""
    dashed: bool = False


class Mark(NamedTuple):
    """A moment worth a vertical line."""

    at: int
    text: str


class Scale(NamedTuple):
    """From values to pixels, linear."""

    low: float
    high: float
    start_px: float
    end_px: float

    def at(self, value: float) -> float:
        """Where a value lies; one beyond the ends lies at the end."""
        part = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.start_px + part * (self.end_px - self.start_px)


def draw(
    title: str, curves: Sequence[Curve], marks: Sequence[Mark], shown: Callable[[float], str]
) -> str | None:
    """Draw curves as one SVG document; None when fewer than two moments are known.

    Parameters
    ----------
    shown : callable
        How a value is written at the axis.
    """
    times = [at for curve in curves for at, _ in curve.points] + [mark.at for mark in marks]
    if len(set(times)) < 2 or not any(curve.points for curve in curves):
        return None
    x = Scale(min(times), max(times), LEFT, WIDTH - RIGHT)
    y = Scale(*_bounds(curves), HEIGHT - BOTTOM, TOP)
    root = ET.Element("svg", {
        "xmlns": "http://www.w3.org/2000/svg", "viewBox": f"0 0 {WIDTH} {HEIGHT}", "role": "img",
        "font-family": "system-ui, sans-serif", "font-size": "12", "fill": "currentColor",
    })  # fmt: skip
    ET.SubElement(root, "title").text = clean(title)
    _axes(root, x, y, shown)
    for curve in curves:
        _curve(root, x, y, curve)
    _names(root, y, curves)
    for place, mark in enumerate(sorted(marks)):
        _mark(root, x, mark, place)
    return ET.tostring(root, encoding="unicode")


def _bounds(curves: Sequence[Curve]) -> tuple[float, float]:
    """From zero or below, to a little above what is drawn; a wide upper bound may leave it."""
    values = [value for curve in curves for _, value in curve.points]
    bands = [high for curve in curves for _, _, high in curve.band]
    top = max([*values, *(min(high, 3 * max(values)) for high in bands)])
    low = min(0.0, *values)
    return low, max(top * 1.08, low + 1e-9)


def _axes(root: ET.Element, x: Scale, y: Scale, shown: Callable[[float], str]) -> None:
    for value in ticks(y.low, y.high, UP):
        at = y.at(value)
        _line(root, LEFT, at, WIDTH - RIGHT, at, opacity="0.15")
        _text(root, LEFT - 8, at + 4, shown(value), "end")
    span_s = (x.high - x.low) / 1000
    for n in range(ACROSS + 1):
        at_ms = x.low + (x.high - x.low) * n / ACROSS
        clock = to_text(int(at_ms))
        # Hours and minutes; seconds too where the whole picture lasts minutes only.
        short = clock[11:19] if span_s < 1800 else clock[5:16].replace("T", " ")
        _text(root, x.at(at_ms), HEIGHT - BOTTOM + 18, short, "middle")
    _line(root, LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, opacity="0.6")


def ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers between two values, 1, 2 or 5 times a power of ten apart.

    Examples
    --------
    >>> ticks(0, 0.9, 4)
    [0.0, 0.2, 0.4, 0.6, 0.8]
    """
    rough = (high - low) / about
    power = 10.0 ** floor(log10(rough))
    step = next((s * power for s in (1, 2, 5) if s * power >= 0.75 * rough), 10 * power)
    first = floor(low / step)
    every = (round(n * step, 12) for n in range(first, first + 4 * about))
    return [value for value in every if low <= value <= high]


def _curve(root: ET.Element, x: Scale, y: Scale, curve: Curve) -> None:
    colour = COLOURS[curve.tone]
    if curve.band:
        there = [(x.at(at), y.at(high)) for at, _, high in curve.band]
        back = [(x.at(at), y.at(low)) for at, low, _ in reversed(curve.band)]
        ET.SubElement(root, "polygon", {
            "points": _dots([*there, *back]), "fill": colour, "opacity": "0.18",
        })  # fmt: skip
    line = {
        "points": _dots([(x.at(at), y.at(value)) for at, value in curve.points]),
        "fill": "none", "stroke": colour, "stroke-width": "2",
    }  # fmt: skip
    if curve.dashed:
        line["stroke-dasharray"] = "6 4"
    ET.SubElement(root, "polyline", line)


def _names(root: ET.Element, y: Scale, curves: Sequence[Curve]) -> None:
    """Each name at the height of its line's end, moved apart."""
    ends = sorted((y.at(c.points[-1][1]), c) for c in curves if c.points)
    above = TOP - NAME_PX + 0.0
    for at, curve in ends:
        above = max(at, above + NAME_PX)
        name = curve.name if len(curve.name) <= 22 else curve.name[:21] + "…"
        _text(root, WIDTH - RIGHT + 8, above + 4, name, "start", COLOURS[curve.tone])


def _mark(root: ET.Element, x: Scale, mark: Mark, place: int) -> None:
    at = x.at(mark.at)
    _line(root, at, TOP, at, HEIGHT - BOTTOM, opacity="0.7", dash="2 3")
    # Marks of one moment stand below each other.
    left = at > (LEFT + WIDTH - RIGHT) / 2
    _text(root, at - 4 if left else at + 4, TOP - 6 + 14 * (place % 4), mark.text,
          "end" if left else "start")  # fmt: skip


def _dots(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:.1f},{y:.1f}" for x, y in points)


def _line(
    root: ET.Element, x1: float, y1: float, x2: float, y2: float, *, opacity: str, dash: str = ""
) -> None:
    given = {"d": f"M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}", "stroke": "currentColor",
             "opacity": opacity, "fill": "none"}  # fmt: skip
    ET.SubElement(root, "path", given | ({"stroke-dasharray": dash} if dash else {}))


def _text(
    root: ET.Element, x: float, y: float, text: str, anchor: str, colour: str | None = None
) -> None:
    given = {"x": f"{x:.1f}", "y": f"{y:.1f}", "text-anchor": anchor}
    ET.SubElement(root, "text", given | ({"fill": colour} if colour else {})).text = clean(text)


def steps(points: Sequence[tuple[int, float]], end: int) -> Iterator[tuple[int, float]]:
    """Turn values that hold until the next one into points of a line, up to `end`."""
    for n, (at, value) in enumerate(points):
        yield at, value
        yield (points[n + 1][0] if n + 1 < len(points) else max(end, at)), value
