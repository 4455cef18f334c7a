"""What one append becomes: blobs of columns, one or more for each partition it goes to.

Why. A row for each message would cost more than the messages. Columns (keys, values, headers) in
msgpack are what `bulk` hands on, so reading a blob is one decoding and no loop. A CRC32 is checked
on reading, because SQLite does not notice a flipped bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple
from zlib import crc32

import msgspec

from service.engine.base import EngineFault, Message
from service.engine.partitioner import murmur2_partition

BLOB_MESSAGES = 5000
"""Most messages in one blob: a reader decodes whole blobs."""
BLOB_BYTES = 1 << 20
"""Keys and values of a blob end at the message that passes this."""

Pairs = list[tuple[str, bytes]]
_Columns = tuple[list[bytes], list[bytes], list[Pairs] | None]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Columns).decode


class Blob(NamedTuple):
    """A part of an appended batch that goes to one partition."""

    partition: int
    length: int
    crc: int
    body: bytes


class Append(NamedTuple):
    """One call of `append`, encoded."""

    topic: str
    partitions: int
    """How many there were when it was encoded."""
    blobs: Sequence[Blob]


class Stretch(NamedTuple):
    """Messages of one topic partition in order, without a hole, as columns."""

    stream: str
    base: int
    times_ms: list[int]
    keys: list[bytes]
    values: list[bytes]
    headers: list[Pairs] | None
    """None: no message has any."""


def pack(topic: str, messages: Sequence[Message], partitions: int) -> Append:
    """Choose the partition of each message and pack each partition's into blobs.

    Raises
    ------
    EngineFault
        When a message names a partition that the topic does not have.
    """
    if partitions == 1 and not any(message.partition for message in messages):
        groups: dict[int, Sequence[Message]] = {0: messages}
    else:
        groups = _by_partition(topic, messages, partitions)
    blobs = [_blob(number, part) for number, group in groups.items() for part in _parts(group)]
    return Append(topic, partitions, blobs)


def _by_partition(
    topic: str, messages: Sequence[Message], partitions: int
) -> dict[int, Sequence[Message]]:
    groups: dict[int, list[Message]] = {}
    for message in messages:
        partition = message.partition
        if partition is None:
            partition = murmur2_partition(message.key, partitions)
        elif not 0 <= partition < partitions:
            raise EngineFault(f"topic {topic} has {partitions} partitions, and no {partition}")
        groups.setdefault(partition, []).append(message)
    return dict(groups)


def _parts(messages: Sequence[Message]) -> Iterator[Sequence[Message]]:
    start = size = 0
    for at, (key, value, _, _) in enumerate(messages):
        size += len(key) + len(value)
        if at - start == BLOB_MESSAGES - 1 or size > BLOB_BYTES:
            yield messages[start : at + 1]
            start, size = at + 1, 0
    if start < len(messages):
        yield messages[start:]


def _blob(partition: int, messages: Sequence[Message]) -> Blob:
    keys, values, _, headers = zip(*messages, strict=True)
    body = _encode((keys, values, headers if any(headers) else None))
    return Blob(partition, len(messages), crc32(body), body)


def join(taken: Stretch, blob: Blob, part: slice, time_ms: int) -> Stretch:
    """Add a part of a blob to what was read before it.

    Raises
    ------
    ValueError
        When the blob is not what was written.
    """
    if crc32(blob.body) != blob.crc:
        raise ValueError("its checksum is wrong")
    keys, values, headers = _decode(blob.body)
    if len(keys) != blob.length:
        raise ValueError(f"it has {len(keys)} messages, not {blob.length}")
    keys, values = keys[part], values[part]
    if headers is not None or taken.headers is not None:
        before = taken.headers or [[] for _ in taken.keys]
        headers = before + (headers[part] if headers else [[] for _ in keys])
    taken.times_ms.extend([time_ms] * len(keys))
    taken.keys.extend(keys)
    taken.values.extend(values)
    return taken._replace(headers=headers)
