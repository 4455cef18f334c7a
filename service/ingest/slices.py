"""Which segments a prediction is in, as one code: combinations of values, each kept once.

Why. Guards watch slices of traffic apart, so a row has to know its segments until its last word;
names and values at each row would cost more than all the rest of it.

How. Only segments that a guard of the model names count. A row holds the code of its combination,
0 for none. Codes mean nothing outside this process; a freed one is used again.

Refused here: more than `MOST` combinations at once, so that nobody fills the memory with values
that are all different. Predictions beyond are in no segment, and are counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from service.ingest.texts import shortened

Slice = tuple[tuple[str, str], ...]
"""Names and values, in order of the names."""

Codes = NDArray[np.uint16]

MOST = 65_535
"""What two bytes tell apart."""
FULL = (MOST * 7) // 8
"""From here on every chance to forget is taken."""


class Slices:
    """Codes of combinations."""

    def __init__(self) -> None:
        self._codes: dict[Slice, int] = {}
        self._slices: dict[int, Slice] = {0: ()}
        self._free: list[int] = []
        self._swept = 0
        self.dropped = 0
        """Predictions for whose combination there was no room; the reader sets it back."""

    def code(self, names: Sequence[str], segments: Mapping[str, str] | None) -> int:
        """Give the code of what a prediction says of these segments; 0 when it says nothing."""
        if not segments:
            return 0
        held = tuple([(name, segments[name]) for name in names if name in segments])
        found = self._codes.get(held)
        if found is not None or not held:
            return found or 0
        code = self.add(tuple((name, shortened(value)) for name, value in held))
        self.dropped += code == 0
        return code

    def add(self, held: Slice) -> int:
        """Give the code of a combination; 0 when there is no room."""
        code = self._codes.get(held)
        if code is None:
            if len(self._codes) >= MOST:
                return 0
            code = self._free.pop() if self._free else len(self._codes) + 1
            self._codes[held] = code
            self._slices[code] = held
        return code

    def values(self, code: int) -> dict[str, str]:
        """Values by name."""
        return dict(self._slices[code])

    def numbered(self, codes: Codes) -> tuple[Codes, list[Slice]]:
        """Number combinations from 1 in a way that others understand who have the list."""
        used = np.unique(codes[codes > 0])
        numbers = np.where(codes > 0, np.searchsorted(used, codes) + 1, 0)
        return numbers.astype(np.uint16), [self._slices[code] for code in used.tolist()]

    @property
    def crowded(self) -> bool:
        """Whether it has doubled since it was swept, or is nearly full."""
        return len(self._codes) > min(10_000 + 2 * self._swept, FULL)

    def sweep(self, used: Codes) -> None:
        """Forget all combinations but those with these codes."""
        keep = np.bincount(used, minlength=MOST + 1) > 0
        for held, code in [(held, code) for held, code in self._codes.items() if not keep[code]]:
            del self._codes[held], self._slices[code]
            self._free.append(code)
        self._swept = len(self._codes)
