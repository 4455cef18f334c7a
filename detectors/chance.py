"""The saved form of a seeded generator, so that a restart draws what would have been drawn.

Python's generator is 625 words of 32 bits; as text of base 85 they take 3,125 characters. Drawing
all over again from the seed would be shorter, and would take a minute after a million rows.
"""

from __future__ import annotations

from base64 import b85decode, b85encode
from random import Random
from struct import pack, unpack

_WORDS = "<625I"


def saved_draws(generator: Random) -> str:
    """Where a generator stands.

    >>> left, right = Random(1), Random(2)
    >>> load_draws(right, saved_draws(left))
    >>> left.random() == right.random()
    True
    """
    return b85encode(pack(_WORDS, *generator.getstate()[1])).decode()


def load_draws(generator: Random, saved: str) -> None:
    """Put a generator where another stood; raises `ValueError` on a damaged text."""
    data = b85decode(saved)
    if len(data) != 4 * 625:
        raise ValueError(f"625 words expected, found {len(data)} bytes")
    generator.setstate((3, unpack(_WORDS, data), None))
