"""The join, event by event: times, repeats, and an oracle that knows no columns."""

from __future__ import annotations

from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings

from schemas.durations import Duration
from schemas.policies import Policy
from service.ingest.pending import LABELLED
from service.replay.join import Join
from service.replay.read import read
from tests.service.replay.recordings import START_MS, a_prediction, a_rollout, an_outcome, packed

DAY_S = 86_400.0
HORIZON_MS = 10_000


def taken(lines: list[dict[str, Any]]) -> Join:
    """Take in lines at once."""
    join = Join([Policy(model="*", horizon=Duration(HORIZON_MS / 1000))])
    join.take(read(1, packed(lines)))
    return join


@pytest.mark.parametrize(
    ("lines", "refused"),
    [
        ([a_prediction("a", 0), a_prediction("b", 30 * DAY_S)], 0),
        ([a_prediction("a", 0), a_prediction("b", 30 * DAY_S + 0.001)], 1),
        ([a_rollout(0), an_outcome("b", 31 * DAY_S)], 1),
        ([a_prediction("a", 0), a_rollout(31 * DAY_S)], 1),
        ([a_prediction("a", 0), a_prediction("b", 20 * DAY_S), a_prediction("c", 40 * DAY_S)], 0),
        # What is refused is not believed by the next one either, nor is a repeat.
        ([a_prediction("a", 0), a_prediction("b", 40 * DAY_S), a_prediction("c", 60 * DAY_S)], 2),
        ([a_prediction("a", 0), a_prediction("a", 20 * DAY_S), a_prediction("c", 40 * DAY_S)], 1),
        # `arrived_at` is asked instead where it is given.
        ([a_prediction("a", 0), a_prediction("b", 60 * DAY_S,
                                             arrived_at=START_MS + 60 * 86_400_000)], 0),
        ([a_prediction("a", 300, arrived_at=START_MS)], 0),
        ([a_prediction("a", 300.001, arrived_at=START_MS)], 1),
        ([a_rollout(300.001, arrived_at=START_MS)], 1),
        ([a_prediction("a", 0, arrived_at=10**15)], 1),
        ([a_prediction("a", -26 * 366 * DAY_S)], 1),
        ([a_prediction("a", 0, error=False)], 1),
        ([a_rollout(0, weight=None)], 1),
    ],
)  # fmt: skip
def test_times_that_are_not_believed(lines: list[dict[str, Any]], refused: int) -> None:
    """If this breaks, one broken clock matures a month of predictions."""
    counts = taken(lines).counts

    assert (len(lines), refused) == (counts.read, counts.refused)


def test_a_refused_time_moves_nothing() -> None:
    """If this breaks, a refused stamp from next year ends every horizon."""
    lines = [a_prediction("a", 0), a_prediction("b", 400 * DAY_S), an_outcome("a", 9)]

    assert LABELLED == taken(lines).rows["state"][0]


def test_the_outcome_on_the_horizon_counts_and_the_next_does_not() -> None:
    """If this breaks, labels are lost or count too late by one step."""
    lines = [a_prediction("a", 0), a_prediction("b", 0), an_outcome("a", 10), an_outcome("b", 10)]

    states = taken(lines).rows["state"][:2]

    # The first outcome moves time to the horizon; the second finds its prediction matured.
    assert [True, False] == [bool(state == LABELLED) for state in states]


@st.composite
def recordings(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Few ids, times in any order around the horizon, repeats and corrections."""
    lines = []
    for _ in range(draw(st.integers(0, 40))):
        key, at_s = f"p{draw(st.integers(0, 6))}", draw(st.integers(0, 30))
        if draw(st.booleans()):
            lines.append(a_prediction(key, at_s, draw(st.sampled_from(["v41", "v42"]))))
        else:
            lines.append(an_outcome(key, at_s, draw(st.integers(0, 1))))
    return lines


class Oracle:
    """The contract read aloud: one line after the other, every prediction asked each time."""

    def __init__(self, lines: list[dict[str, Any]]) -> None:
        self.served: dict[str, dict[str, Any]] = {}
        self.first: dict[str, dict[str, Any]] = {}
        self.pairs: list[tuple[int, str]] = []
        self.final: list[tuple[int, str, bool]] = []
        self.duplicates = self.corrections = 0
        self.now_ms = 0
        for number, line in enumerate(lines, 1):
            self._take(number, line)
            for key, served in self.served.items():
                ended = self.now_ms >= served["served_at"] + HORIZON_MS
                if ended and key not in {k for _, k, _ in self.final}:
                    self.final.append((number, key, key in {k for _, k in self.pairs}))

    def _take(self, number: int, line: dict[str, Any]) -> None:
        key = line["prediction_id"]
        known = self.served if line["type"] == "prediction" else self.first
        if key in known:
            if line["type"] == "prediction" or line["label"] == known[key]["label"]:
                self.duplicates += 1
                return
            self.corrections += 1
        else:
            known[key] = line
            over = key in {k for _, k, _ in self.final}
            if key in self.served and key in self.first and not over:
                served, seen = self.served[key]["served_at"], self.first[key]["observed_at"]
                if seen - served <= HORIZON_MS:
                    self.pairs.append((number, key))
        self.now_ms = max(self.now_ms, line.get("served_at", 0), line.get("observed_at", 0))


@settings(max_examples=300, deadline=None)
@given(lines=recordings(), size=st.sampled_from([1, 3, 1000]))
def test_columns_find_what_the_contract_says(lines: list[dict[str, Any]], size: int) -> None:
    """If this breaks, an order of arrival exists in which labels meet other lines than they did."""
    oracle = Oracle(lines)
    join = Join([Policy(model="*", horizon=Duration(HORIZON_MS / 1000))])
    pairs: list[tuple[int, int]] = []
    final: list[tuple[int, int, bool]] = []
    for at in range(0, len(lines), size):
        block = join.take(read(at + 1, packed(lines[at : at + size])))
        pairs += zip(block.labelled.lines.tolist(), block.labelled.rows.tolist(), strict=True)
        states = join.rows["state"][block.final.rows] == LABELLED
        final += zip(block.final.lines.tolist(), block.final.rows.tolist(), states.tolist(),
                     strict=True)  # fmt: skip

    row_of = {key: row for row, key in enumerate(oracle.served)}
    assert (oracle.duplicates, oracle.corrections) == (
        join.counts.duplicates, join.counts.corrections,
    )  # fmt: skip
    assert [(line, row_of[key]) for line, key in oracle.pairs] == pairs
    assert sorted((line, row_of[key], label) for line, key, label in oracle.final) == final


def test_numbers_and_texts_are_different_labels() -> None:
    """If this breaks, a correction from 1 to "1" passes for a repeat."""
    lines = [an_outcome("a", 1, 1), an_outcome("a", 1, "1"), an_outcome("a", 1, 1.0)]

    counts = taken(lines).counts

    assert (1, 1) == (counts.duplicates, counts.corrections)


def test_rows_grow_beyond_the_first_space() -> None:
    """If this breaks, a long recording ends in the middle."""
    lines = [a_prediction(f"p{n}", n / 1000) for n in range(20_000)]
    join = taken(lines)

    assert np.array_equal(START_MS + np.arange(20_000), join.rows["served_ms"][:20_000])
