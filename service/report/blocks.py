"""What a report is made of; `html.py` and `markdown.py` write the same blocks in their own way."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class Heading(NamedTuple):
    """Begins a section."""

    text: str


class Paragraph(NamedTuple):
    """One or a few sentences."""

    text: str


class Table(NamedTuple):
    """Rows of texts under heads."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    """Columns that hold numbers, set to the right."""


class Figure(NamedTuple):
    """A picture with its words."""

    caption: str
    svg: str
    """One SVG document, made here; never text from outside."""


class Data(NamedTuple):
    """Something to look up: shown folded where that is possible."""

    title: str
    json: str


class Blank(NamedTuple):
    """Space that a person fills in."""

    question: str


Block = Heading | Paragraph | Table | Figure | Data | Blank


class Report(NamedTuple):
    """The whole of it."""

    title: str
    state: str
    blocks: list[Block]
