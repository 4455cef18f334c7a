"""The index finds what is in it, and nothing else."""

from __future__ import annotations

import random

import numpy as np
import pytest

from service.ingest.find import Hashes, Index, hashes_of


def an_index(count: int) -> tuple[Index, Hashes]:
    index = Index()
    hashes = hashes_of([f"p{n}".encode() for n in range(count)])
    index.hash, index.check = hashes.hash.copy(), hashes.check.copy()
    return index, hashes


def test_it_agrees_with_a_dict_over_adding_and_removing() -> None:
    """If this breaks, outcomes miss their predictions, or meet others'."""
    index, hashes = an_index(5000)
    rng, held = random.Random(3), set[int]()
    for _ in range(60):
        fresh = rng.sample(sorted(set(range(5000)) - held), min(300, 5000 - len(held)))
        index.add(np.array(fresh, np.int64))
        held |= set(fresh)
        gone = rng.sample(sorted(held), len(held) // 3)
        index.remove(np.array(gone, np.int64))
        held -= set(gone)
        expected = [n if n in held else -1 for n in range(5000)]
        assert expected == index.find(hashes).tolist()
        assert len(held) == index.count


def test_rows_that_want_one_slot_are_all_found() -> None:
    """If this breaks, ids that collide lose their predictions."""
    index, _ = an_index(100)
    index.hash[:] = 7  # all at home in one slot
    index.check[:] = np.arange(100)
    index.add(np.arange(100))
    wanted = Hashes(np.full(101, 7, np.uint64), np.arange(101, dtype=np.uint32))
    assert [*range(100), -1] == index.find(wanted).tolist()
    index.remove(np.arange(0, 100, 2))
    expected = [n if n % 2 else -1 for n in range(100)]
    assert [*expected, -1] == index.find(wanted).tolist()


def test_removing_what_is_not_in_it_is_an_error() -> None:
    """If this breaks, a fault of ours loops for ever instead of stopping."""
    index, _ = an_index(10)
    index.add(np.array([1]))
    with pytest.raises(KeyError):
        index.remove(np.array([2]))


def test_an_empty_index_finds_nothing() -> None:
    """If this breaks, the first window of a partition fails."""
    index, hashes = an_index(3)
    assert [-1, -1, -1] == index.find(hashes).tolist()
