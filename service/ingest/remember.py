"""Keep a partition's state on disk: one blob per window and slab, positions in the same batch.

Why. Whatever was said must be joined the same way after a crash, and reading the log again from a
week ago costs minutes. RocksDB gives atomic batches in a folder. Writing a window as blobs costs
0.2 µs a row; a key per prediction would cost 2 µs and as much again for each read.

How. Keys:

m                   positions, watermark, marks of expiry
n + number          a model: name, versions, running totals
r + slab + start    new rows of a slab with their ids; die with the slab
l + step            labels of one step, by prediction offset; die with the last row they label
p + id              a parked outcome

The write-ahead log is not synced: after a power cut a few last steps may be missing. Then the note
beside the committed offset is newer than this state, and the state is built again from the log.

Refused here: what rows mean, and any key that grows with time rather than with what is pending.
"""

from __future__ import annotations

import heapq
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec
import numpy as np
import structlog
from msgspec import Struct
from rocksdict import BlockBasedOptions, DBCompressionType, Options, Rdict, WriteBatch

from service.ingest.find import Ints, hashes_of
from service.ingest.pending import (
    CLOSED,
    LATE,
    NEVER,
    ROW,
    SLAB,
    TEXT_LABEL,
    TEXT_VALUE,
    Labels,
    Rows,
    observed_ms,
)
from service.ingest.slices import Slice
from service.ingest.state import Blob, Mark, Parked, Partition, Run, Window
from service.ingest.texts import Values

log = structlog.get_logger(__name__)

MEMTABLE_BYTES = 4 << 20

LABEL_DTYPES = ("<i8", "<f8", "|b1", "<i8", "<f4", "<f4", "|b1")
"""Offset, label, whether it is a text, observed, cost, chance of sampling, whether it came late."""

LAYOUT = 2
"""Of all that is written here. A state of another layout is built again from the log."""

_encode = msgspec.msgpack.Encoder().encode
_META = b"m"


class Meta(Struct, frozen=True, array_like=True):
    """Where a state stands."""

    by: str
    seq: int
    streams: dict[str, str]
    taken: dict[str, int]
    seen_ms: dict[str, int]
    watermark_ms: int
    intent: Mark
    ended: Mark
    folding: bool
    layout: int


class Changes(NamedTuple):
    """One atomic change of the store."""

    puts: list[tuple[bytes, bytes]]
    deletes: list[bytes]
    ranges: list[tuple[bytes, bytes]]
    """From the first key up to, but without, the second."""


_metas = msgspec.msgpack.Decoder(Meta)
_parked = msgspec.msgpack.Decoder(Parked)
_rows = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, list[str], list[Slice], int])
_labels = msgspec.msgpack.Decoder(tuple[int, int, list[bytes], list[str]])


def changes_of(part: Partition, window: Window) -> Changes:
    """What one step changed; moves the step's number on."""
    part.seq += 1
    changes = Changes([], [], [])
    for blob in window.blobs:
        changes.puts.append((_slab_key(blob.piece.uid, blob.piece.start), _pack_rows(part, blob)))
    if window.labels:
        changes.puts.append(_pack_labels(part, np.concatenate(window.labels)))
    for model in sorted(part.models.changed):
        changes.puts.append((b"n" + model.to_bytes(4, "big"), part.models.dump(model)))
    part.models.changed.clear()
    for key in window.parked:
        if key in part.parked:
            changes.puts.append((b"p" + key, _encode(part.parked[key])))
        else:
            changes.deletes.append(b"p" + key)
    for uid in window.dropped:
        changes.ranges.append((_slab_key(uid, 0), _slab_key(uid + 1, 0)))
    for run in window.dropped_runs:
        changes.ranges.append((_label_key(run.first), _label_key(run.last + 1)))
    meta = Meta(part.by, part.seq, part.streams, part.taken, part.seen_ms, part.watermark_ms,
                part.intent, part.ended, part.fold is not None, LAYOUT)  # fmt: skip
    changes.puts.append((_META, _encode(meta)))
    return changes


def _slab_key(uid: int, start: int) -> bytes:
    return b"r" + uid.to_bytes(8, "big") + start.to_bytes(4, "big")


def _label_key(seq: int) -> bytes:
    return b"l" + seq.to_bytes(8, "big")


def _pack_rows(part: Partition, blob: Blob) -> bytes:
    texts = _texts_of(part, blob.rows, "value", TEXT_VALUE)
    lengths = np.array(list(map(len, blob.ids)), "<u2").tobytes()
    slices: list[Slice] = []
    rows = blob.rows
    if rows["slice"].any():
        rows = rows.copy()  # codes mean nothing outside this process
        rows["slice"], slices = part.slices.numbered(rows["slice"])
    return _encode((rows.tobytes(), lengths, b"".join(blob.ids), texts, slices, blob.floor))


def _pack_labels(part: Partition, places: Ints) -> tuple[bytes, bytes]:
    rows = part.pending.rows[places]
    max_due_s = int(rows["due_s"].max())
    _add_run(part.runs, Run(part.seq, part.seq, max_due_s, len(rows)))
    is_text, late = (rows["flags"] & TEXT_LABEL) > 0, rows["state"] == LATE
    columns = [rows["offset"], rows["label"], is_text, observed_ms(rows), rows["cost"],
               rows["sampled"], late]  # fmt: skip
    texts = _texts_of(part, rows, "label", TEXT_LABEL)
    packed = (max_due_s, len(rows), [column.tobytes() for column in columns], texts)
    return _label_key(part.seq), _encode(packed)


def _texts_of(part: Partition, rows: Rows, column: str, flag: int) -> list[str]:
    texts = part.texts.decode(Values(rows[column], (rows["flags"] & flag) > 0))
    return [] if texts is None else [text for text in texts if text is not None]


def _add_run(runs: list[Run], run: Run) -> None:
    if runs and runs[-1].count + run.count <= SLAB:
        last = runs[-1]
        runs[-1] = Run(last.first, run.last, max(last.max_due_s, run.max_due_s),
                       last.count + run.count)  # fmt: skip
    else:
        runs.append(run)


class Store:
    """One partition's folder. Raises what RocksDB raises: a full disk, a lock held elsewhere."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        options = Options(raw_mode=True)
        options.create_if_missing(True)
        options.set_write_buffer_size(MEMTABLE_BYTES)
        options.set_max_write_buffer_number(2)
        options.set_compression_type(DBCompressionType.lz4())
        options.set_max_background_jobs(2)
        table = BlockBasedOptions()
        table.disable_cache()  # blobs are read once, when the partition is opened
        options.set_block_based_table_factory(table)
        options.set_keep_log_file_num(2)
        self.path = path
        self._db = Rdict(str(path), options)

    @classmethod
    def anew(cls, path: Path) -> Store:
        """Open an empty one in place of whatever is there."""
        shutil.rmtree(path, ignore_errors=True)
        return cls(path)

    def meta(self) -> Meta | None:
        """Where the state stands; None when it is empty or was written by another release."""
        data = self._db.get(_META)
        if data is None:
            return None
        try:
            meta = _metas.decode(data)
        except msgspec.MsgspecError:
            meta = None
        if meta is None or meta.layout != LAYOUT:
            log.warning("state_of_ingest_of_another_release", path=str(self.path), layout=LAYOUT,
                        found=meta.layout if meta is not None else None,
                        then="it is built again from the log")  # fmt: skip
            return None
        return meta

    def write(self, changes: Changes) -> None:
        """Apply a change as a whole."""
        batch = WriteBatch(raw_mode=True)
        for begin, end in changes.ranges:
            batch.delete_range(begin, end)
        for key in changes.deletes:
            batch.delete(key)
        for key, value in changes.puts:
            batch.put(key, value)
        self._db.write(batch)

    def load(self, part: Partition, meta: Meta) -> None:
        """Fill a new partition with the state."""
        part.by, part.seq, part.taken = meta.by, meta.seq, dict(meta.taken)
        part.seen_ms, part.watermark_ms = dict(meta.seen_ms), meta.watermark_ms
        part.intent, part.ended = meta.intent, meta.ended
        for _, value in self._under(b"n"):
            part.models.restore(value)
        places = [self._load_slab_rows(part, key, value) for key, value in self._under(b"r")]
        if places:
            self._load_labels(part, np.concatenate(places))
        self._load_parked(part)
        _close_ended(part)

    def close(self) -> None:
        """Close the files."""
        self._db.close()

    def _under(self, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        for key, value in self._db.items(from_key=prefix):
            if key[:1] != prefix:  # type: ignore[index]
                return
            yield key, value  # type: ignore[misc]

    def _load_slab_rows(self, part: Partition, key: bytes, value: bytes) -> Ints:
        data, lengths, ids, texts, slices, floor = _rows.decode(value)
        rows = np.frombuffer(data, ROW).copy()
        if slices:
            codes = [0, *(part.slices.add(held) for held in slices)]
            rows["slice"] = np.array(codes, "<u2")[rows["slice"]]
        if texts:
            rows["value"][(rows["flags"] & TEXT_VALUE) > 0] = part.texts.encode(texts).numbers
        ends = np.cumsum(np.frombuffer(lengths, "<u2").astype(np.int64)).tolist()
        keys = [ids[start:end] for start, end in zip([0, *ends], ends, strict=False)]
        uid = int.from_bytes(key[1:9], "big")
        slab = part.pending.slabs.get(uid)
        if slab is None:
            slab = part.pending.new_slab(uid, int(rows["offset"][0]), floor)
        slab.floor = min(slab.floor, floor)
        return part.pending.restore(slab, rows, hashes_of(keys))

    def _load_labels(self, part: Partition, places: Ints) -> None:
        rows = part.pending.rows
        places = places[np.argsort(rows["offset"][places])]
        offsets = rows["offset"][places]
        for key, value in self._under(b"l"):
            max_due_s, count, columns, texts = _labels.decode(value)
            seq = int.from_bytes(key[1:], "big")
            _add_run(part.runs, Run(seq, seq, max_due_s, count))
            offset, label, *rest = (
                np.frombuffer(data, dtype)
                for data, dtype in zip(columns, LABEL_DTYPES, strict=True)
            )
            if texts:
                label = label.copy()
                label[rest[0]] = part.texts.encode(texts).numbers
            at = np.minimum(np.searchsorted(offsets, offset), len(offsets) - 1)
            there = offsets[at] == offset  # the others died with their slab
            part.pending.label(places[at[there]], Labels(label, *rest).take(there))

    def _load_parked(self, part: Partition) -> None:
        found = [(_parked.decode(value), key[1:]) for key, value in self._under(b"p")]
        for parked, key in sorted(found, key=lambda each: each[0].offset):
            part.parked[key] = parked
        part.parked_due = [(parked.due_s, key) for parked, key in found]
        heapq.heapify(part.parked_due)


def _close_ended(part: Partition) -> None:
    """Enter the rows that outcomes may find; those of the intent are to be said again."""
    pending = part.pending
    over = pending.due(part.ended.due_s)
    if len(over):
        pending.said(over)
    every = pending.due(NEVER - 1)
    open_rows = every[pending.rows["due_s"][every] > part.intent.due_s]
    pending.index.add(open_rows)
    part.due = every[pending.rows["due_s"][every] <= part.intent.due_s]
    pending.rows["flags"][part.due] |= CLOSED
