"""What `ingest` learnt, packed by model: the internal messages between `ingest` and `watch`.

One message per model and flush holds blocks of columns, not objects. A row has a name: (source
topic, partition, offset, kind); within one (topic, partition, kind) offsets only grow, so the
reader drops repeats by remembering the highest. Saying a row twice is therefore harmless.

Kinds
-----
served      one accepted prediction, named by its own position
labelled    a prediction that met its outcome, named by the event that completed the pair
matured     a labelled prediction that reached its horizon, named by the prediction
unlabelled  a prediction that reached its horizon without an outcome, named by the prediction
metric      a value polled from outside (Prometheus), named by the poll

A message without a model is a *tick*: it only moves the watermark of its source partition.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

Column = bytes
"""One column of a block: little-endian fixed-width numbers, back to back."""

DTYPES = {
    "offset": "<i8",
    "served_ms": "<i8",
    "observed_ms": "<i8",
    "version": "<u2",
    "error": "|u1",
    "latency_ms": "<f8",
    "score": "<f8",
    "value": "<f8",
    "class": "<u2",
    "label_value": "<f8",
    "label_class": "<u2",
    "cost": "<f8",
    "sampled": "<f8",
    "weight": "<f8",
    "unit": "<u8",
}
"""numpy type of each column by name; for columns by prefix ask `dtype_of`. NaN means absent.

A column in which no row of a flush has anything may be missing: it reads as NaN, or 0 for `error`,
`unit`, the classes and the segments. `offset`, `served_ms` and `version` are always there.

`version` indexes `Observations.versions`. A predicted or true class that is a string is an index
into `Observations.classes` plus one (0: the value is a number, in `value` or `label_value`, or it
is absent). A segment's value is such an index too."""

DTYPES_BY_PREFIX = {"feature:": "<f8", "segment:": "<u2"}
"""`feature:NAME` is on served rows only; `segment:NAME` on all kinds but metric."""

KINDS = ("served", "labelled", "matured", "unlabelled", "metric")


class Block(Struct, frozen=True, array_like=True):
    """Rows of one kind from one source topic, oldest first; all columns have `count` rows."""

    kind: str
    topic: str
    count: int
    columns: dict[str, Column]


class Observations(Struct, frozen=True, array_like=True):
    """What one flush of one source partition says about one model."""

    model: str
    partition: int
    """Source partition."""
    streams: dict[str, str]
    """Source topic -> stream epoch: a topic made again has another one and starts from offset 0."""
    watermark_ms: int
    """Event time up to which the source partition has come."""
    versions: list[str]
    classes: list[str]
    blocks: list[Block]
    counts: dict[str, int]
    """Running totals of the source partition for this model since its stream began
    (`duplicates`, `corrections`, `late`, `orphans`); the latest message holds."""
    newest: dict[str, int] = {}
    """Source topic -> newest offset taken in with this flush: what moved the watermark."""


def dtype_of(column: str) -> str:
    """Give the numpy type of a column.

    Examples
    --------
    >>> dtype_of("score"), dtype_of("feature:age"), dtype_of("segment:region")
    ('<f8', '<f8', '<u2')
    """
    if column in DTYPES:
        return DTYPES[column]
    return next(dtype for prefix, dtype in DTYPES_BY_PREFIX.items() if column.startswith(prefix))


_decoder = msgspec.msgpack.Decoder(Observations)
_encoder = msgspec.msgpack.Encoder()


def pack(observations: Observations) -> bytes:
    """Encode for the topic (msgpack)."""
    return _encoder.encode(observations)


def unpack(data: bytes) -> Observations:
    """Decode; raises `msgspec.MsgspecError` on anything else."""
    return _decoder.decode(data)


def describe() -> dict[str, Any]:
    """The layout of the columns, for documents."""
    return {
        "dtypes": DTYPES | {f"{p}NAME": d for p, d in DTYPES_BY_PREFIX.items()},
        "kinds": list(KINDS),
    }
