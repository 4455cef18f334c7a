"""The shell: what it says first, what it stores, and what it does when either fails."""

from __future__ import annotations

import json
import shutil
from base64 import b64decode
from pathlib import Path

import pytest
import structlog

from service.engine.base import Ends, EngineFault
from service.ingest import remember
from service.ingest import worker as shell
from tests.service.ingest.journey import NOW, Journey, outcome, policy, prediction
from tests.service.ingest.test_receive import POISON


def state_folders(root: Path) -> list[Path]:
    return list(root.glob("ingest/*/0"))


async def test_poison_goes_to_dead_letters_and_the_rest_goes_on(tmp_path: Path) -> None:
    """If this breaks, one bad producer stops a partition, or its messages vanish."""
    journey = Journey(tmp_path)
    await journey.open()
    for poison, _ in POISON:
        journey.write("predictions", poison, prediction(f"p{len(journey.logs['predictions'])}"))
    await journey.read_all()
    letters = {letter["offset"]: letter for letter in journey.letters()}
    # Here arrival is days ahead, so that journeys may pass; test_receive.py has the future.
    future = [
        2 * at for at, (value, _) in enumerate(POISON) if str(NOW + 360_000).encode() in value
    ]
    expected = {2 * at for at in range(len(POISON))} - set(future)
    assert expected == set(letters)
    for offset, letter in letters.items():
        poison = journey.logs["predictions"][offset]
        assert poison[: 64 * 1024] == b64decode(letter["value"])
        assert ("predictions", 0, len(poison)) == (
            letter["topic"], letter["partition"], letter["size"],
        )  # fmt: skip
        assert letter["reason"].startswith("prediction")
    assert {b"predictions"} == {m.key for m in journey.engine.messages("dead-letters")}
    served = {row.offset for row in journey.rows()}
    assert {2 * at + 1 for at in range(len(POISON))} <= served


async def test_too_much_refused_pages_once(tmp_path: Path) -> None:
    """If this breaks, a producer's new schema drains into dead letters unseen."""
    journey = Journey(tmp_path, refused_minimum=10)
    await journey.open()
    for _ in range(3):
        journey.write("predictions", *[prediction(f"p{n}") for n in range(15)], b"{}", b"{}")
        await journey.read_all()
    (page,) = journey.engine.messages("progress")
    said = json.loads(page.value)
    assert ("refused_above_rate", "paged", "*") == (said["reason"], said["kind"], said["model"])
    assert "11.8%" in said["text"]


async def test_topics_partitioned_unlike_stop_it(tmp_path: Path) -> None:
    """If this breaks, wrongly keyed topics run for a week without a pair."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.engine.counts |= {"predictions": 8, "outcomes": 8}
    journey.write("predictions", *[prediction(f"p{n}") for n in range(30)])
    with pytest.raises(EngineFault, match="neither murmur2 nor CRC32"):
        await journey.read_all()


async def test_what_could_not_be_said_is_said_before_anything_else(tmp_path: Path) -> None:
    """If this breaks, rows are lost when Kafka is away for a minute."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"), prediction("b"))
    for _ in range(3):
        journey.engine.fail_before = ConnectionError("away")
        with pytest.raises(ConnectionError):
            await journey.read({"predictions": 2})
    assert [] == journey.rows()
    await journey.read({"predictions": 2})
    assert [0, 1] == [row.offset for row in journey.rows()]
    assert {} == journey.observations()[-1].counts  # what the engine brought again is no duplicate
    assert 2 == journey.committed["predictions"].offset


async def test_what_could_not_be_stored_is_said_again_under_the_same_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a full disk loses or doubles rows."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"))
    assert journey.worker is not None
    store = journey.worker._held[0].store
    write, failures = store.write, [OSError("No space left on device")]

    def full(changes: object) -> None:
        if failures:
            raise failures.pop()
        write(changes)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "write", full)
    with pytest.raises(OSError, match="No space"):
        await journey.read_all()
    assert {} == journey.committed
    await journey.read_all()
    assert 1 == journey.committed["predictions"].offset
    assert [0] == [row.offset for row in journey.rows()]


async def test_a_fault_of_ours_leaves_no_half_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a bug in one window falsifies all later ones."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    journey.write("predictions", prediction("b"))
    journey.write("outcomes", outcome("a", 1), outcome("b", 2))

    def broken(*_: object) -> None:
        raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(shell, "observations", broken)
        with pytest.raises(ZeroDivisionError):
            await journey.read_all()
    await journey.read_all()
    named = [(row.kind, row.topic, row.offset) for row in journey.rows()]
    assert [
        ("served", "predictions", 0), ("served", "predictions", 1),
        ("labelled", "outcomes", 0), ("labelled", "outcomes", 1),
    ] == named  # fmt: skip


async def test_a_second_process_on_the_same_state_is_refused(tmp_path: Path) -> None:
    """If this breaks, two daemons write one partition's state to pieces."""
    journey = Journey(tmp_path)
    await journey.open()
    other = Journey(tmp_path)
    with pytest.raises(EngineFault, match="stop the other process"):
        await other.open()


async def test_a_damaged_state_is_built_again_from_the_log(tmp_path: Path) -> None:
    """If this breaks, a flipped bit on disk stops a partition for good."""
    journey = Journey(tmp_path, [policy("m", 100.0)])
    await journey.open()
    journey.write("predictions", *[prediction(f"p{n}", n) for n in range(5)])
    await journey.read_all()
    journey.crash()
    (folder,) = state_folders(tmp_path)
    (folder / "CURRENT").write_bytes(b"no manifest")
    journey.may_be_damaged = True
    await journey.open(3)
    journey.write("outcomes", *[outcome(f"p{n}", 6) for n in range(5)])
    await journey.read_all()
    assert 5 == sum(row.kind == "labelled" for row in journey.read_rows())


async def test_a_state_of_another_release_is_built_again_from_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, an upgrade misreads what the release before had written, or loses it."""
    journey = Journey(tmp_path)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    with monkeypatch.context() as before:
        before.setattr(remember, "LAYOUT", remember.LAYOUT - 1)
        await journey.open()
        journey.write("predictions", prediction("a"), prediction("b"))
        await journey.read_all()
        journey.crash()
    await journey.open(10)
    assert ["state_of_ingest_of_another_release"] == journey.warned
    journey.write("outcomes", outcome("a", 1))
    await journey.read_all()
    assert [("served", 0), ("served", 1), ("labelled", 0)] == [
        (row.kind, row.offset) for row in journey.rows()
    ]


async def test_a_topic_made_again_starts_afresh(tmp_path: Path) -> None:
    """If this breaks, rows of a new topic are taken for repeats of the old one."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"), prediction("b"))
    await journey.read_all()
    journey.crash()
    journey.streams["predictions"] = "made-again"
    journey.logs["predictions"] = [prediction("c")]
    await journey.open(5)
    assert ["predictions/0"] == [f"{r.topic}/{r.offset}" for r in journey.rows()[2:]]
    assert "made-again" == journey.observations()[-1].streams["predictions"]
    assert 1 == len(state_folders(tmp_path))


async def test_messages_deleted_unread_page(tmp_path: Path) -> None:
    """If this breaks, a retention that is too short loses data in silence."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    journey.crash()
    shutil.rmtree(tmp_path / "ingest")
    await journey.open()
    assert journey.worker is not None
    await journey.worker.revoke(0)
    ends = {t: Ends(journey.streams[t], 9, 12) for t in journey.streams}
    wanted = await journey.worker.assign(0, dict(journey.committed), ends)
    assert {"predictions": 9, "outcomes": 9} == wanted
    reasons = [json.loads(m.value)["text"] for m in journey.engine.messages("progress")]
    assert any(text.startswith("8 messages of predictions") for text in reasons)


async def test_a_topic_that_was_trimmed_before_the_first_start_is_no_gap(tmp_path: Path) -> None:
    """If this breaks, the first start on an old topic pages somebody."""
    journey = Journey(tmp_path)
    await journey.open()
    assert journey.worker is not None
    await journey.worker.revoke(0)
    ends = {t: Ends("again-" + t, 9, 12) for t in journey.streams}
    assert {"predictions": 9, "outcomes": 9} == await journey.worker.assign(0, {}, ends)
    assert [] == journey.engine.messages("progress")


async def test_markers_at_the_end_of_a_topic_do_not_hold_time_for_ever(tmp_path: Path) -> None:
    """If this breaks, transactional producers keep predictions from ever expiring."""
    journey = Journey(tmp_path)
    journey.write("predictions", prediction("a"))
    await journey.open()
    assert journey.worker is not None
    await journey.worker.revoke(0)
    ends = {t: Ends(journey.streams[t], 0, len(journey.logs[t]) + 1) for t in journey.streams}
    await journey.worker.assign(0, {}, ends)  # one marker each that is never handed over
    await journey.read_all()
    await journey.pass_time(5 * shell.QUIET_TICKS + 60)
    assert ["unlabelled"] == [row.kind for row in journey.rows()[1:]]


async def test_it_asks_for_both_topics_in_order(tmp_path: Path) -> None:
    """If this breaks, the engine reads outcomes first, and redone windows pair otherwise."""
    journey = Journey(tmp_path)
    await journey.open()
    assert journey.worker is not None
    journey.worker.register()
    assert [(["predictions", "outcomes"], journey.worker, "ingest")] == journey.engine.registered
