"""Observation messages as tables: repeats dropped, columns ready for losses.

A message holds up to a few blocks. Here they become at most three tables, each oldest first:
`served`, `labelled` (at join) and `final` (matured and unlabelled rows in order of prediction).
Rows at or below the highest absorbed position of their (topic, partition, kind) are dropped; a new
stream epoch starts that memory afresh.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from detectors.base import F64, I64, Bool
from detectors.losses import Columns
from schemas.observations import DTYPES, Block, Observations, dtype_of
from service.watch.state import Model

U64 = npt.NDArray[np.uint64]
SEGMENT = "segment:"

TABLE_OF = {"served": "served", "labelled": "labelled", "matured": "final", "unlabelled": "final"}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of one sort; arrays of shape (n,)."""

    sort: str
    topic: list[str]
    """Source topics; `source` indexes it."""
    source: I64
    partition: int
    offset: I64
    served_ms: I64
    when_ms: I64
    """When the row became true: served, observed, or matured."""
    version: I64
    """Index into `versions`."""
    versions: list[str]
    weight: F64
    """Probability with which the router chose this row's version; NaN unknown."""
    columns: Columns
    features: dict[str, F64]
    segments: dict[str, I64]
    """Per segment, each row's value as an index into `classes` plus one; 0: it has none."""
    classes: list[str]
    age_ms: I64
    """Label delay: when the label was observed minus when the prediction was served; -1: none."""
    sampled: F64
    """Chance with which the row was sent to labelling; NaN: its label came by itself."""
    unit: U64
    """Hash of the user or session; 0: not told."""

    def __len__(self) -> int:
        return len(self.offset)

    def take(self, keep: Bool | I64) -> Table:
        """The rows where `keep` is true, or at the indices in `keep`."""
        return replace(
            self,
            source=self.source[keep], offset=self.offset[keep], served_ms=self.served_ms[keep],
            when_ms=self.when_ms[keep], version=self.version[keep], weight=self.weight[keep],
            columns=_taken(self.columns, keep),
            features={name: column[keep] for name, column in self.features.items()},
            segments={name: column[keep] for name, column in self.segments.items()},
            unit=self.unit[keep], sampled=self.sampled[keep], age_ms=self.age_ms[keep],
        )  # fmt: skip

    def in_slice(self, segment: str, value: str) -> Bool:
        """Which rows lie in a slice."""
        codes = self.segments.get(segment)
        if codes is None or value not in self.classes:
            return np.zeros(len(self), np.bool_)
        inside: Bool = codes == self.classes.index(value) + 1
        return inside


def _taken(columns: Columns, keep: Bool | I64) -> Columns:
    pieces: list[Any] = [None if column is None else column[keep] for column in columns]
    return Columns(*pieces)


def tables_of(
    model: Model, message: Observations, positive: float | str | None, horizon_ms: int
) -> list[Table]:
    """Unpack what is new in a message, and remember that it was absorbed.

    Parameters
    ----------
    model : Model
        Its `positions` and `streams` are moved on.
    positive : float or str or None
        Label of the positive class.
    horizon_ms : int
        Age at which a prediction matures.
    """
    fresh: dict[str, list[tuple[Block, Bool | None]]] = {}
    for block in message.blocks:
        if block.kind in TABLE_OF and block.count:
            keep = _new_rows(model, message, block)
            if keep is None or keep.any():
                fresh.setdefault(TABLE_OF[block.kind], []).append((block, keep))
    tables = [
        _table(sort, fresh[sort], message, positive, horizon_ms)
        for sort in ("served", "labelled", "final")
        if sort in fresh
    ]
    return tables


def _new_rows(model: Model, message: Observations, block: Block) -> Bool | None:
    """Which rows are new; None: all of them."""
    source = f"{block.topic}/{message.partition}"
    stream = message.streams.get(block.topic, "")
    if model.streams.get(source) != stream:
        model.streams[source] = stream
        for key in [key for key in model.positions if key.startswith(source + "/")]:
            del model.positions[key]
    key = f"{source}/{block.kind}"
    offsets = np.frombuffer(block.columns["offset"], DTYPES["offset"])
    highest = model.positions.get(key, -1)
    model.positions[key] = max(highest, int(offsets[-1]))
    return None if int(offsets[0]) > highest else offsets > highest


def _table(
    sort: str, parts: list[tuple[Block, Bool | None]], message: Observations,
    positive: float | str | None, horizon_ms: int,
) -> Table:  # fmt: skip
    def column(name: str, absent: float) -> np.ndarray:
        pieces = []
        for block, keep in parts:
            data = block.columns.get(name)
            piece = (
                np.full(block.count, absent, dtype_of(name))
                if data is None
                else np.frombuffer(data, dtype_of(name))
            )
            pieces.append(piece if keep is None else piece[keep])
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)

    sizes = [block.count if keep is None else int(keep.sum()) for block, keep in parts]
    source = np.repeat(np.arange(len(parts)), sizes)
    served_ms = column("served_ms", 0).astype(np.int64)
    observed_ms = column("observed_ms", 0).astype(np.int64)
    labelled = np.repeat([block.kind in ("labelled", "matured") for block, _ in parts], sizes)
    if sort == "final":
        when_ms = served_ms + horizon_ms
    else:
        when_ms = np.maximum(served_ms, observed_ms) if sort == "labelled" else served_ms
    held = sorted({name for block, _ in parts for name in block.columns})
    features = [name for name in held if name.startswith("feature:")]
    segments = [name for name in held if name.startswith(SEGMENT)]
    table = Table(
        sort=sort, topic=[block.topic for block, _ in parts], source=source,
        partition=message.partition, offset=column("offset", 0).astype(np.int64),
        served_ms=served_ms, when_ms=when_ms, version=column("version", 0).astype(np.int64),
        versions=message.versions, weight=column("weight", np.nan).astype(np.float64),
        columns=_columns(column, labelled, sort != "labelled", message.classes, positive),
        features={name: column(name, np.nan).astype(np.float64) for name in features},
        segments={n.removeprefix(SEGMENT): column(n, 0).astype(np.int64) for n in segments},
        classes=message.classes, unit=column("unit", 0),
        sampled=column("sampled", np.nan).astype(np.float64),
        age_ms=np.where(labelled, np.maximum(observed_ms - served_ms, 0), -1),
    )  # fmt: skip
    if sort == "final" and len(parts) > 1:
        return table.take(np.argsort(table.offset, kind="stable").astype(np.int64))
    return table


def _columns(
    column: Callable[[str, float], Any], labelled: Bool, whole: bool, classes: list[str],
    positive: float | str | None,
) -> Columns:  # fmt: skip
    """Columns for losses. Where rows are all predictions (`whole`: served or final), one without a
    label counts as not wrong: the rate that a guard bounds is "bad label seen by the horizon, per
    prediction", which no missing label can raise."""
    value, label_value = column("value", np.nan), column("label_value", np.nan)
    sort, label_class = column("class", 0), column("label_class", 0)
    predicted = (sort > 0) | ~np.isnan(value)
    same = np.where((sort > 0) | (label_class > 0), sort == label_class, value == label_value)
    known = predicted if whole else labelled & predicted
    wrong = np.where(known, labelled & ~same, -1).astype(np.int8)
    return Columns(
        positive_predicted=_is_positive(value, sort, predicted, classes, positive),
        positive_label=_is_positive(label_value, label_class, labelled, classes, positive),
        wrong=wrong,
        error=column("error", 0).astype(np.bool_),
        latency_ms=column("latency_ms", np.nan).astype(np.float64),
        score=column("score", np.nan).astype(np.float64),
        value=value.astype(np.float64),
        label_value=label_value.astype(np.float64),
        cost=column("cost", np.nan).astype(np.float64),
        labelled=labelled,
    )


def _is_positive(
    value: F64, sort: I64, known: Bool, classes: list[str], positive: float | str | None
) -> np.ndarray:
    """1 where it is the positive class, 0 where not, -1 where that is unknown."""
    if positive is None:
        return np.full(len(value), -1, np.int8)
    if isinstance(positive, str):
        hit = sort == (classes.index(positive) + 1 if positive in classes else len(classes) + 1)
    else:
        hit = (sort == 0) & (value == positive)
    return np.where(known, hit, -1).astype(np.int8)
