"""What can be told of a PromQL query by its words: what it selects, and whether it hides silence.

Why. A query that answers 0 where there is no data (`… or vector(0)`, `absent(…)`) makes a dead
exporter look healthy, or sick. Such a query is refused when the settings are read. And an answer
says when it was computed, never how old its samples are; for that every selector has to be asked
for its own time, so the selectors must be found.

How. By words, not by grammar: comments and texts are skipped, label lists and ranges too; a name
that is no function, no keyword and no label is a metric. Prometheus itself judges the rest.

Refused here: saying that a query is right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import pairwise
from typing import NamedTuple

_WORDS = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
    | (?P<text>"(?:\\.|[^"\\])*" | '(?:\\.|[^'\\])*' | `[^`]*`)
    | (?P<number>[0-9][0-9A-Za-z.]*)
    | (?P<name>[A-Za-z_:][A-Za-z0-9_:]*)
    | (?P<sign>.)""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = frozenset("{}[]()+-*/%^=!~<>,.:@")
_CLOSES = {"{": "}", "[": "]", "(": ")"}
_LABELS_FOLLOW = frozenset({"by", "without", "on", "ignoring", "group_left", "group_right"})
_KEYWORDS = _LABELS_FOLLOW | {"and", "or", "unless", "atan2", "offset", "bool", "inf", "nan"}
_AGGREGATORS = frozenset({
    "sum", "min", "max", "avg", "group", "stddev", "stdvar", "count", "count_values", "bottomk",
    "topk", "quantile", "limitk", "limit_ratio",
})  # fmt: skip
MOST_SELECTORS = 8
"""Each is one more question to Prometheus."""


class _Word(NamedTuple):
    sort: str
    text: str
    begin: int
    end: int


def selectors_of(query: str) -> list[str]:
    """Give the instant selectors of a query, each once, in order; ranges and offsets left out.

    Examples
    --------
    >>> selectors_of('sum by (job) (rate(errors{code=~"5.."}[5m])) / sum(rate(all[5m] offset 1m))')
    ['errors{code=~"5.."}', 'all']
    """
    words = _words(query)
    found: dict[str, None] = {}
    at = 0
    while at < len(words):
        word, after = words[at], words[at + 1].text if at + 1 < len(words) else ""
        low = word.text.lower()
        if word.text == "[" or (low in _LABELS_FOLLOW and after == "("):
            at = _past(words, at if word.text == "[" else at + 1)
            continue
        if word.text == "{" or (word.sort == "name" and _is_metric(low, after)):
            braced = word.text == "{" or after == "{"
            end = _past(words, at + (word.text != "{")) if braced else at + 1
            found[query[word.begin : words[end - 1].end]] = None
            at = end
            continue
        at += 1
    return list(found)


def faults_of_query(query: str) -> Iterator[str]:
    """Yield why a query cannot be a signal, without a path: what was found, what was expected."""
    words = _words(query)
    if (alone := _alone(words)) is not None:
        yield f"found {alone} without its partner, expected a whole PromQL expression"
        return
    if any(word.sort == "sign" and word.text not in _SIGNS for word in words):
        return  # Not a language that is read here; Prometheus will say what it thinks of it.
    calls = {
        word.text.lower()
        for word, after in pairwise(words)
        if word.sort == "name" and after.text == "("
    }
    if "vector" in calls and any(w.sort == "name" and w.text.lower() == "or" for w in words):
        yield "found vector(…) beside or, expected no number in place of missing data"
    for name in sorted(calls & {"absent", "absent_over_time"}):
        yield f"found {name}(…), whose value is about missing data; expected the signal itself"
    selectors = selectors_of(query)
    if not selectors:
        yield "found no metric in it, expected a query whose samples have an age"
    if len(selectors) > MOST_SELECTORS:
        yield (
            f"found {len(selectors)} selectors, expected at most {MOST_SELECTORS}; "
            "make a recording rule of it"
        )


def _words(query: str) -> list[_Word]:
    return [
        _Word(found.lastgroup or "", found.group(), found.start(), found.end())
        for found in _WORDS.finditer(query)
        if found.lastgroup != "space"
    ]


def _is_metric(low: str, after: str) -> bool:
    grouped = low in _AGGREGATORS and after.lower() in ("by", "without")
    return after != "(" and low not in _KEYWORDS and not grouped


def _past(words: list[_Word], at: int) -> int:
    """Index after the bracket that closes the one at `at`; the end when nothing does."""
    opens, closes = words[at].text, _CLOSES[words[at].text]
    depth = 0
    for index in range(at, len(words)):
        depth += (words[index].text == opens) - (words[index].text == closes)
        if depth == 0:
            return index + 1
    return len(words)


def _alone(words: list[_Word]) -> str | None:
    """A quote or a bracket without its partner, or None."""
    waiting: list[str] = []
    for word in words:
        if word.sort != "sign":
            continue
        if word.text in "\"'`":
            return word.text
        if word.text in _CLOSES:
            waiting.append(_CLOSES[word.text])
        elif word.text in _CLOSES.values() and (not waiting or waiting.pop() != word.text):
            return word.text
    opened = {closes: opens for opens, closes in _CLOSES.items()}
    return opened[waiting[-1]] if waiting else None
