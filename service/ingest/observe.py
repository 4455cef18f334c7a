"""Pack what a step says: one message per model, columns instead of objects.

Why. `watch` judges thousands of models from packed columns; an object per event would cost more
than everything before it.

How. The rows of a window are put in order of their models once, each column becomes bytes once, and
a model's part is a slice of those bytes. A column that is absent in the whole window is left out.
Feature values are sampled: rows are chosen by their offset, at most so many per model and second of
event time, and the others hold NaN.

Refused here: losses, and any feature or segment that no guard names.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from schemas.observations import DTYPES, Block, Observations, dtype_of, pack
from service.ingest.find import Ints
from service.ingest.pending import FAILED, TEXT_LABEL, TEXT_VALUE, observed_ms
from service.ingest.state import Partition, Said, Window
from service.ingest.texts import Texts, Values

MOST_ROWS = 5000
"""Rows of one message; about 80 bytes each."""
FEW_VERSIONS = 32
"""Up to so many versions of a model every message lists all of them."""
MOST_CLASSES = 65_534

WIDTHS = {name: np.dtype(dtype).itemsize for name, dtype in DTYPES.items()}

_MIX = 2_654_435_761
"""Knuth's multiplicative hash: neighbouring offsets are chosen independently."""


class Sampler:
    """Chooses the rows whose features are said, evenly over each second of event time."""

    def __init__(self, rows_per_s: int) -> None:
        self._rows_per_s = rows_per_s
        self._seen: dict[int, tuple[int, int, int, int]] = {}

    def choose(self, model: int, offsets: Ints, second: int) -> Ints:
        """Places of the chosen rows."""
        if self._rows_per_s <= 0:
            return np.empty(0, np.int64)
        was, stride, rows, taken = self._seen.get(model, (second, 1, 0, 0))
        if second != was:
            stride, rows, taken = max(1, -(-rows // self._rows_per_s)), 0, 0
        mixed = (offsets * _MIX & 0xFFFFFFFF) >> 12
        chosen = np.flatnonzero(mixed % stride == 0)[: self._rows_per_s - taken]
        self._seen[model] = (second, stride, rows + len(offsets), taken + len(chosen))
        return chosen


class Sorted(NamedTuple):
    """Rows of one kind in order of their models, as bytes."""

    said: Said
    bounds: list[tuple[int, int, int]]
    """(model, first row, end)."""
    columns: list[tuple[str, bytes, int]]
    """Name, bytes, and bytes of one row."""
    texts: dict[str, list[str | None]]


@dataclass
class Parts:
    """What one model's messages hold."""

    blocks: list[Block] = field(default_factory=list)
    classes: dict[str, int] = field(default_factory=dict)
    versions: dict[int, int] = field(default_factory=dict)

    def code(self, text: str | None) -> int:
        """Index of a class plus one; 0 when it is no text, or there are too many."""
        if text is None or (text not in self.classes and len(self.classes) >= MOST_CLASSES):
            return 0
        return self.classes.setdefault(text, len(self.classes) + 1)


def observations(part: Partition, window: Window, sampler: Sampler) -> list[tuple[bytes, bytes]]:
    """Keys and values of the messages of one step."""
    for topic, pairs in window.labelled.items():
        if pairs:
            names, rows = window.rows_of(pairs)
            window.said.append(Said("labelled", topic, names, part.pending.rows[rows]))
    parts: dict[int, Parts] = {}
    for said in window.said:
        ordered = _sorted(said, part.texts)
        for model, start, end in ordered.bounds:
            own = parts.setdefault(model, Parts())
            for at in range(start, end, MOST_ROWS):
                own.blocks.append(
                    _block(part, ordered, model, own, slice(at, min(at + MOST_ROWS, end)), sampler)
                )
    for model in part.models.counted - parts.keys():
        parts[model] = Parts()
    part.models.counted.clear()
    return [
        (part.models.names[model].encode(), pack(message))
        for model, own in parts.items()
        for message in _messages(part, window, model, own)
    ]


def tick(part: Partition) -> bytes:
    """A message without a model: it only moves the watermark."""
    return pack(Observations("", part.number, part.streams, part.watermark_ms, [], [], [], {}))


def _sorted(said: Said, texts: Texts) -> Sorted:
    model = said.rows["model"]
    if bool((model == model[0]).all()):
        bounds = [(int(model[0]), 0, len(model))]
    else:
        order = np.argsort(model, kind="stable")
        events = None
        if said.events is not None:
            events = [said.events[at] for at in order.tolist()]
        said = Said(said.kind, said.topic, said.offsets[order], said.rows[order], events)
        model = said.rows["model"]
        edges = [0, *(np.flatnonzero(model[1:] != model[:-1]) + 1).tolist(), len(model)]
        numbers = model[edges[:-1]].tolist()
        bounds = list(zip(numbers, edges[:-1], edges[1:], strict=True))
    columns, held = _columns(said, texts)
    packed = [
        (name, np.ascontiguousarray(column, DTYPES[name]).tobytes(), WIDTHS[name])
        for name, column in columns.items()
    ]
    return Sorted(said, bounds, packed, held)


def _columns(said: Said, texts: Texts) -> tuple[dict[str, Any], dict[str, list[str | None]]]:
    """Columns of a window's rows, and those that are texts."""
    rows = said.rows
    columns: dict[str, Any] = {
        "offset": said.offsets, "served_ms": rows["served_ms"], "version": rows["version"],
    }  # fmt: skip
    held: dict[str, list[str | None]] = {}
    flags = rows["flags"]
    if (flags & FAILED).any():
        columns["error"] = (flags & FAILED) > 0
    if rows["unit"].any():
        columns["unit"] = rows["unit"]
    for name in ("score", "weight"):
        _put(columns, name, rows[name])
    _put_values(columns, held, ("value", "class"), Values(rows["value"], flags & TEXT_VALUE > 0),
                texts)  # fmt: skip
    if said.kind == "served" and said.events is not None:
        _put(columns, "latency_ms", np.array([e.latency_ms for e in said.events], np.float64))
    if said.kind in ("labelled", "matured"):
        columns["observed_ms"] = observed_ms(rows)
        _put(columns, "cost", rows["cost"])
        _put(columns, "sampled", rows["sampled"])
        _put_values(columns, held, ("label_value", "label_class"),
                    Values(rows["label"], flags & TEXT_LABEL > 0), texts)  # fmt: skip
    return columns, held


def _put(columns: dict[str, Any], name: str, column: np.ndarray) -> None:
    if not np.isnan(column).all():
        columns[name] = column


def _put_values(columns: dict[str, Any], held: dict[str, list[str | None]],
                names: tuple[str, str], values: Values, texts: Texts) -> None:  # fmt: skip
    decoded = texts.decode(values)
    if decoded is None:
        _put(columns, names[0], values.numbers)
        return
    held[names[1]] = decoded
    _put(columns, names[0], np.where(values.is_text, np.nan, values.numbers))


def _block(part: Partition, ordered: Sorted, model: int, own: Parts, rows: slice, sampler: Sampler
           ) -> Block:  # fmt: skip
    said, start, end = ordered.said, rows.start, rows.stop
    columns = {name: data[start * width : end * width] for name, data, width in ordered.columns}
    if len(part.models.versions[model]) > FEW_VERSIONS:
        codes = [own.versions.setdefault(v, len(own.versions))
                 for v in said.rows["version"][rows].tolist()]  # fmt: skip
        columns["version"] = np.array(codes, DTYPES["version"]).tobytes()
    for name, texts in ordered.texts.items():
        classes = [own.code(text) for text in texts[rows]]
        if any(classes):
            columns[name] = np.array(classes, DTYPES[name]).tobytes()
    if part.models.segments[model]:
        columns.update(_segments(part, said.rows["slice"][rows], part.models.segments[model], own))
    if said.events is not None and part.models.features[model]:
        chosen = sampler.choose(model, said.offsets[rows], part.watermark_ms // 1000)
        columns.update(_features(said.events[rows], part.models.features[model], chosen))
    return Block(said.kind, said.topic, end - start, columns)


def _segments(part: Partition, slices: Ints, names: Sequence[str], own: Parts
              ) -> Iterator[tuple[str, bytes]]:  # fmt: skip
    distinct, at = np.unique(slices, return_inverse=True)
    held = [part.slices.values(code) for code in distinct.tolist()]
    for name in names:
        codes = [own.code(values.get(name)) for values in held]
        if any(codes):
            column = f"segment:{name}"
            yield column, np.array(codes, dtype_of(column))[at].tobytes()


def _features(events: Sequence[Any], names: Sequence[str], chosen: Ints
              ) -> Iterator[tuple[str, bytes]]:  # fmt: skip
    for name in names:
        column = np.full(len(events), np.nan)
        for at in chosen.tolist():
            value = (events[at].features or {}).get(name)
            if isinstance(value, float):
                column[at] = value
        if not np.isnan(column).all():
            yield f"feature:{name}", column.astype("<f8").tobytes()


def _messages(part: Partition, window: Window, model: int, own: Parts) -> Iterator[Observations]:
    names = part.models.versions[model]
    versions = [names[code] for code in own.versions] if own.versions else names
    blocks: list[Block] = []
    for block in [*own.blocks, None]:
        if block is not None and sum(b.count for b in blocks) + block.count <= MOST_ROWS:
            blocks.append(block)
            continue
        if blocks or not own.blocks:
            yield _message(part, window, model, (versions, list(own.classes), blocks))
        blocks = [block] if block is not None else []


def _message(part: Partition, window: Window, model: int,
             held: tuple[list[str], list[str], list[Block]]) -> Observations:  # fmt: skip
    versions, classes, blocks = held
    if len(versions) > FEW_VERSIONS and not blocks:
        versions = []
    return Observations(
        part.models.names[model], part.number, part.streams, part.watermark_ms, versions, classes,
        blocks, part.models.totals(model), window.newest,
    )  # fmt: skip
