"""The shell of `act`: commands in, receipts and resulting rollouts out.

Order and at-least-once. One command after the other per partition: the handler returns, and the
position may pass, only when the receipt is on its topic. A redelivered command finds its receipt in
the store and is answered with the same one; one that died between write and receipt finds its
*writing* mark and reads the platform first. The price is plain: while a platform does not answer,
commands behind it in the same partition wait, at most until the first one's expiry plus its
settle time. A queue beside the log would have to be durable and owned to keep the same promise.

The order in which a command is judged:

    signature, form, key           dead letter, no receipt
    already answered               the stored receipt again
    write under way                resumed: read first; any write passes the last questions below
    adapter, words, mode           `refused` (`admit.py`)
    fence, expiry, hold, switch    `refused` or `expired`; asked again right before each write
    the platform                   `execute.py`

Doubt means no: a hold that cannot be read counts as held. After `applied` and `already_there` the
resulting rollout is published, so that `watch` knows who serves. That holds for the adapter
`dry_run` too: it answers as a platform would, and if traffic does not follow, `watch` says so. A
command marked `dry_run` only asks what would happen, and publishes nothing.

Refused here: deciding anything about a platform.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import msgspec
import structlog

from schemas.commands import Command, Hold
from schemas.events import Canary, Rollout
from schemas.facts import DeadLetter, Receipt
from schemas.ids import rollout_id
from service.act.adapters.base import Adapter
from service.act.admit import Live, Refuse, admit, fault_of_command, standing
from service.act.conclude import Course, Outcome, receipt_of
from service.act.execute import Execution, Tools
from service.clock import Clock
from service.crash import crash_point
from service.engine.base import Engine, Headers, Message, Record
from service.switch import pressed
from service.telemetry import Metrics

STAGE = "act"
DEAD_BYTES = 64 * 1024

log = structlog.get_logger(__name__)


class Holds(Protocol):
    """Where holds are looked up (`service/storage/holds.py`). Blocking."""

    def blocking(self, model: str, now_ms: int) -> Hold | None:
        """Give the hold that forbids automatic action on a model now."""
        ...


class Signatures(Protocol):
    """Who checks signatures (`service/signing.py`)."""

    def verify(self, data: bytes, headers: Headers) -> str | None:
        """Say why not, or None."""
        ...


class Receipts(Protocol):
    """What is remembered (`service/storage/receipts.py`). Blocking."""

    def fence(self, model: str) -> int: ...
    def raise_fence(self, model: str, fence: int) -> bool: ...
    def receipt(self, command_id: str) -> Receipt | None: ...
    def remember(self, receipt: Receipt) -> Receipt: ...
    def mark_writing(self, command_id: str, plan: Mapping[str, Any]) -> None: ...
    def writing(self, command_id: str) -> dict[str, Any] | None: ...


class Stops(NamedTuple):
    """What can forbid automatic action."""

    holds: Holds
    kill_switch_file: Path | None = None


class ActWorker:
    """Carries out commands. `register`, then run the engine.

    Parameters
    ----------
    adapters : mapping
        By the name that commands give; `dry_run` belongs in it.
    tools : Tools, optional
        Pauses and jitter of retries, for tests; made from the rest when left out.
    """

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        metrics: Metrics,
        adapters: Mapping[str, Adapter],
        receipts: Receipts,
        holds: Holds,
        verifier: Signatures,
        kill_switch_file: Path | None = None,
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._metrics = metrics
        self._adapters = dict(adapters)
        self._receipts = receipts
        self._stops = Stops(holds, kill_switch_file)
        self._verifier = verifier
        self.tools = Tools(clock, receipts, self._standing)

    def register(self) -> None:
        """Take commands from the engine."""
        self._engine.each("commands", self.handle, group=STAGE)

    async def handle(self, record: Record) -> None:
        """Carry out one command; returns when its receipt is on the topic."""
        self._metrics.received.labels(stage=STAGE).inc()
        command = await self._read(record)
        if command is None:
            return
        crash_point("K7")
        receipt = await asyncio.to_thread(self._receipts.receipt, command.command_id)
        if receipt is None:
            drafted = await self._carry_out(command)
            receipt = await asyncio.to_thread(self._receipts.remember, drafted)
            self._note(receipt)
        else:
            self._metrics.duplicates.labels(stage=STAGE).inc()
        await self._publish(receipt, command)
        crash_point("K11")

    async def _read(self, record: Record) -> Command | None:
        """Believe a message, or put it away with the reason."""
        fault = self._verifier.verify(record.value, record.headers)
        word = "signature"
        if fault is None:
            word = "form"
            try:
                command = msgspec.json.decode(record.value, type=Command)
                fault = fault_of_command(command, record.key)
                if fault is None:
                    return command
            except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as unreadable:
                fault = f"the command cannot be read: {unreadable}"
        letter = DeadLetter(
            reason=fault,
            topic=record.topic,
            partition=record.partition,
            offset=record.offset,
            at=self._clock.now_ms(),
            key=record.key,
            value=record.value[:DEAD_BYTES],
            size=len(record.value),
        )
        self._metrics.rejected.labels(stage=STAGE, reason=word).inc()
        log.warning("command refused", reason=fault, offset=record.offset)
        message = Message(record.topic.encode(), msgspec.json.encode(letter))
        await self._engine.append("dead-letters", [message])
        return None

    async def _carry_out(self, command: Command) -> Receipt:
        """Judge, then execute."""
        mark = await asyncio.to_thread(self._receipts.writing, command.command_id)
        await asyncio.to_thread(self._receipts.raise_fence, command.model, command.fence)
        adapter = self._adapters.get(command.adapter)
        if mark is None or adapter is None:
            answer = admit(command, await self._live(command))
            if isinstance(answer, Refuse):
                return self._refusal(command, answer)
        if adapter is None:  # it was there when the write began, and has left the settings
            text = "a write had begun, but its adapter is no longer in rollbackd.yaml"
            gone = Outcome("expired", "outcome_unknown", text, "unknown")
            return self._receipt(command, gone)
        return await Execution(self.tools, adapter, command, mark).run()

    async def _standing(self, command: Command) -> Refuse | None:
        """Ask again what can change until the last moment."""
        return standing(command, await self._live(command))

    async def _live(self, command: Command) -> Live:
        adapter = self._adapters.get(command.adapter)
        fence, stop = await asyncio.to_thread(self._look, command.model)
        can = None if adapter is None else adapter.can
        return Live(self._clock.now_ms(), fence, stop, can)

    def _look(self, model: str) -> tuple[int, str | None]:
        """Read fence and stops; blocking."""
        return self._receipts.fence(model), stop_of(self._stops, model, self._clock.now_ms())

    def _refusal(self, command: Command, refuse: Refuse) -> Receipt:
        outcome = Outcome(refuse.status, refuse.reason, refuse.text, rule=refuse.rule)
        return self._receipt(command, outcome)

    def _receipt(self, command: Command, outcome: Outcome) -> Receipt:
        now_ms = self._clock.now_ms()
        dry = command.dry_run
        return receipt_of(command, outcome, Course(now_ms, now_ms, dry=dry))

    async def _publish(self, receipt: Receipt, command: Command) -> None:
        """Append the receipt, then what serves now."""
        key = receipt.model.encode()
        await self._engine.append("receipts", [Message(key, msgspec.json.encode(receipt))])
        self._metrics.sent.labels(stage=STAGE).inc()
        if (rollout := rollout_of(receipt, command)) is not None:
            await self._engine.append("rollouts", [Message(key, msgspec.json.encode(rollout))])
            self._metrics.sent.labels(stage=STAGE).inc()

    def _note(self, receipt: Receipt) -> None:
        self._metrics.receipts.labels(status=receipt.status).inc()
        if rule := receipt.detail.get("rule"):
            self._metrics.refusals.labels(rule=rule).inc()
        log.info(
            "command carried out" if receipt.status == "applied" else "command ended",
            command_id=receipt.command_id,
            model=receipt.model,
            action=receipt.action,
            status=receipt.status,
            effect=receipt.detail.get("effect"),
            text=receipt.detail.get("text"),
            attempts=receipt.attempts,
        )


def stop_of(stops: Stops, model: str, now_ms: int) -> str | None:
    """Say why no automatic action may be taken on a model now, or None. Blocking."""
    if (reason := pressed(stops.kill_switch_file)) is not None:
        return reason
    try:
        hold = stops.holds.blocking(model, now_ms)
    except Exception as fault:  # whatever keeps a hold from being read, it may be there
        log.error("holds cannot be read, which counts as held", exc_info=fault)
        return f"holds cannot be read ({type(fault).__name__}), which counts as held"
    if hold is None:
        return None
    what = "all models" if hold.model == "*" else hold.model
    return f"{hold.actor} holds {what}: {hold.reason}"


def rollout_of(receipt: Receipt, command: Command) -> Rollout | None:
    """Say who serves after a command; None when it changed nothing that could be said."""
    if receipt.status not in ("applied", "already_there") or command.dry_run:
        return None
    if command.action == "hold":
        return None
    stable, canary, weight = command.to_version, None, None
    if command.action == "shift" and command.weight:
        canary, weight = command.from_version, command.weight
    others = [Canary(version, share) for version, share in command.keeps.items() if share > 0]
    if command.action == "promote":
        others = []
    elif canary is None and others:
        first = others.pop(0)
        canary, weight = first.version, first.weight
    return Rollout(
        model=command.model,
        stable=stable,
        canary=canary,
        weight=weight,
        canaries=others or None,
        at=receipt.finished_at,
        # A step of the same canary is the same rollout: its incidents and its proofs go on.
        rollout_id=command.rollout_id
        if command.action == "shift" and canary is not None and command.rollout_id
        else rollout_id(command.model, stable, canary, receipt.finished_at),
        source="rollbackd",
    )
