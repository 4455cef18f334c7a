"""A report as one HTML file that needs no network and runs no script.

Every element is built as a tree, so that no text from outside can become markup.
"""

from __future__ import annotations

from xml.etree import ElementTree as ET

from service.report.blocks import Blank, Block, Data, Figure, Heading, Paragraph, Report, Table
from service.report.plain import clean

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
.state { border: 1px solid var(--line); border-radius: 1rem; padding: .1rem .7rem }
.scroll { overflow-x: auto } table { border-collapse: collapse; width: 100%; font-size: .92rem }
th, td { text-align: left; padding: .35rem .6rem .35rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: break-word }
.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }
figure { margin: 1.5rem 0 } figcaption { font-size: .9rem; opacity: .8 }
svg { width: 100%; height: auto } pre { overflow-x: auto; background: var(--soft); padding: .8rem }
.blank { border: 1px dashed var(--line); min-height: 4rem; margin: .3rem 0 1rem }
@media print { details { display: none } }
"""
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


def to_html(report: Report) -> str:
    """Write a report as an HTML document."""
    html = ET.Element("html", {"lang": "en"})
    head = ET.SubElement(html, "head")
    ET.SubElement(head, "meta", {"charset": "utf-8"})
    ET.SubElement(head, "meta", {"http-equiv": "Content-Security-Policy", "content": POLICY})
    ET.SubElement(head, "meta", {"name": "viewport", "content": "width=device-width"})
    ET.SubElement(head, "title").text = clean(f"Incident: {report.title}")
    ET.SubElement(head, "style").text = STYLE
    body = ET.SubElement(html, "body")
    ET.SubElement(body, "h1").text = clean(report.title)
    ET.SubElement(ET.SubElement(body, "p"), "span", {"class": "state"}).text = report.state
    for block in report.blocks:
        _add(body, block)
    return "<!doctype html>\n" + ET.tostring(html, encoding="unicode", method="html") + "\n"


def _add(body: ET.Element, block: Block) -> None:
    match block:
        case Heading(text):
            ET.SubElement(body, "h2").text = clean(text)
        case Paragraph(text):
            ET.SubElement(body, "p").text = clean(text)
        case Table():
            _table(body, block)
        case Figure(caption, svg):
            figure = ET.SubElement(body, "figure")
            figure.append(_without_namespace(ET.fromstring(svg)))  # noqa: S314 - made by curves.py
            ET.SubElement(figure, "figcaption").text = clean(caption)
        case Data(title, json):
            details = ET.SubElement(body, "details")
            ET.SubElement(details, "summary").text = clean(title)
            ET.SubElement(details, "pre").text = clean(json)
        case Blank(question):
            ET.SubElement(body, "p").text = question
            ET.SubElement(body, "div", {"class": "blank", "contenteditable": "true"}).text = ""


def _table(body: ET.Element, table: Table) -> None:
    made = ET.SubElement(ET.SubElement(body, "div", {"class": "scroll"}), "table")
    head = ET.SubElement(ET.SubElement(made, "thead"), "tr")
    for at, text in enumerate(table.heads):
        ET.SubElement(head, "th", _column(table, at) | {"scope": "col"}).text = text
    rows = ET.SubElement(made, "tbody")
    for row in table.rows:
        line = ET.SubElement(rows, "tr")
        for at, text in enumerate(row):
            ET.SubElement(line, "td", _column(table, at)).text = clean(text)


def _column(table: Table, at: int) -> dict[str, str]:
    return {"class": "number"} if at in table.numbers else {}


def _without_namespace(svg: ET.Element) -> ET.Element:
    """HTML knows svg elements by their bare names."""
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
    return svg
