"""Signed anchors of the incident log leave the database: to a topic, a file and the daemon's log.

Why. Whoever can rewrite the database can compute its hash chain anew; what they cannot do is take
back what lies elsewhere already. `rollbackd incidents verify` holds the log against these anchors.

How. One leader, every few minutes: when the log has grown, say how many entries it has and its last
hash, signed with `record`'s own key (not the one that signs commands). The file is only appended
to; put it on storage that cannot be written twice.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import structlog

from service.anchors import TOPIC, append_line, sign
from service.clock import Clock
from service.engine.base import Engine, Message
from service.signing import KEY_HEADER, SIGNATURE_HEADER, Signer
from service.storage.incident_log import IncidentLog

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
