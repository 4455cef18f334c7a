"""Classes that are no numbers, kept once: a row holds a code.

A class of more than `LONGEST` characters (free text) is kept as its beginning and a digest, so that
equal texts stay equal and unequal ones unequal. Codes mean nothing outside this process.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

LONGEST = 128
_KEPT = 96


class Values(NamedTuple):
    """A column of numbers and texts, of equal length."""

    numbers: Floats
    """The number, the code of the text, or NaN where there is neither."""
    is_text: NDArray[np.bool_]


def shortened(text: str) -> str:
    """A text as it is kept: equal ones equal, unequal ones unequal, at most `LONGEST` long."""
    if len(text) <= LONGEST:
        return text
    return f"{text[:_KEPT]}… {sha256(text.encode()).hexdigest()[:24]}"


class Texts:
    """Codes of texts."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        self._next = 0
        self._swept = 0

    def encode(self, values: Sequence[float | str | None]) -> Values:
        """Turn wire values into a column."""
        if str not in set(map(type, values)):  # numpy would also read the text "1.5"
            return Values(np.array(values, np.float64), np.zeros(len(values), np.bool_))
        numbers = [self._code(v) if isinstance(v, str) else v for v in values]
        is_text = np.array([isinstance(v, str) for v in values], np.bool_)
        return Values(np.array(numbers, np.float64), is_text)

    def decode(self, values: Values) -> list[str | None] | None:
        """Texts of a column, None at numbers; None when there is no text at all."""
        if not values.is_text.any():
            return None
        texts = self._texts
        return [
            texts[int(code)] if is_text else None
            for code, is_text in zip(values.numbers.tolist(), values.is_text.tolist(), strict=True)
        ]

    def _code(self, text: str) -> float:
        text = shortened(text)
        code = self._codes.get(text)
        if code is None:
            code = self._codes[text] = self._next
            self._texts[code] = text
            self._next += 1
        return float(code)

    @property
    def crowded(self) -> bool:
        """Whether it has doubled since it was swept."""
        return len(self._codes) > 10_000 + 2 * self._swept

    def sweep(self, used: Floats) -> None:
        """Forget all texts but those with these codes."""
        keep = {int(code) for code in np.unique(used)}
        self._texts = {code: text for code, text in self._texts.items() if code in keep}
        self._codes = {text: code for code, text in self._texts.items()}
        self._swept = len(self._codes)
