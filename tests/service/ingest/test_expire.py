"""Predictions reach their horizon by event time, and never before their outcomes could be read."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.ingest import expire
from tests.service.ingest.journey import NOW, Journey, outcome, policy, prediction


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    return Journey(tmp_path)


def ends(journey: Journey) -> list[tuple[str, int]]:
    return [(r.kind, r.offset) for r in journey.read_rows() if r.kind in ("matured", "unlabelled")]


async def test_labelled_rows_mature_and_others_end_unlabelled(journey: Journey) -> None:
    """If this breaks, a canary whose labels stop looks well."""
    await journey.open()
    journey.write("predictions", prediction("a", 0), prediction("b", 1), prediction("c", 30))
    journey.write("outcomes", outcome("a", 5))
    await journey.read_all()
    await journey.pass_time(10)
    assert [("matured", 0), ("unlabelled", 1)] == ends(journey)


async def test_time_moves_by_ticks_when_traffic_stops(journey: Journey) -> None:
    """If this breaks, the last predictions before an outage are never judged."""
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    await journey.tick(3.0)
    await journey.tick(4.0)
    assert NOW + 7000 == journey.observations()[-1].watermark_ms
    await journey.pass_time(20)
    assert [("unlabelled", 0)] == ends(journey)


async def test_a_process_that_slept_does_not_let_time_jump(journey: Journey) -> None:
    """If this breaks, a laptop that wakes up says that all its labels are missing."""
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    await journey.tick(3600.0)
    assert NOW + 5000 == journey.observations()[-1].watermark_ms


async def test_no_tick_before_any_event(journey: Journey) -> None:
    """If this breaks, an empty topic pretends to know the time."""
    await journey.open()
    await journey.tick()
    assert [] == journey.observations()


async def test_a_tick_reaches_every_partition_of_observations(journey: Journey) -> None:
    """If this breaks, time stands still for models of other partitions."""
    journey.engine.counts["observations"] = 3
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    await journey.tick()
    assert [0, 1, 2] == [m.partition for m in journey.engine.messages("observations")[-3:]]


async def test_nothing_expires_while_outcomes_lie_unread(journey: Journey) -> None:
    """If this breaks, a restart after an hour says that an hour of labels is missing."""
    journey.write("predictions", *[prediction(f"p{n}", 60.0 * n) for n in range(10)])
    journey.write("outcomes", *[outcome(f"p{n}", 60.0 * n + 5) for n in range(10)])
    await journey.open(read_up_to=2)
    await journey.pass_time(30)
    assert [("matured", n) for n in range(10)] == ends(journey)


async def test_rows_of_a_model_end_in_their_order(tmp_path: Path) -> None:
    """If this breaks, `watch` takes later rows first and drops the others as repeats."""
    journey = Journey(tmp_path, [policy("m", 5.0), policy("n", 20.0)])
    await journey.open()
    journey.write(
        "predictions", prediction("a", 50, model="n"), prediction("b", 40), prediction("c", 10),
        prediction("d", 45, model="n"), prediction("e", 42),
    )  # fmt: skip
    await journey.read_all()
    await journey.pass_time(60)
    per_model = {
        name: [r.offset for r in journey.rows() if r.kind == "unlabelled" and r.model == name]
        for name in "mn"
    }
    assert {"m": [1, 2, 4], "n": [0, 3]} == per_model


async def test_a_model_without_policy_waits_seven_days(tmp_path: Path) -> None:
    """If this breaks, models that nobody has a policy for lose their labels early."""
    journey = Journey(tmp_path, [policy("other")])
    await journey.open()
    journey.write("predictions", prediction("a"), prediction("b", 6.9 * 86_400))
    await journey.read_all()
    await journey.pass_time(10)
    assert [] == ends(journey)
    journey.write("predictions", prediction("c", 7.1 * 86_400))
    await journey.read_all()
    await journey.pass_time(10)
    assert [("unlabelled", 0)] == ends(journey)


async def test_much_that_is_due_is_said_in_steps(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a quiet night ends in one step that is too large to say."""
    monkeypatch.setattr(expire, "MOST_ROWS", 3)
    await journey.open()
    journey.write("predictions", *[prediction(f"p{n}") for n in range(8)], prediction("z", 60))
    await journey.read_all()
    while not ends(journey):
        await journey.tick(1.0)
    assert 3 == len(ends(journey))
    await journey.tick(0.0)
    assert 6 == len(ends(journey))
    # What is decided stays decided: no outcome labels it now.
    journey.write("outcomes", outcome("p7", 1))
    await journey.pass_time(10)
    assert [("unlabelled", n) for n in range(8)] == ends(journey)


async def test_an_outcome_without_prediction_is_dead_lettered_at_the_horizon(
    tmp_path: Path,
) -> None:
    """If this breaks, outcomes with wrong ids vanish without a trace."""
    journey = Journey(tmp_path, [policy("m", 10.0)])
    await journey.open()
    journey.write("predictions", prediction("x"))
    journey.write("outcomes", outcome("lost", 1, model="m"), outcome("found", 1, model="m"))
    await journey.read_all()
    await journey.tick(5.0)
    journey.write("predictions", prediction("found", 2))
    await journey.read_all()
    assert [] == journey.letters()
    await journey.pass_time(20)
    letters = journey.letters()
    assert [("outcomes", 0)] == [(letter["topic"], letter["offset"]) for letter in letters]
    assert "no prediction" in letters[0]["reason"]
    assert {"orphans": 1} == [m.counts for m in journey.observations() if m.model == "m"][-1]


async def test_memory_is_given_back(journey: Journey) -> None:
    """If this breaks, a service that runs for months dies of its own past."""
    await journey.open()
    assert journey.worker is not None
    for turn in range(6):
        at = 20.0 * turn
        ids = [f"p{turn}-{n}" for n in range(5000)]
        journey.write("predictions", *[prediction(i, at, prediction=i) for i in ids])
        journey.write("outcomes", *[outcome(i, at + 1, f"label {i}") for i in ids[:2500]])
        await journey.read_all()
        await journey.pass_time(15)
    part = journey.worker._held[0].part
    assert 0 == part.pending.count == part.pending.index.count
    assert {} == part.pending.slabs
    assert [] == part.runs
    assert len(part.pending.rows) <= 4 * 4096
    assert len(part.texts._codes) <= 30_000
    left = {key[:1] for key, _ in part_store(journey)}
    assert {b"m", b"n"} == left


def part_store(journey: Journey) -> list[tuple[bytes, bytes]]:
    assert journey.worker is not None
    return list(journey.worker._held[0].store._db.items())  # type: ignore[arg-type]


async def test_another_machine_says_what_was_decided(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a prediction that was to end unlabelled is labelled elsewhere."""
    monkeypatch.setattr(expire, "MOST_ROWS", 1)
    await journey.open()
    journey.write("predictions", *[prediction(f"p{n}") for n in range(3)], prediction("z", 60))
    await journey.read_all()
    while not ends(journey):
        await journey.tick(1.0)
    journey.write("outcomes", outcome("p2", 1))  # while p2 waits for its turn to be said
    await journey.read_all()
    journey.crash(lose_disk=True)
    await journey.open(2)
    await journey.pass_time(10)
    assert [("unlabelled", n) for n in range(3)] == ends(journey)


async def test_another_machine_does_not_end_rows_again(journey: Journey) -> None:
    """If this breaks, every move of a partition repeats what was said for a horizon."""
    await journey.open()
    journey.write("predictions", prediction("a"), prediction("b", 8))
    await journey.read_all()
    while not ends(journey):
        await journey.tick(1.0)
    journey.crash(lose_disk=True)
    await journey.open(2)
    await journey.pass_time(20)
    ended = [row.offset for row in journey.rows() if row.kind == "unlabelled"]
    assert [0, 1] == ended
