"""Signed anchors of the incident log leave the database: to a topic, a file and the daemon's log.

Why. Whoever can rewrite the database can compute its hash chain anew; what they cannot do is take
back what lies elsewhere already. `rollbackd incidents verify` holds the log against these anchors.

How. One leader, every few minutes: when the log has grown, say how many entries it has and its last
hash, signed with `record`'s own key (not the one that signs commands). The file is only appended
to; put it on storage that cannot be written twice.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import structlog

from schemas.chain import Anchor, SignedAnchor
from service.clock import Clock
from service.engine.base import Engine, Headers, Message, Record
from service.signing import KEY_HEADER, SIGNATURE_HEADER, Signer, Verifier
from service.storage.incident_log import IncidentLog

TOPIC = "anchors"
logs: Any = structlog.get_logger("record")


class Anchoring:
    """Says now and then what the log is; `say` is run by one leader."""

    def __init__(
        self, engine: Engine, clock: Clock, log: IncidentLog, signer: Signer, file: Path | None
    ) -> None:
        self._engine, self._clock, self._log = engine, clock, log
        self._signer, self._file = signer, file
        self._said = 0

    def register(self, every_s: float) -> None:
        """Ask the engine to call `say` every so often, in one process alone."""
        self._engine.lead("anchor", every_s, self.say)

    async def say(self) -> None:
        """Anchor the log if it has grown."""
        anchor = await asyncio.to_thread(self._log.anchor, self._clock.now_ms())
        if anchor is None or anchor.size == self._said:
            return
        signed = sign(anchor, self._signer)
        headers = ((KEY_HEADER, signed.key.encode()),
                   (SIGNATURE_HEADER, bytes.fromhex(signed.signature)))  # fmt: skip
        message = Message(anchor.log.encode(), signed.signed_bytes(), headers=headers)
        await self._engine.append(TOPIC, [message])
        if self._file is not None:
            await asyncio.to_thread(append_line, self._file, signed)
        logs.info("incident log anchored", size=anchor.size, head=anchor.head, key=signed.key)
        self._said = anchor.size


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


def from_records(records: Iterable[Record], verifier: Verifier) -> Checked:
    """Read anchors from the topic."""
    return _checked(((r.offset, r.value, r.headers) for r in records), verifier, TOPIC)


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
