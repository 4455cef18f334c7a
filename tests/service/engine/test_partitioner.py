"""Partitioners against published vectors."""

from __future__ import annotations

import pytest

from service.engine.partitioner import crc32_partition, murmur2, murmur2_partition

JAVA = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}
"""The vectors of Apache Kafka's UtilsTest.testMurmur2 (Java's int is signed)."""


@pytest.mark.parametrize(("key", "signed"), JAVA.items())
def test_murmur2_is_javas(key: bytes, signed: int) -> None:
    """If this breaks, an outcome written by a Java client never meets its prediction."""
    assert signed % 2**32 == murmur2(key)
    assert (signed & 0x7FFFFFFF) % 12 == murmur2_partition(key, 12)


def test_murmur2_is_aiokafkas_for_every_length() -> None:
    """If this breaks, our own two engines disagree on a key's partition."""
    from aiokafka.partitioner import murmur2 as theirs

    for length in range(64):
        key = bytes((length * 37 + at * 11) % 256 for at in range(length))
        assert theirs(key) % 2**32 == murmur2(key)


def test_crc32_is_the_published_one() -> None:
    """If this breaks, ingest blames the wrong partitioner for a mismatch."""
    assert 0xCBF43926 % 1000 == crc32_partition(b"123456789", 1000)
