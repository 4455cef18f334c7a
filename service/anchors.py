"""Signed anchors of the incident log, as they are written and read again; see `schemas/chain.py`.

Refused here: any anchor whose signature no trusted key gave. It is named as a fault and counts for
nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import msgspec

from schemas.chain import Anchor, SignedAnchor
from service.signing import KEY_HEADER, SIGNATURE_HEADER, Headers, Signer, Verifier

TOPIC = "anchors"


def sign(anchor: Anchor, signer: Signer) -> SignedAnchor:
    """Sign an anchor."""
    found = dict(signer.sign(msgspec.json.encode(anchor)))
    return SignedAnchor(
        anchor=anchor, key=found[KEY_HEADER].decode(), signature=found[SIGNATURE_HEADER].hex()
    )


def append_line(file: Path, signed: SignedAnchor) -> None:
    """Add an anchor to a file, durably; the file is made when it is missing."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("ab") as target:
        target.write(msgspec.json.encode(signed) + b"\n")
        target.flush()
        os.fsync(target.fileno())


class Checked(msgspec.Struct):
    """Anchors whose signature holds, and what is wrong with the others."""

    anchors: list[Anchor]
    faults: list[str]


def from_lines(lines: Iterable[bytes], verifier: Verifier, place: str) -> Checked:
    """Read anchors from a file's lines; `place` names the file."""
    return _checked(_of_lines(lines), verifier, place)


def from_topic(found: Iterable[tuple[int, bytes, Headers]], verifier: Verifier) -> Checked:
    """Read anchors from the topic: offset, value and headers of each message."""
    return _checked(found, verifier, TOPIC)


def _of_lines(lines: Iterable[bytes]) -> Iterator[tuple[int, bytes, Headers]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            signed = msgspec.json.decode(line, type=SignedAnchor)
            signature = bytes.fromhex(signed.signature)
        except (msgspec.MsgspecError, ValueError):
            yield number, line, ()
            continue
        headers = ((KEY_HEADER, signed.key.encode()), (SIGNATURE_HEADER, signature))
        yield number, signed.signed_bytes(), headers


def _checked(
    found: Iterable[tuple[int, bytes, Headers]], verifier: Verifier, place: str
) -> Checked:
    checked = Checked([], [])
    for number, data, headers in found:
        reason = verifier.verify(data, headers)
        if reason is None:
            try:
                checked.anchors.append(msgspec.json.decode(data, type=Anchor))
                continue
            except msgspec.MsgspecError as fault:
                reason = str(fault)
        reason = reason.replace("the command's", "its").replace("the command", "it")
        checked.faults.append(f"anchor {number} of {place}: {reason}")
    return checked
