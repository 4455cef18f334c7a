"""A report as Markdown, for a wiki or a pull request; pictures are left to the HTML form."""

from __future__ import annotations

import re

from service.report.blocks import Blank, Block, Data, Figure, Heading, Paragraph, Report, Table
from service.report.plain import clean

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|!~@])")


def to_markdown(report: Report) -> str:
    """Write a report as Markdown (GitHub's tables)."""
    parts = [f"# {_plain(report.title)}", f"State: **{report.state}**"]
    parts += [text for block in report.blocks if (text := _block(block))]
    return "\n\n".join(parts) + "\n"


def _block(block: Block) -> str:
    match block:
        case Heading(text):
            return f"## {_plain(text)}"
        case Paragraph(text):
            return _plain(text)
        case Table():
            return _table(block)
        case Figure():
            return ""
        case Data(title, data):
            json = clean(data)
            fence = "`" * max(3, 1 + max(map(len, re.findall("`+", json)), default=0))
            return (f"<details><summary>{_plain(title)}</summary>\n\n{fence}json\n{json}\n{fence}"
                    "\n\n</details>")  # fmt: skip
        case Blank(question):
            return f"**{question}**\n\n…"


def _table(table: Table) -> str:
    marks = ["---:" if at in table.numbers else "---" for at in range(len(table.heads))]
    rows = [table.heads, marks, *([_plain(cell) for cell in row] for row in table.rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _plain(text: str) -> str:
    """Text that stays text: nothing in it is markup, a mention or a new line."""
    return _SPECIAL.sub(r"\\\1", " ".join(clean(text).split()))
