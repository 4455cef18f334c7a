"""Decompression is bounded, and the end of a batch is known from its header."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Iterator
from typing import Any

import cramjam
import pytest
from aiokafka.codec import gzip_encode, lz4_encode, snappy_encode, zstd_encode
from aiokafka.record._crecords import default_records

from service.engine import kafka_poison
from service.engine.base import EngineFault
from service.engine.kafka_poison import BatchTooLarge, bound_decompression

NAMES = ("gzip_decode", "snappy_decode", "lz4_decode", "zstd_decode")
ENCODERS = {
    "gzip_decode": gzip_encode,
    "snappy_decode": snappy_encode,
    "lz4_decode": lz4_encode,
    "zstd_decode": zstd_encode,
}


@pytest.fixture(autouse=True)
def _given_back() -> Iterator[None]:
    before = {name: getattr(default_records, name) for name in NAMES}
    yield
    for name, decode in before.items():
        setattr(default_records, name, decode)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 70_000, 1_000_000])
def test_what_fits_is_decoded(name: str, size: int) -> None:
    """If this breaks, compressed topics cannot be read."""
    bound_decompression(limit=1_000_000)
    data = (b"prediction-%d;" * 9)[:100] * (size // 100 + 1)

    decode: Any = getattr(default_records, name)

    assert data[:size] == decode(ENCODERS[name](data[:size]))


def test_a_raw_snappy_block_is_decoded() -> None:
    """If this breaks, topics written by librdkafka with snappy cannot be read."""
    bound_decompression(limit=1000)

    assert b"x" * 900 == default_records.snappy_decode(
        bytes(cramjam.snappy.compress_raw(b"x" * 900))
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_bomb_is_refused_in_bounded_memory(name: str) -> None:
    """If this breaks, one message of 100 kB takes the daemon's memory and kills it."""
    bound_decompression(limit=1_000_000)
    bomb = ENCODERS[name](b"\0" * 50_000_000)
    decode: Any = getattr(default_records, name)

    tracemalloc.start()
    with pytest.raises(BatchTooLarge, match="1000000 bytes"):
        decode(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 10_000_000


@pytest.mark.parametrize("name", NAMES)
def test_a_torn_batch_is_an_error_and_no_message(name: str) -> None:
    """If this breaks, half a batch passes as a whole one."""
    bound_decompression()
    whole = ENCODERS[name](bytes(range(256)) * 40)
    decode: Any = getattr(default_records, name)

    with pytest.raises((ValueError, OSError, cramjam.DecompressionError, EOFError)):
        decode(whole[: len(whole) // 2])


def test_an_aiokafka_that_moved_its_decoders_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, an update of aiokafka takes the bound away in silence."""
    monkeypatch.delattr(kafka_poison.default_records, "zstd_decode")

    with pytest.raises(EngineFault, match="zstd_decode"):
        bound_decompression()


def test_gzip_of_others_is_read() -> None:
    """If this breaks, a gzip header with a name or a time stops the partition."""
    bound_decompression()

    assert b"abc" == default_records.gzip_decode(gzip.compress(b"abc"))
