"""Weighted routes, as Istio and the Gateway API have them: read as shares, changed by JSON patch.

How. A resource holds routes, a route holds destinations with weights. A route that knows two or
more versions *splits*; shares are the mean over those. A route that sends only to one version (a
header or cookie match for testers) and a mirror are *side ways*: a version they reach still gets
requests when its weight is 0, so a rollback turns them too. Weights are changed in place and
nothing else: a list that is written as a whole would take somebody's new field away.

Each change is guarded: the resourceVersion, and a `test` of the destination's own name before its
index, so that a list that was reordered is a conflict and no wrong weight.

Refused here: weights that are all 0, a destination alone at weight 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from service.act.adapters.targets import shares_of


class Leg(NamedTuple):
    """One destination of one route."""

    path: str
    """JSON pointer."""
    version: str
    """A stranger has a name of its own."""
    weight: float
    tests: tuple[tuple[str, Any], ...]
    """(pointer, value) that must still hold."""


class Mirror(NamedTuple):
    """A copy of the requests that goes to one version."""

    path: str
    version: str
    value: Any
    """What stands there, for the undo."""


class Route(NamedTuple):
    """One route with its destinations."""

    legs: tuple[Leg, ...]
    mirrors: tuple[Mirror, ...] = ()

    @property
    def versions(self) -> set[str]:
        """Every version that it names."""
        return {leg.version for leg in self.legs}


class Seen(NamedTuple):
    """What the routes say."""

    shares: dict[str, float]
    lingering: list[str]
    """Versions that a side way reaches."""


def read_routes(routes: Sequence[Route], known: Sequence[str]) -> Seen:
    """Give shares in percent, and what is reached beside them.

    Examples
    --------
    >>> leg = lambda version, weight: Leg("/x", version, weight, ())
    >>> split = Route((leg("v41", 90), leg("v42", 10)))
    >>> read_routes([split, Route((leg("v42", 1),))], ["v41", "v42"])
    Seen(shares={'v41': 90.0, 'v42': 10.0}, lingering=['v42'])
    """
    ours = [route for route in routes if route.versions & set(known)]
    split = [route for route in ours if len(route.versions) > 1] or ours
    shares: dict[str, float] = {}
    for route in split:
        weights: dict[str, float] = {}
        for leg in route.legs:
            weights[leg.version] = weights.get(leg.version, 0.0) + leg.weight
        for version, share in shares_of(weights).items():
            shares[version] = shares.get(version, 0.0) + share / len(split)
    aside = {
        leg.version for route in ours if route not in split for leg in route.legs if leg.weight
    }
    aside |= {mirror.version for route in routes for mirror in route.mirrors}
    return Seen(
        {version: round(share, 6) for version, share in shares.items()},
        sorted(aside & set(known)),
    )


class Change(NamedTuple):
    """What to write, and how to take it back."""

    operations: list[dict[str, Any]]
    undo: list[dict[str, Any]]
    words: list[str]


def change_of(
    routes: Sequence[Route], weights: Mapping[str, int], known: Sequence[str], turn: Any
) -> Change:
    """Give the operations that make every route serve these weights.

    Parameters
    ----------
    weights : mapping
        Version -> whole percent; the others of `known` get 0.
    turn : callable
        `turn(leg, version)`: operations that make a leg point to another version.
    """
    change = Change([], [], [])
    removals: list[dict[str, Any]] = []
    for route in routes:
        if not route.versions & set(known):
            removals += _drop(route, weights, change)
            continue
        if len(route.versions) > 1:
            _reweigh(route, weights, known, change)
        elif len(weights) == 1:
            _turn(route, next(iter(weights)), change, turn)
        removals += _drop(route, weights, change)
    # Removals come last and from the end, so that no index moves under another operation.
    change.operations.extend(reversed(removals))
    change.undo.reverse()
    return change


def _reweigh(
    route: Route, weights: Mapping[str, int], known: Sequence[str], change: Change
) -> None:
    given: set[str] = set()
    for leg in route.legs:
        if leg.version not in known:
            continue
        # A version that stands twice in one route gets its weight once.
        weight = weights.get(leg.version, 0) if leg.version not in given else 0
        given.add(leg.version)
        if weight == leg.weight:
            continue
        change.operations.extend(_tests(leg))
        path = f"{leg.path}/weight"
        change.operations.append({"op": "add", "path": path, "value": weight})
        change.undo.append({"op": "add", "path": path, "value": round(leg.weight)})
        change.words.append(f"{leg.path} {leg.version} {leg.weight:g} -> {weight}")


def _turn(route: Route, version: str, change: Change, turn: Any) -> None:
    for leg in route.legs:
        if leg.version == version or not leg.weight:
            continue
        operations, undo = turn(leg, version)
        change.operations.extend([*_tests(leg), *operations])
        change.undo.extend(undo)
        change.words.append(f"{leg.path} {leg.version} -> {version}")


def _drop(route: Route, weights: Mapping[str, int], change: Change) -> list[dict[str, Any]]:
    removals = []
    for mirror in route.mirrors:
        if weights.get(mirror.version):
            continue
        removals.append({"op": "remove", "path": mirror.path})
        change.undo.append({"op": "add", "path": mirror.path, "value": mirror.value})
        change.words.append(f"{mirror.path} removed")
    return removals


def _tests(leg: Leg) -> list[dict[str, Any]]:
    return [{"op": "test", "path": path, "value": value} for path, value in leg.tests]


def cannot(routes: Sequence[Route], weights: Mapping[str, int]) -> str:
    """Say why routes cannot serve these weights: a split that lacks a version that gets some."""
    for route in routes:
        split = len(route.versions) > 1
        if split and route.versions & set(weights):
            for version, weight in weights.items():
                if weight and version not in route.versions:
                    return f"a route that splits traffic does not name version {version!r}"
    return ""
