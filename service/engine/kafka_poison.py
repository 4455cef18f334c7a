"""Batches that hurt: where one that cannot be decoded ends, and how large one may become.

Why. A broker checks sizes before decompression; aiokafka inflates a whole batch without a bound
(300 MB from 0.3 MB). And a batch with a bad checksum is fetched again for ever, since its end is
known only to who reads its header.

How. `bound_decompression` replaces the four decoders that aiokafka's record reader calls. They are
private names, so `start` of the engine fails when an update of aiokafka moves them.

References
----------
Apache Kafka protocol, record batch v2: base offset int64, length int32, …, last offset delta int32
at byte 23.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from typing import Any

import aiokafka.errors
import cramjam
from aiokafka import TopicPartition
from aiokafka.protocol.fetch import FetchRequest
from aiokafka.record._crecords import default_records

from service.engine.base import EngineFault
from service.engine.kafka_client import Cluster

MAX_BATCH_BYTES = 64 << 20
"""Largest batch after decompression: 64 times what a topic takes compressed."""

_XERIAL = b"\x82SNAPPY\x00"
_CHUNK = 1 << 16


class BatchTooLarge(ValueError):
    """A compressed batch that would need more memory than a batch may."""


async def batch_end(cluster: Cluster, part: TopicPartition, offset: int) -> int:
    """Offset after the last message of the batch that holds `offset`, from its header alone."""
    reply = await cluster.ask_leader(
        part, FetchRequest(100, 1, _CHUNK, 0, [(part.topic, [(part.partition, offset, _CHUNK)])])
    )
    for _, parts in reply.topics:
        for _, error, *_, data in parts:
            if error:
                raise aiokafka.errors.for_code(error)(part)
            if data and len(data) >= 27:
                base, delta = struct.unpack_from(">q", data)[0], struct.unpack_from(">i", data, 23)
                return max(offset + 1, int(base) + int(delta[0]) + 1)
    return offset + 1


def bound_decompression(limit: int = MAX_BATCH_BYTES) -> None:
    """Make aiokafka refuse batches that inflate beyond `limit` bytes; twice is once.

    Raises
    ------
    EngineFault
        When this version of aiokafka no longer decodes through these names.
    """
    bounded = {
        "gzip_decode": lambda payload: _gunzip(payload, limit),
        "snappy_decode": lambda payload: _unsnap(payload, limit),
        "lz4_decode": lambda payload: _grow(cramjam.lz4, payload, limit),
        "zstd_decode": lambda payload: _grow(cramjam.zstd, payload, limit),
    }
    for name, decode in bounded.items():
        if not callable(getattr(default_records, name, None)):
            raise EngineFault(
                f"aiokafka {aiokafka.__version__} has no decoder {name} to bound: decompression "
                "bombs could not be refused; use the version of the lock file"
            )
        setattr(default_records, name, decode)


def _gunzip(payload: Any, limit: int) -> bytes:
    inflate = zlib.decompressobj(wbits=31)
    data = inflate.decompress(payload, limit)
    if inflate.unconsumed_tail:
        raise _too_large("gzip", limit)
    if not inflate.eof:
        raise ValueError("a gzip batch ends early")
    return data


def _unsnap(payload: Any, limit: int) -> bytes:
    blocks = list(_snappy_blocks(memoryview(payload)))
    if sum(cramjam.snappy.decompress_raw_len(block) for block in blocks) > limit:
        raise _too_large("snappy", limit)
    return b"".join(bytes(cramjam.snappy.decompress_raw(block)) for block in blocks)


def _snappy_blocks(payload: memoryview) -> Iterator[bytes]:
    if bytes(payload[:8]) != _XERIAL:
        yield bytes(payload)
        return
    at = 16  # behind magic, version and compatible version
    while at < len(payload):
        (size,) = struct.unpack_from(">i", payload, at)
        yield bytes(payload[at + 4 : at + 4 + size])
        at += 4 + size


def _grow(codec: Any, payload: Any, limit: int) -> bytes:
    size = min(limit, max(1 << 16, 8 * len(payload)))
    while True:
        space = bytearray(size)
        try:
            return bytes(memoryview(space)[: codec.decompress_into(bytes(payload), space)])
        except cramjam.DecompressionError as fault:
            if "whole buffer" not in str(fault):
                raise
        if size >= limit:
            raise _too_large(codec.__name__, limit)
        size = min(limit, 4 * size)


def _too_large(codec: str, limit: int) -> BatchTooLarge:
    return BatchTooLarge(f"a {codec} batch inflates beyond {limit} bytes")
