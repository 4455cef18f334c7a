"""Who is measured on a rate with a limit, under which name, and with how many runs.

ADWIN and Page-Hinkley are the shipped adapters of river's, with river's defaults, one-sided: that
is kinder than river, whose own flag also rises when a version gets better. *ADWIN, equal false
alarms* has the largest delta of a ladder of tenths at which no world of S1 to S3 sees more than
1 % of alarms (S3 shows the ladder): a person would have to know those worlds
beforehand to choose it.

Rivals cost up to a hundred times a row of ours, so they have fewer runs, and wider intervals.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from detectors.adwin import Adwin
from detectors.page_hinkley import PageHinkley
from detectors.rate_guard import RateGuard
from evidence.cells import Judge
from evidence.rivals import asymptotic, of_river, peeked
from evidence.rivals.shipped import shipped
from evidence.rivals.threshold import argo, flagger
from evidence.rivals.ville import ville

OURS = "rollbackd"
ADWIN = "ADWIN .002"
TUNED = "ADWIN 1e-9, equal false alarms"
TUNED_DELTA = 1e-9
LIMIT = 0.02


class Rival(NamedTuple):
    """A judge and how much of it can be afforded."""

    name: str
    judge: Judge
    runs: int
    quick: int


def guard(limit: float = LIMIT) -> RateGuard:
    """The guard of these worlds, with the shipped defaults."""
    return RateGuard(limit=limit)


def rate_rivals(ours: int, quick: int = 40, limit: float = LIMIT) -> list[Rival]:
    """All of them; `ours` is the number of runs of the shipped guard."""
    return [
        Rival(OURS, shipped(partial(guard, limit)), ours, quick),
        Rival(ADWIN, shipped(Adwin), 200, 10),
        Rival(TUNED, shipped(lambda: Adwin(delta=TUNED_DELTA)), 200, 10),
        Rival("Page-Hinkley 50", shipped(PageHinkley), 200, 10),
        Rival("HDDM-A", of_river.hddm_a, 100, 4),
        Rival("DDM", of_river.ddm, 200, 20),
        Rival("EDDM", of_river.eddm, 200, 20),
        Rival("Flagger, 5 checks", flagger(limit), 1000, 40),
        Rival("Argo, 3 of all", argo(limit), 1000, 40),
        Rival("Argo, bar at the limit", argo(limit, headroom=1.0), 1000, 40),
        Rival("z-test, peeked", peeked.one_sample(limit), 1000, 40),
        Rival("GrowthBook sequence", asymptotic.one_sample(limit), 1000, 40),
        Rival("plain e-process", ville(limit), 400, 40),
        Rival("Dummy", of_river.dummy, 20, 5),
    ]
