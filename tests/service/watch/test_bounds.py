"""What `watch` remembers stays small, and what is live stays exact."""

from __future__ import annotations

import numpy as np
import pytest

import service.watch.bounds as bounds
from schemas.observations import Observations
from service.watch.step import Book
from service.watch.view import view_of
from tests.service.watch.traffic import (
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    play,
    restarted,
)


def build(number: int) -> Observations:
    """Ten predictions of a version of its own and ten of v41, one second after the last ones."""
    at = START_MS + number * 1000
    block = a_block(offset=np.arange(20) + 20 * number, served_ms=at + np.arange(20),
                    version=np.arange(20) % 2)  # fmt: skip
    return a_message(block, versions=["v41", f"build-{number}"], watermark_ms=at + 20)


def a_started_book() -> Book:
    book = a_book()
    book.roll_out(a_rollout(), START_MS)
    return book


def test_a_version_for_each_build_does_not_fill_the_memory() -> None:
    """If this breaks, a pipeline that never reuses a version's name stops the worker in the end."""
    book = a_started_book()

    play(book, [build(number) for number in range(300)])

    model = book.models["credit-risk"]
    assert bounds.MOST_VERSIONS == len(model.versions)
    assert 302 - bounds.MOST_VERSIONS == model.forgotten
    assert model.forgotten == view_of(model, 0.0, 0)["versions_forgotten"]
    assert {"v41", "v42", "build-299"} <= set(model.versions)
    assert "build-0" not in model.versions
    counts = [model.versions[name].predictions for name in ("v41", "build-299")]
    assert [3000, 10] == counts


def test_versions_by_rollout_events_alone_are_bounded_as_well() -> None:
    """If this breaks, plans without traffic fill the memory."""
    book = a_started_book()

    for number in range(200):
        book.roll_out(a_rollout(START_MS + number + 1, canary=f"c{number}"), START_MS)

    assert bounds.MOST_VERSIONS == len(book.models["credit-risk"].versions)


def test_what_was_forgotten_stays_so_over_a_restart() -> None:
    """If this breaks, two owners of a model give two accounts of it."""
    whole, first = a_started_book(), a_started_book()

    play(whole, [build(number) for number in range(150)])
    play(first, [build(number) for number in range(100)])
    other = restarted(first, a_policy())
    play(other, [build(number) for number in range(100, 150)])

    assert whole.save("credit-risk") == other.save("credit-risk")


def test_models_beyond_the_bound_are_not_watched_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, a producer that sends ids as model names stops every model of a partition."""
    monkeypatch.setattr(bounds, "MOST_MODELS", 3)
    book = a_book(a_policy(model="*"))

    for number in range(10):
        message = a_message(*build(number).blocks, model=f"m{number % 5}",
                            watermark_ms=START_MS + number)  # fmt: skip
        book.observe(message, START_MS + number)

    assert {"m0", "m1", "m2"} == set(book.models)
    assert 4 == book.partition.unwatched
    assert 4 == restarted(book, a_policy(model="*")).partition.unwatched
    assert 1 == capsys.readouterr().out.count("model_not_watched")
