"""Combinations of segments: few bytes, many rows."""

from __future__ import annotations

import numpy as np
import pytest

from service.ingest import slices
from service.ingest.slices import Slices

NAMES = ("plan", "region")


def test_a_code_says_what_guards_name_and_no_more() -> None:
    """If this breaks, segments that nobody watches make combinations without end."""
    held = Slices()
    code = held.code(NAMES, {"region": "eu", "user": "ann"})
    assert {"region": "eu"} == held.values(code)
    assert code == held.code(NAMES, {"user": "bob", "region": "eu"})
    assert [0, 0, 0] == [held.code(NAMES, said) for said in (None, {}, {"user": "ann"})]
    assert {} == held.values(0)


def test_long_values_keep_their_equality() -> None:
    """If this breaks, two values are watched as one, or one value fills the memory."""
    held = Slices()
    one, other = (held.code(NAMES, {"plan": "x" * 5000 + end}) for end in ("", "y"))
    assert one == held.code(NAMES, {"plan": "x" * 5000}) != other
    assert len(held.values(one)["plan"]) <= 128
    assert 0 == held.dropped


def test_numbers_are_understood_by_another_process() -> None:
    """If this breaks, a restart puts predictions in segments that are not theirs."""
    held, again = Slices(), Slices()
    again.code(NAMES, {"plan": "else"})
    codes = np.array(
        [
            held.code(NAMES, s)
            for s in ({"plan": "a"}, {"plan": "b"}, None, {"plan": "c"}, {"plan": "b"})
        ],
        "<u2",
    )
    numbers, kept = held.numbered(codes[1:])
    assert [1, 0, 2, 1] == numbers.tolist()
    restored = [0, *map(again.add, kept)]
    assert [{"plan": "b"}, {}, {"plan": "c"}, {"plan": "b"}] == [
        again.values(restored[number]) for number in numbers.tolist()
    ]


def test_forgotten_codes_are_used_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, a partition that lives long has no room for the segments of today."""
    monkeypatch.setattr(slices, "FULL", 3)
    held = Slices()
    codes = [held.code(NAMES, {"plan": name}) for name in "abcd"]
    assert held.crowded
    held.sweep(np.array([codes[1], 0, codes[3]], "<u2"))
    again = [held.code(NAMES, {"plan": name}) for name in "badxyz"]
    assert [codes[1], codes[3]] == [again[0], again[2]]
    assert len(set(again)) == 6
    assert {0, *again} <= set(range(7))
    assert [{"plan": name} for name in "badxyz"] == [held.values(code) for code in again]
