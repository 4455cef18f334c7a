"""The incident log as a hash chain, and the signed anchors that vouch for it from outside.

Why. Who can write to the database could edit a bad night afterwards. Each entry therefore carries a
hash over its own bytes and the hash before it; an edit, a deletion or a swap breaks the chain at
its place. A chain alone does not show that its end was cut off, or that all of it was computed
anew: for that an *anchor* (how many entries, the last hash, when; signed) leaves the database from
time to time, to a topic and, if wanted, to a file on other storage.

How. digest = SHA-256(entry bytes); hash = SHA-256(hash before, sequence as 8 bytes, digest). The
chain begins at 32 zero bytes and sequence numbers have no gaps.

Refused here: reading or writing anything; keys (`service/signing.py`).

References
----------
Crosby and Wallach, "Efficient Data Structures for Tamper-Evident Logging", USENIX Security 2009.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import msgspec
from msgspec import Struct

START = bytes(32)
"""The hash before the first entry."""


class Link(NamedTuple):
    """One entry as it is stored."""

    sequence: int
    """From 1, without gaps."""
    entry: bytes
    hash: bytes
    """32 bytes."""


class Anchor(Struct, frozen=True, kw_only=True):
    """What the log was at one moment."""

    size: int
    """How many entries."""
    head: str
    """Hash of the last one, hexadecimal."""
    at: int
    """Wall time, epoch ms."""
    log: str
    """Hash of the first entry, hexadecimal: which log this is."""


class SignedAnchor(Struct, frozen=True, kw_only=True):
    """An anchor as it lies in a file: one JSON object a line."""

    anchor: Anchor
    key: str
    """Name of the key that signed it."""
    signature: str
    """Ed25519 over the anchor's JSON bytes, hexadecimal."""

    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return msgspec.json.encode(self.anchor)


def hash_after(previous: bytes, sequence: int, entry: bytes) -> bytes:
    """Hash of an entry that follows the one with the hash `previous`.

    Examples
    --------
    >>> hash_after(START, 1, b"opened").hex()[:16]
    '28bd9e136d3e8583'
    """
    digest = hashlib.sha256(entry).digest()
    return hashlib.sha256(previous + sequence.to_bytes(8, "big") + digest).digest()


class Walked(NamedTuple):
    """What a walk along the chain found."""

    entries: int
    faults: list[str]
    """One sentence each: what is wrong, and where."""
    vouched: int
    """Entries that the newest fitting anchor vouches for."""


def walk(links: Iterable[Link], anchors: Iterable[Anchor]) -> Walked:
    """Follow the chain from its start and hold it against the anchors.

    Parameters
    ----------
    links : iterable of Link
        In order of their sequence.
    anchors : iterable of Anchor
        Whose signatures were checked; in any order.
    """
    wanted: dict[int, list[Anchor]] = {}
    for anchor in anchors:
        wanted.setdefault(anchor.size, []).append(anchor)
    faults: list[str] = []
    previous, last, vouched = START, 0, 0
    for link in links:
        faults += _faults_of_link(link, previous, last)
        previous, last = link.hash, link.sequence
        for anchor in wanted.pop(link.sequence, []):
            if anchor.head == link.hash.hex():
                vouched = max(vouched, link.sequence)
            else:
                faults.append(
                    f"entry {link.sequence}: its hash is not the one that an anchor vouches for "
                    f"(signed at {anchor.at} ms); the log was written anew up to here"
                )
    faults += _beyond(wanted, last)
    return Walked(last, faults, vouched)


def _faults_of_link(link: Link, previous: bytes, last: int) -> Iterator[str]:
    if link.sequence != last + 1:
        missing = (
            f"{last + 1}" if link.sequence == last + 2 else f"{last + 1} to {link.sequence - 1}"
        )
        yield f"entry {missing}: missing, the log goes on with {link.sequence}"
    elif link.hash != hash_after(previous, link.sequence, link.entry):
        yield f"entry {link.sequence}: its content or its place is not what was recorded"


def _beyond(wanted: dict[int, list[Anchor]], last: int) -> Iterator[str]:
    """Anchors that vouch for more than there is."""
    for size in sorted(size for size in wanted if size > last)[-1:]:
        at = wanted[size][0].at
        yield (
            f"entry {last + 1} to {size}: missing at the end, though an anchor vouches for them "
            f"(signed at {at} ms)"
        )
