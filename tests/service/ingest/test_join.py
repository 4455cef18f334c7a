"""What counts when outcomes come early, twice, late or never."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.ingest import join, models
from tests.service.ingest.journey import NOW, Journey, Row, outcome, policy, prediction


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    return Journey(tmp_path)


def said(journey: Journey, kind: str) -> list[Row]:
    return [row for row in journey.rows() if row.kind == kind]


def totals(journey: Journey) -> dict[str, int]:
    return [m.counts for m in journey.observations() if m.model == "m"][-1]


async def one_by_one(journey: Journey, *events: bytes) -> None:
    """Each event in a step of its own."""
    await journey.open()
    for event in events:
        topic = "outcomes" if b"observed_at" in event else "predictions"
        journey.write(topic, event)
        await journey.read({topic: 1})


async def at_once(journey: Journey, *events: bytes) -> None:
    """All events in one step."""
    await journey.open()
    for event in events:
        journey.write("outcomes" if b"observed_at" in event else "predictions", event)
    await journey.read_all()


TABLE: list[tuple[list[bytes], Any, dict[str, int]]] = [
    ([prediction("a"), outcome("a", 1)], 1.0, {}),
    ([outcome("a", 1), prediction("a")], 1.0, {}),
    ([prediction("a"), outcome("a", 1), outcome("a", 2)], 1.0, {"duplicates": 1}),
    ([prediction("a"), outcome("a", 1), outcome("a", 2, 0)], 1.0, {"corrections": 1}),
    ([prediction("a"), outcome("a", 1, "yes"), outcome("a", 2, "no"), outcome("a", 2, "yes")],
     "yes", {"corrections": 1, "duplicates": 1}),
    ([prediction("a"), outcome("a", 1, "1"), outcome("a", 2, 1)], "1", {"corrections": 1}),
    ([prediction("a"), prediction("a", 1), outcome("a", 2)], 1.0, {"duplicates": 1}),
    ([prediction("a"), outcome("a", 11)], None, {"late": 1}),
    ([prediction("a"), outcome("a", 11), outcome("a", 1)], None, {"late": 1, "duplicates": 1}),
    ([outcome("a", 11), prediction("a")], None, {"late": 1}),
    ([prediction("a"), outcome("a", -3)], 1.0, {}),
]  # fmt: skip
"""Events, the label that counts, and the running totals; the horizon is 10 seconds."""


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("events, label, counts", TABLE)
async def test_what_counts(
    journey: Journey, events: list[bytes], label: Any, counts: dict[str, int], together: bool
) -> None:
    """If this breaks, a doubled or corrected outcome changes a verdict."""
    await (at_once if together else one_by_one)(journey, *events)
    found = [r.values.get("label_value", r.values.get("label_class"))
             for r in said(journey, "labelled")]  # fmt: skip
    assert ([] if label is None else [label]) == found
    assert counts == totals(journey)
    assert 1 == len(said(journey, "served"))


async def test_second_outcomes_of_a_parked_one_are_counted_by_its_hint(journey: Journey) -> None:
    """If this breaks, corrections that come before the prediction vanish."""
    await one_by_one(
        journey, prediction("x"), outcome("a", 1, 1, model="m"), outcome("a", 1, 0, model="m"),
        outcome("a", 1, 1, model="m"), prediction("a"),
    )  # fmt: skip
    assert {"corrections": 1, "duplicates": 1} == totals(journey)
    assert [1.0] == [row.values["label_value"] for row in said(journey, "labelled")]


async def test_a_row_is_named_by_the_event_that_completed_it(journey: Journey) -> None:
    """If this breaks, `watch` drops pairs as repeats, or counts them twice."""
    await one_by_one(
        journey, outcome("b", 1), prediction("a"), prediction("b"), outcome("a", 1)
    )  # fmt: skip
    named = [(row.topic, row.offset) for row in said(journey, "labelled")]
    assert [("predictions", 1), ("outcomes", 1)] == named


async def test_a_row_carries_what_guards_need(journey: Journey) -> None:
    """If this breaks, a guard misses its input or judges another one."""
    full = prediction("a", 1, prediction="spam", score=0.875, latency_ms=12.5, error="timeout",
                      weight=0.125, features={"age": 3})  # fmt: skip
    await one_by_one(journey, full, outcome("a", 4, 0, cost=2.5))
    served, labelled = (said(journey, kind)[0] for kind in ("served", "labelled"))
    common = {"served_ms": NOW + 1000, "version": "v1", "score": 0.875, "weight": 0.125,
              "class": "spam", "error": 1}  # fmt: skip
    assert common | {"latency_ms": 12.5} == served.values
    extra = {"observed_ms": NOW + 4000, "label_value": 0.0, "cost": 2.5}
    assert common | extra == labelled.values


async def test_units_are_hashed_where_they_vote(tmp_path: Path) -> None:
    """If this breaks, one user counts as many, or a pseudonym travels in clear."""
    journey = Journey(tmp_path, [policy("m", votes="unit"), policy("n")])
    await one_by_one(
        journey, prediction("a", unit="u1"), prediction("b", unit="u1"), prediction("c", unit="u2"),
        prediction("d"), prediction("e", model="n", unit="u1"),
    )  # fmt: skip
    units = [row.values.get("unit", 0) for row in said(journey, "served")]
    assert units[0] == units[1] != units[2] != 0
    assert [0, 0] == units[3:]


async def test_too_many_parked_outcomes_make_the_oldest_orphans(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, outcomes with foreign ids fill the memory until the process dies."""
    monkeypatch.setattr(join, "MOST_PARKED", 2)
    await at_once(journey, outcome("a"), outcome("b"), outcome("c"), prediction("x"))
    assert [("outcomes", 0)] == [
        (letter["topic"], letter["offset"]) for letter in journey.letters()
    ]
    assert 1.0 == journey.metrics.registry.get_sample_value(
        "rollbackd_rejected_total", {"stage": "ingest", "reason": "orphan"}
    )


async def test_names_beyond_the_bound_are_refused(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, whoever can write events fills the memory with made-up models."""
    monkeypatch.setattr(models, "MOST_MODELS", 2)
    monkeypatch.setattr(models, "MOST_VERSIONS", 2)
    await at_once(
        journey, prediction("a"), prediction("b", model="n"), prediction("c", model="o"),
        prediction("d", version="v2"), prediction("e", version="v3"), prediction("f"),
    )  # fmt: skip
    assert [0, 3, 5, 1] == [row.offset for row in said(journey, "served")]
    assert [2, 4] == [letter["offset"] for letter in journey.letters()]
    assert json.loads(prediction("c", model="o"))["model"] == "o"


async def test_other_models_and_many_versions_in_one_window(journey: Journey) -> None:
    """If this breaks, a row is judged as another version's."""
    events = [prediction(f"p{n}", n / 100, model=f"m{n % 3}", version=f"v{n % 41}",
                         prediction=f"c{n % 5}") for n in range(200)]  # fmt: skip
    await at_once(journey, *events)
    for row in said(journey, "served"):
        n = row.offset
        assert (f"m{n % 3}", f"v{n % 41}", f"c{n % 5}") == (
            row.model, row.values["version"], row.values["class"],
        )  # fmt: skip
    assert 200 == len(said(journey, "served"))


async def test_another_machine_names_pairs_alike_and_in_order(tmp_path: Path) -> None:
    """If this breaks, pairs are lost or counted twice when a worker moves."""
    journey = Journey(tmp_path, [policy("m", 100.0)])
    await journey.open()
    journey.write("outcomes", outcome("b", 2), outcome("a", 3))
    await journey.read_all()
    journey.write("predictions", prediction("a"), prediction("b", 1))
    journey.crash(lose_disk=True)
    await journey.open(5)
    named = [(row.topic, row.offset) for row in said(journey, "labelled")]
    assert [("predictions", 0), ("predictions", 1)] == named


async def test_no_two_steps_follow_one_commit(tmp_path: Path) -> None:
    """If this breaks, a machine that has only the log names a pair otherwise than it was said."""
    journey = Journey(tmp_path, [policy("m", 100.0)])
    await journey.open()
    journey.write("predictions", prediction("x"))
    await journey.read_all()
    journey.write("outcomes", outcome("a", 1))
    await journey.read({"outcomes": 1}, commit=False)  # parked and stored, never committed
    journey.crash()
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read({"predictions": 1}, commit=False)
    journey.crash(lose_disk=True)
    await journey.open(5)
    await journey.tick()
    assert 1 == len({(row.topic, row.offset) for row in said(journey, "labelled")})


async def test_a_duplicate_moves_nothing_not_even_time(journey: Journey) -> None:
    """If this breaks, a repeated id with a later stamp lets other predictions expire."""
    await one_by_one(journey, prediction("a"), outcome("a", 1))
    before = journey.worker._held[0].part.watermark_ms
    await one_by_one(journey, prediction("a", 50), outcome("a", 60))

    assert before == journey.worker._held[0].part.watermark_ms
