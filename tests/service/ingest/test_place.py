"""Topics that are partitioned unlike each other are an error that names both ways."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from service.engine.partitioner import crc32_partition, murmur2_partition
from service.ingest.place import Places

KEYS = [f"req-{n:08x}".encode() for n in range(200)]


def places() -> Places:
    return Places({"murmur2": murmur2_partition, "CRC32": crc32_partition})


def lying(place: Callable[[bytes, int], int], partition: int, count: int) -> list[bytes]:
    return [key for key in KEYS if place(key, count) == partition]


@pytest.mark.parametrize("count", [2, 3, 12])
@pytest.mark.parametrize("place", [murmur2_partition, crc32_partition])
def test_one_partitioner_on_both_topics_is_fine(
    place: Callable[[bytes, int], int], count: int
) -> None:
    """If this breaks, a sound installation does not start."""
    seen = places()
    for topic in ("predictions", "outcomes"):
        for partition in range(count):
            keys = lying(place, partition, count)
            assert seen.fault(topic, (partition, count), keys, keys) is None


def test_two_partitioners_are_named() -> None:
    """If this breaks, outcomes never meet their predictions, and nobody is told why."""
    seen = places()
    keys = lying(murmur2_partition, 0, 4)
    assert seen.fault("predictions", (0, 4), keys, keys) is None
    keys = lying(crc32_partition, 0, 4)
    fault = seen.fault("outcomes", (0, 4), keys, keys)
    assert fault is not None
    assert "outcomes is partitioned by CRC32 and predictions by murmur2" in fault


def test_an_unknown_partitioner_is_an_error() -> None:
    """If this breaks, round-robin producers are taken for sound ones."""
    fault = places().fault("predictions", (1, 4), KEYS[:20], KEYS[:20])
    assert fault is not None
    assert "neither murmur2 nor CRC32" in fault


@pytest.mark.parametrize("key, words", [(b"", "have no key"), (b"m", "keyed by something else")])
def test_keys_must_be_prediction_ids(key: bytes, words: str) -> None:
    """If this breaks, a topic without keys is joined by chance."""
    fault = places().fault("outcomes", (0, 1), [key] * 9, KEYS[:9])
    assert fault is not None
    assert words in fault
    assert "key them by prediction_id" in fault


def test_a_few_strays_are_borne() -> None:
    """If this breaks, one mistaken message stops the service for everybody."""
    seen = places()
    keys = lying(murmur2_partition, 2, 4)[:19]
    strayed = [b"stray", *keys]
    assert seen.fault("predictions", (2, 4), strayed, [b"other", *keys]) is None
    assert not seen.wants("predictions", 2)
    assert seen.wants("predictions", 3)


def test_nothing_is_judged_by_too_few_keys() -> None:
    """If this breaks, the very first message can stop the service."""
    assert places().fault("predictions", (0, 1), [b""] * 4, KEYS[:4]) is None
