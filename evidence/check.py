"""Does each figure lie in its promised range? A sentence for each that does not.

The full run asks for proof: the whole interval of a share must lie within the range, and medians
themselves. The quick run has too few runs to prove anything, so there a figure fails only where its
own interval contradicts the promise.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from typing import NamedTuple

from evidence.cells import Promise, Tally, clopper_pearson
from evidence.scenarios.base import Ratio, Scenario


class Verdict(NamedTuple):
    """One promise and what was measured."""

    name: str
    promise: str
    measured: str
    held: bool

    def __str__(self) -> str:
        return f"{self.name}: {self.measured}, promised {self.promise}"


def verdicts(
    scenarios: Sequence[Scenario], tallies: Sequence[Tally], *, quick: bool
) -> list[Verdict]:
    """Judge every promise of these scenarios, in their order."""
    by_name = {(t.cell.scenario, t.cell.table, t.cell.world_name, t.cell.rival): t for t in tallies}
    found = [
        judged(tally, promise, quick=quick) for tally in tallies for promise in tally.cell.promises
    ]
    for scenario in scenarios:
        for ratio in scenario.ratios:
            found.extend(_ratio(ratio, by_name, quick=quick))
    return found


def judged(tally: Tally, promise: Promise, *, quick: bool) -> Verdict:
    """One promise of one cell."""
    if promise.of == "median":
        low, high = tally.median_interval()
        point = tally.quantile(0.5)
        value = f"median {say(point)}"
    else:
        hits = tally.alarms if promise.of == "alarms" else tally.found
        low, high = clopper_pearson(hits, tally.n)
        point = hits / tally.n
        value = f"{hits} of {tally.n}, between {low:.4f} and {high:.4f}"
    if quick:
        held = low <= promise.most and high >= promise.least
    elif promise.of == "alarms":
        held = high <= promise.most and low >= promise.least
    else:
        held = promise.least <= point <= promise.most
    return Verdict(tally.cell.name, str(promise), value, held)


def _ratio(
    ratio: Ratio, by_name: dict[tuple[str, str, str, str], Tally], *, quick: bool
) -> Iterator[Verdict]:
    key = (ratio.scenario, ratio.table, ratio.world_name)
    ours, theirs = by_name.get((*key, ratio.ours)), by_name.get((*key, ratio.rival))
    if ours is None or theirs is None:
        return
    point = ours.quantile(0.5) / theirs.quantile(0.5)
    # In a quick run the quickest that we, and the slowest that they, may truly be.
    least = ours.median_interval()[0] / max(theirs.median_interval()[1], 1.0)
    yield Verdict(
        f"{ratio.scenario}, {ratio.ours} against {ratio.rival}, {ratio.world_name}"
        f" ({ratio.table.split(', then')[0].lower()})",
        f"at most {ratio.most:g} times its median delay",
        f"{point:.2f} times",
        (least if quick else point) <= ratio.most,
    )


def say(value: float) -> str:
    """A delay for people."""
    return "never" if value == inf else f"{value:,.0f}"
