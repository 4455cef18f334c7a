"""Slices: the values of a segment that guards watch apart, in the order in which they came.

Why. A version that fails for one country alone hides in the mean of all. So a guard with `segment`
is one guard on all rows and one on each value besides.

How. Each slice is a test of its own and may alarm falsely, so the guard's error budget is shared:
half for all rows together, half evenly among `slices` places. A value takes a place with its first
row, for as long as the model lives; the share of a place does not depend on what its rows said, so
the parts always sum to the guard's budget. A guard of a version begins with the version's first row
in that slice.

Refused here: more values than places. Their rows still count for all rows together; they are
counted, and the verdict says so.
"""

from __future__ import annotations

from math import inf
from typing import NamedTuple

import numpy as np

from schemas.policies import GuardSpec, Policy
from schemas.verdicts import GuardVerdict
from service.watch.state import Model, Version
from service.watch.tables import Table

MOST_TOLD = 8
"""Slices of one guard that a verdict lists."""


class Slice(NamedTuple):
    """One value of a segment."""

    segment: str
    value: str

    def __str__(self) -> str:
        return f"{self.segment}={self.value}"


def name_of(spec: GuardSpec, part: Slice | None) -> str:
    """A guard's name in reports, for all rows or for one slice.

    >>> errors = GuardSpec(signal="error_rate", max=0.05, segment="country")
    >>> name_of(errors, None), name_of(errors, Slice("country", "DE"))
    ('error_rate max=0.05 [country]', 'error_rate max=0.05 [country=DE]')
    """
    if part is None:
        return spec.label
    return f"{spec.label.removesuffix(f' [{part.segment}]')} [{part}]"


def places(policy: Policy) -> dict[str, int]:
    """Segments that a policy's guards watch apart, with the most places of any of them."""
    most: dict[str, int] = {}
    for spec in policy.guards:
        if spec.segment is not None:
            most[spec.segment] = max(most.get(spec.segment, 0), spec.slices)
    return most


def meet(model: Model, table: Table, policy: Policy) -> bool:
    """Let new values of a table take their places; True when a version met a new slice.

    Rows of values that find none are counted.
    """
    met = False
    for segment, most in places(policy).items():
        codes = table.segments.get(segment)
        if codes is None:
            continue
        held = model.slices.setdefault(segment, [])
        both = np.stack([codes, table.version])
        pairs, first = np.unique(both, axis=1, return_index=True)
        for code, version in pairs[:, np.argsort(first)].T.tolist():
            if not code:
                continue
            value = table.classes[code - 1]
            if value not in held and len(held) < most:
                held.append(value)
            if value in held:
                met |= _begin(model.version(table.versions[version]), segment, value)
    if table.sort == "served":
        _count_beyond(model, table, policy)
    return met


def _count_beyond(model: Model, table: Table, policy: Policy) -> None:
    for spec in policy.guards:
        codes = table.segments.get(spec.segment or "")
        if codes is None or spec.segment is None:
            continue
        held = model.slices.get(spec.segment, [])[: spec.slices]
        known = [table.classes.index(value) + 1 for value in held if value in table.classes]
        beyond = int(np.count_nonzero((codes > 0) & ~np.isin(codes, known)))
        if beyond:
            model.beyond[spec.label] = model.beyond.get(spec.label, 0) + beyond


def _begin(version: Version, segment: str, value: str) -> bool:
    seen = version.slices.setdefault(segment, [])
    if value in seen:
        return False
    seen.append(value)
    return True


def slices_of(spec: GuardSpec, model: Model, version: str) -> list[Slice]:
    """The slices in which a guard judges a version now, in the order of their places."""
    known = model.versions.get(version)
    if spec.segment is None or known is None:
        return []
    seen = known.slices.get(spec.segment, [])
    held = model.slices.get(spec.segment, [])[: spec.slices]
    return [Slice(spec.segment, value) for value in held if value in seen]


def told(entries: list[GuardVerdict]) -> list[GuardVerdict]:
    """What a verdict lists: of each guard all rows together, and the worst slices.

    The entry of all rows says how many slices are judged, so that nothing is left out in silence.
    """
    by_guard: dict[str, list[GuardVerdict]] = {}
    for entry in entries:
        if entry.slice:
            by_guard.setdefault(entry.guard, []).append(entry)
    worst = {
        entry.name for own in by_guard.values() for entry in sorted(own, key=_rank)[:MOST_TOLD]
    }
    return [entry for entry in entries if not entry.slice or entry.name in worst]


def _rank(entry: GuardVerdict) -> tuple[bool, float, str]:
    """Worst first: breaches, then by evidence; names decide ties."""
    evidence = -inf if entry.evidence is None else entry.evidence
    return entry.verdict != "breach", -evidence, entry.name
