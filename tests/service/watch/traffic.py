"""Builders of what `ingest` says: seeded observation messages of one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np

import detectors
from schemas.events import Rollout
from schemas.facts import Breach, Progress, Receipt
from schemas.observations import Block, Observations, dtype_of
from schemas.plugins import Registry
from schemas.policies import GuardSpec, Policy
from service.watch.order import Said, Wall
from service.watch.step import Book

START_MS = 1_767_225_600_000
REGISTRY = Registry.of(detectors)
ERROR_RATE = GuardSpec(signal="error_rate", max=0.05)


def a_policy(**changes: Any) -> Policy:
    """An enforcing policy with one guard on errors."""
    given: dict[str, Any] = {"model": "credit-risk", "mode": "enforce", "guards": [ERROR_RATE]}
    return Policy(**(given | changes))


def a_book(policy: Policy | None = None) -> Book:
    """An empty book."""
    return Book([policy or a_policy()], REGISTRY, "digest")


def a_rollout(at_ms: int = START_MS, **changes: Any) -> Rollout:
    """v42 is canary of v41 at a tenth."""
    given: dict[str, Any] = {
        "model": "credit-risk", "stable": "v41", "canary": "v42", "weight": 0.1, "at": at_ms,
    }  # fmt: skip
    return Rollout(**(given | changes))


def a_block(kind: str = "served", topic: str = "predictions", **columns: Any) -> Block:
    """Columns of one block; every column has as many values as `offset`."""
    packed = {
        name: np.asarray(values, dtype_of(name)).tobytes() for name, values in columns.items()
    }
    return Block(kind, topic, len(columns["offset"]), packed)


def a_message(*blocks: Block, watermark_ms: int = START_MS, **changes: Any) -> Observations:
    """One message about the model from source partition 0."""
    given: dict[str, Any] = {
        "model": "credit-risk", "partition": 0, "streams": {"predictions": "p", "outcomes": "o"},
        "watermark_ms": watermark_ms, "versions": ["v41", "v42"], "classes": [],
        "blocks": list(blocks), "counts": {},
    }  # fmt: skip
    return Observations(**(given | changes))


def in_pieces(message: Observations, rows: int) -> list[Observations]:
    """The same rows of a message of one block, a few at a time; each says its own watermark."""
    (block,) = message.blocks
    pieces = []
    for at in range(0, block.count, rows):
        columns = {
            name: np.frombuffer(data, dtype_of(name))[at : at + rows]
            for name, data in block.columns.items()
        }
        last = at + rows >= block.count
        mark_ms = message.watermark_ms if last else int(columns["served_ms"].max())
        piece = a_block(block.kind, block.topic, **columns)
        pieces.append(msgspec.structs.replace(message, blocks=[piece], watermark_ms=mark_ms))
    return pieces


def restarted(book: Book, policy: Policy) -> Book:
    """Another owner's book, from what the first one stored."""
    other = a_book(policy)
    other.restore({key: book.save(key) for key in ["", *book.models]})
    return other


def a_tick(watermark_ms: int) -> Observations:
    """Time passes and nothing else."""
    return a_message(watermark_ms=watermark_ms, model="")


class Traffic:
    """Seeded predictions of v41 and v42, a hundred a second, in messages of a hundred."""

    def __init__(self, seed: int = 7, share: float = 0.1) -> None:
        self._random = np.random.default_rng(seed)
        self._share, self._offset = share, 0
        self.now_ms = START_MS

    def second(self, bad: Mapping[str, float], share: float | None = None) -> Observations:
        """One second of served rows; `bad` is each version's error rate."""
        n = 100
        version = (self._random.random(n) < (self._share if share is None else share)).astype(int)
        chance = np.array([bad.get("v41", 0.0), bad.get("v42", 0.0)])[version]
        error = self._random.random(n) < chance
        offset = np.arange(self._offset, self._offset + n)
        served = self.now_ms + np.arange(n) * 10
        self._offset += n
        self.now_ms += 1000
        block = a_block(offset=offset, served_ms=served, version=version, error=error)
        return a_message(block, watermark_ms=int(served[-1]))


def play(book: Book, messages: list[Observations], held: str | None = None) -> list[Said]:
    """Feed messages as a worker would, at the wall time of their events."""
    said: list[Said] = []
    for message in messages:
        said += book.observe(message, message.watermark_ms)
        wall = a_wall(message.watermark_ms)
        for wanting in list(book.wanting()):
            said += book.act(wanting, wall, held)
    return said


def a_wall(now_ms: int) -> Wall:
    """Where the shell stands."""
    return Wall(now_ms, 1, "digest")


def a_receipt(book: Book, now_ms: int, **changes: Any) -> Receipt:
    """The platform's answer to the last command of the only case."""
    (case,) = book.models["credit-risk"].cases.values()
    given: dict[str, Any] = {
        "command_id": case.commands[-1], "status": "applied", "before": {}, "after": {},
        "detail": {}, "adapter": "prod", "started_at": now_ms, "finished_at": now_ms,
        "attempts": 1, "model": "credit-risk", "incident_id": case.incident_id,
    }  # fmt: skip
    return Receipt(**(given | changes))


def kinds(said: list[Said]) -> list[str]:
    """What was said, as words, verdicts left out."""
    words = []
    for fact in said:
        if isinstance(fact, Breach):
            words.append("breach")
        elif isinstance(fact, Progress):
            words.append(f"{fact.kind}:{fact.reason}")
        elif hasattr(fact, "action"):
            words.append(str(fact.action))
    return words
