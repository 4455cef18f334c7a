"""A text that must never be shown: not in logs, errors, metrics, receipts or pages."""

from __future__ import annotations


class Secret:
    """Holds a secret; only `reveal` gives it.

    Examples
    --------
    >>> f"{Secret('hunter2')!r}"
    'Secret(***)'
    """

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """Give the secret itself, for the one call that needs it."""
        return self._value

    def __repr__(self) -> str:
        return "Secret(***)"

    __str__ = __repr__

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(("secret", self._value))
