"""Which partition a key belongs to, as other clients decide it.

Why. Predictions and outcomes meet only if whoever wrote them chose the partition alike. Java
clients and most others hash with murmur2; librdkafka's own default is CRC32. `ingest` compares the
first keys with both and names the wrong one.

References
----------
Apache Kafka, `org.apache.kafka.common.utils.Utils.murmur2` and its test vectors.
librdkafka, `rd_kafka_msg_partitioner_consistent`.
"""

from __future__ import annotations

from zlib import crc32

_MULTIPLIER = 0x5BD1E995
_SEED = 0x9747B28C
_MASK = 0xFFFFFFFF


def murmur2(key: bytes) -> int:
    """Hash as Java clients do; in [0, 2**32), where Java shows the same bits as a signed int.

    Examples
    --------
    >>> murmur2(b"foobar") - 2**32
    -790332482
    """
    length = len(key)
    h = _SEED ^ length
    whole = length & ~3
    for at in range(0, whole, 4):
        k = int.from_bytes(key[at : at + 4], "little") * _MULTIPLIER & _MASK
        k = (k ^ (k >> 24)) * _MULTIPLIER & _MASK
        h = (h * _MULTIPLIER & _MASK) ^ k
    if whole < length:
        h = (h ^ int.from_bytes(key[whole:], "little")) * _MULTIPLIER & _MASK
    h = (h ^ (h >> 13)) * _MULTIPLIER & _MASK
    return h ^ (h >> 15)


def murmur2_partition(key: bytes, partitions: int) -> int:
    """Partition that Java clients choose for a key, in [0, partitions)."""
    return (murmur2(key) & 0x7FFFFFFF) % partitions


def crc32_partition(key: bytes, partitions: int) -> int:
    """Partition that librdkafka's `consistent` partitioners choose, in [0, partitions)."""
    return crc32(key) % partitions
