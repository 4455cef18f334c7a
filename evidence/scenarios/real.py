"""S13: real people, and recorded predictions of others.

The people come with the demonstration (census, 2015 and 2016): one model serves, another is the
canary, and requests come in a new random order each run. The recorded streams have one order, so
there is one run, and each detector's cell is the row of its alarm; rows before the reference's end
set the limit and are not judged.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from detectors.adwin import Adwin
from detectors.base import Bool, Rows
from detectors.canary_guard import CanaryGuard
from detectors.page_hinkley import PageHinkley
from detectors.rate_guard import RateGuard
from evidence.cells import Cell, Judge, Promise, clopper_pearson
from evidence.recorded import Missing, Recorded, car_loan, employment
from evidence.rivals import asymptotic, of_river, peeked
from evidence.rivals.lineup import ADWIN, OURS, TUNED, TUNED_DELTA
from evidence.rivals.shipped import shipped
from evidence.rivals.threshold import flagger
from evidence.scenarios.base import Finding, Scenario, within_alpha
from evidence.worlds import rows_of
from service.demo.models import train_pair
from service.demo.people import load

SHARE, MARGIN = 0.25, 1.15
PEOPLE = "16,000 people of 2016; false positive rate, canary 25 %: share of alarms"
FOUND = "The same people, a canary that looks for the wrong column: its negatives to the alarm"
CHANGE = 75_000
RISE = 195_000
"""There is no exact row on real data; the share of errors rises at about 200,000."""
HORIZON = 3_000
"""Rows until a recorded prediction matures; labels come after 300 or 700 on average, by class."""


@cache
def mistakes() -> dict[str, Bool]:
    """Who of those without a job is said to have one, by each model."""
    people = load()
    pair = train_pair(people.past)
    jobless = [person.features for person in people.present if not person.employed]
    return {
        name: np.array([model.score(features) > 0.5 for features in jobless])
        for name, model in (("v41", pair.stable), ("v42", pair.canary), ("notebook", pair.notebook))
    }


def release(seed: Any, canary: str) -> Rows:
    """People in a random order, a quarter of them to the canary."""
    rng = np.random.default_rng(seed)
    by = mistakes()
    order = rng.permutation(len(by["v41"]))
    arms = rng.random(len(order)) < SHARE
    return rows_of(np.where(arms, by[canary][order], by["v41"][order]), canary=arms, weight=SHARE)


def _people() -> list[Cell]:
    judges: list[tuple[str, Judge, int]] = [
        (OURS, shipped(CanaryGuard), 2000),
        ("z-test, peeked, pooled", peeked.two_samples(MARGIN), 1000),
        ("GrowthBook sequence, pooled", asymptotic.two_samples(MARGIN), 1000),
    ]
    cells = []
    for name, judge, runs in judges:
        promised = within_alpha() if name == OURS else ()
        sooner = (Promise("median", most=130),) if name == OURS else ()
        for canary, words in (("v41", "the same model"), ("notebook", "a better model")):
            cells.append(Cell("S13", PEOPLE, words, name, partial(release, canary=canary), judge,
                              runs, 20, promises=promised))  # fmt: skip
        cells.append(Cell("S13", FOUND, "twice the false positives", name,
                          partial(release, canary="v42"), judge, 400, 20, since=0,
                          unit="canary rows", promises=sooner))  # fmt: skip
    return cells


def _judges(limit: float, upper: float) -> dict[str, Judge]:
    return {
        OURS: shipped(partial(RateGuard, limit=limit)),
        f"{OURS}, limit on the reference's upper bound": shipped(
            partial(RateGuard, limit=upper, alpha=0.009)),
        ADWIN: shipped(Adwin),
        TUNED: shipped(partial(Adwin, delta=TUNED_DELTA)),
        "Page-Hinkley 50": shipped(PageHinkley),
        "HDDM-A": of_river.hddm_a,
        "DDM": of_river.ddm,
        "EDDM": of_river.eddm,
        "Flagger, 5 checks": flagger(limit),
        "z-test, peeked": peeked.one_sample(limit),
        "GrowthBook sequence": asymptotic.one_sample(limit),
    }  # fmt: skip


def _stream(
    data: Recorded, signal: str, title: str, change: int, latest: int, step_ms: int
) -> list[Finding]:
    chosen = ~data.true if signal == "FPR" else np.ones(len(data.true), dtype=np.bool_)
    index = np.flatnonzero(chosen)
    loss = (data.predicted != data.true)[index]
    known = index < data.reference
    bad, n = int(loss[known].sum()), int(known.sum())
    upper = clopper_pearson(bad, n, 0.998)[1]
    live, lost = index[~known], loss[~known]
    labelled = np.random.default_rng(13).exponential(np.where(data.true[live], 300.0, 700.0))
    soon = labelled <= HORIZON
    found = []
    for name, judge in _judges(MARGIN * bad / n, MARGIN * upper).items():
        at = judge(rows_of(lost, step_ms=step_ms))
        late = judge(rows_of(lost[soon], step_ms=step_ms))
        row = None if at is None else int(live[at])
        matured = None if late is None else int(live[soon][late]) + HORIZON
        column = f"{title}, {signal} ({bad / n:.4f} before)"
        held = None
        if name == OURS:
            held = row is not None and change <= row <= latest
        found.append(Finding("Recorded streams: row of the alarm, labels at once / matured",
                             name, column, f"{_said(row, change)} / {_said(matured, change)}",
                             f"not before row {change:,}, by {latest:,}", held))  # fmt: skip
    return found


def _said(row: int | None, change: int) -> str:
    if row is None:
        return "never"
    return f"{row:,}{' **before**' if row < change else ''}"


def measure(_quick: bool) -> list[Finding]:
    """The recorded streams that can be had."""
    found = []
    for read, streams in (
        (car_loan, [("FPR", "car loan", CHANGE, 80_500, 523_152),
                    ("error", "car loan", CHANGE, 82_000, 523_152)]),
        (employment, [("error", "employment", RISE, 208_000, 1_000)]),
    ):  # fmt: skip
        try:
            data = read()
        except Missing as missing:
            found.append(Finding("Not measured", read.__name__.replace("_", " "), "why",
                                 str(missing)))  # fmt: skip
            continue
        for stream in streams:
            found += _stream(data, *stream)
    return found


S13 = Scenario(
    "S13", "Real people, recorded predictions",
    "as each column says; car loan turns worse at row 75,000, employment at about 200,000",
    "On real people the guard keeps its promise and finds the broken release. On the recorded "
    "streams ADWIN is sooner than rollbackd, and several others fire before anything happened. "
    f"Labels that come late cost the horizon ({HORIZON:,} rows here) and no false alarm.",
    cells=tuple(_people()), measure=measure,
)  # fmt: skip
