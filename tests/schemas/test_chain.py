"""The hash chain: what is done to a log afterwards shows, and where."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.chain import START, Anchor, Link, hash_after, walk


def a_chain(entries: list[bytes]) -> list[Link]:
    """The links of a log with these entries."""
    links, previous = [], START
    for sequence, entry in enumerate(entries, 1):
        previous = hash_after(previous, sequence, entry)
        links.append(Link(sequence, entry, previous))
    return links


def an_anchor(links: list[Link], size: int) -> Anchor:
    """What was said of a log when it had so many entries."""
    return Anchor(size=size, head=links[size - 1].hash.hex(), at=1, log=links[0].hash.hex())


LOG = a_chain([f"entry {n}".encode() for n in range(1, 21)])


def test_an_untouched_log_is_intact_and_vouched_for() -> None:
    """If this breaks, an honest record is called forged."""
    walked = walk(LOG, [an_anchor(LOG, 5), an_anchor(LOG, 18)])

    assert (20, [], 18) == walked


def test_an_edit_is_found_at_its_place() -> None:
    """If this breaks, the reason of a rollback can be rewritten afterwards."""
    edited = [*LOG[:7], LOG[7]._replace(entry=b"nothing happened"), *LOG[8:]]

    assert ["entry 8: its content or its place is not what was recorded"] == walk(edited, []).faults


def test_a_deleted_entry_is_named() -> None:
    """If this breaks, an inconvenient entry can be taken out."""
    faults = walk([*LOG[:7], *LOG[8:]], []).faults

    assert "entry 8: missing, the log goes on with 9" == faults[0]


def test_a_cut_tail_is_found_by_an_anchor_only() -> None:
    """If this breaks, the last night can be cut off: a chain alone cannot know its own end."""
    cut = LOG[:15]

    assert [] == walk(cut, []).faults
    assert ["entry 16 to 18: missing at the end, though an anchor vouches for them "
            "(signed at 1 ms)"] == walk(cut, [an_anchor(LOG, 18)]).faults  # fmt: skip


def test_a_log_that_was_computed_anew_is_found_by_an_anchor() -> None:
    """If this breaks, whoever owns the database owns the past."""
    forged = a_chain([link.entry if link.sequence != 3 else b"x" for link in LOG])

    assert [] == walk(forged, []).faults
    (fault,) = walk(forged, [an_anchor(LOG, 18)]).faults
    assert fault.startswith("entry 18: its hash is not the one that an anchor vouches for")


@given(st.integers(0, 2**32))
def test_no_random_attack_goes_unseen(seed: int) -> None:
    """If this breaks, some way of tampering leaves no trace."""
    chance = random.Random(seed)
    links = list(LOG)
    attack = chance.choice(["edit", "delete", "swap", "cut", "anew", "hash", "twice"])
    at = chance.randrange(len(links) - 3)
    if attack == "edit":
        links[at] = links[at]._replace(entry=chance.randbytes(8))
    elif attack == "delete":
        del links[at]
    elif attack == "swap":
        links[at], links[at + 1] = (
            links[at + 1]._replace(sequence=at + 1), links[at]._replace(sequence=at + 2)
        )  # fmt: skip
    elif attack == "cut":
        links = links[: at + 1]
    elif attack == "anew":
        links = a_chain([*(x.entry for x in links[:at]), b"new", *(x.entry for x in links[at:])])
    elif attack == "hash":
        links[at] = links[at]._replace(hash=chance.randbytes(32))
    else:
        links.insert(at, links[at])

    assert walk(links, [an_anchor(LOG, 18)]).faults
