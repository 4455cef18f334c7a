"""Models and versions as numbers, with what policies and the join know of each.

Columns hold a model's number and the number of a version within its model. Both are durable and
never used again for another name. Their count is bounded: whoever can write events must not fill
the memory with names, so events beyond the bound are refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from schemas.events import Prediction
from schemas.policies import Policy, policy_for
from service.ingest.find import Ints

COUNTS = ("duplicates", "corrections", "late", "orphans")
DUPLICATE, CORRECTION, LATE, ORPHAN = range(4)

HORIZON_MS = 7 * 86_400_000
"""Horizon of a model without a policy."""

MOST_MODELS = 10_000
MOST_VERSIONS = 60_000

NO_ROOM = f"no room: more than {MOST_MODELS} models or {MOST_VERSIONS} versions of one model"


class Named(NamedTuple):
    """Columns of one window's predictions."""

    model: Ints
    version: Ints
    refused: list[int]
    """Places of events for whose names there is no room; the columns are without them."""


class Models:
    """Names, horizons and running totals of one partition."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = list(policies)
        self._codes: dict[str, dict[str, int]] = {}
        self.index: dict[str, int] = {}
        self.names: list[str] = []
        self.versions: list[list[str]] = []
        self.features: list[tuple[str, ...]] = []
        self.segments: list[tuple[str, ...]] = []
        """Names of segments that a guard of the model watches apart."""
        self.by_unit: list[bool] = []
        self.horizon_ms: Ints = np.zeros(16, np.int64)
        self.due_s: Ints = np.zeros(16, np.int64)
        """Latest `due_s` of a model's predictions: expiry keeps their order."""
        self.counts: NDArray[np.int64] = np.zeros((16, len(COUNTS)), np.int64)
        self.changed: set[int] = set()
        self.counted: set[int] = set()

    def named(self, events: Sequence[Prediction]) -> Named:
        """Give the numbers of models and versions; new ones get the next."""
        codes = self._codes
        try:
            both = [codes[event.model][event.version] for event in events]
            refused: list[int] = []
        except KeyError:
            refused = [at for at, e in enumerate(events) if not self._learn(e.model, e.version)]
            bad = set(refused)
            both = [codes[e.model][e.version] for at, e in enumerate(events) if at not in bad]
        column = np.array(both, np.int64)
        return Named(column >> 16, column & 0xFFFF, refused)

    def horizon_of(self, model: str | None) -> int:
        """Horizon of a model that may be unknown, in ms."""
        policy = policy_for(self._policies, model) if model is not None else None
        return policy.horizon.ms if policy is not None else HORIZON_MS

    def count(self, model: int, what: int, more: int = 1) -> None:
        """Add to a running total."""
        self.counts[model, what] += more
        self.counted.add(model)
        self.changed.add(model)

    def totals(self, model: int) -> dict[str, int]:
        """The running totals that are not zero."""
        return {n: c for n, c in zip(COUNTS, self.counts[model].tolist(), strict=True) if c}

    def dump(self, model: int) -> bytes:
        """One model for the store."""
        return msgspec.msgpack.encode((
            self.names[model], self.versions[model], int(self.due_s[model]),
            self.counts[model].tolist(),
        ))  # fmt: skip

    def restore(self, data: bytes) -> None:
        """Take one model from the store; they must come in order of their numbers."""
        name, versions, due_s, counts = msgspec.msgpack.decode(
            data, type=tuple[str, list[str], int, list[int]]
        )
        for version in versions:
            self._learn(name, version)
        self.due_s[self.index[name]] = due_s
        self.counts[self.index[name]] = counts

    def _learn(self, model: str, version: str) -> bool:
        """Give numbers to a model and a version; False when there is no room."""
        known = self._codes.get(model)
        if known is None:
            if len(self.names) >= MOST_MODELS:
                return False
            known = self._add(model)
        number = self.index[model]
        if version not in known:
            if len(known) >= MOST_VERSIONS:
                return False
            known[version] = number << 16 | len(known)
            self.versions[number].append(version)
            self.changed.add(number)
        return True

    def _add(self, model: str) -> dict[str, int]:
        number = self.index[model] = len(self.names)
        policy = policy_for(self._policies, model)
        guards = policy.guards if policy is not None else []
        signals = [guard.signal for guard in guards]
        self.names.append(model)
        self.versions.append([])
        self.features.append(
            tuple(sorted({s.removeprefix("feature:") for s in signals if s.startswith("feature:")}))
        )
        self.segments.append(tuple(sorted({g.segment for g in guards if g.segment is not None})))
        self.by_unit.append(policy is not None and policy.votes != "prediction")
        if number >= len(self.horizon_ms):
            more = max(16, number)
            self.horizon_ms = np.append(self.horizon_ms, np.zeros(more, np.int64))
            self.due_s = np.append(self.due_s, np.zeros(more, np.int64))
            self.counts = np.vstack([self.counts, np.zeros((more, len(COUNTS)), np.int64)])
        self.horizon_ms[number] = self.horizon_of(model)
        return self._codes.setdefault(model, {})


def unit_hash(unit: str | None) -> int:
    """32 bits of a unit's name, the same in every process; 0 when it is absent."""
    if unit is None:
        return 0
    return int.from_bytes(blake2b(unit.encode(), digest_size=4).digest(), "little") or 1
