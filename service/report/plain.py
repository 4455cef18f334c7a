"""Text from outside, without what no document may hold and what misleads the eye."""

from __future__ import annotations

_HIDDEN = frozenset(
    "\x7f\ufffe\uffff\u200b\u200c\u200d\u2060\ufeff\u202a\u202b\u202c\u202d\u202e"
    "\u2066\u2067\u2068\u2069"
)
"""Zero-width signs, and marks that turn text around."""


def clean(text: str) -> str:
    """Leave out control signs, lone surrogates, zero-width signs and marks of direction.

    Examples
    --------
    >>> clean("v2\\x00\\u202e")
    'v2'
    """
    return "".join(sign for sign in text if sign in "\n\t" or _shown(sign))


def _shown(sign: str) -> bool:
    return sign >= " " and sign not in _HIDDEN and not 0xD800 <= ord(sign) < 0xE000
