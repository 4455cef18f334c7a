"""Messages hold what `watch` reads, split and sampled as promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schemas.observations import KINDS
from schemas.policies import GuardSpec
from service.ingest import observe, slices
from service.ingest.models import unit_hash
from service.ingest.observe import Sampler
from tests.service.ingest.journey import NOW, Journey, outcome, policy, prediction


async def test_a_message_says_where_it_comes_from(tmp_path: Path) -> None:
    """If this breaks, `watch` cannot tell repeats, or what moved time."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"), prediction("b", 2))
    journey.write("outcomes", outcome("a", 5))
    await journey.read_all()
    (message,) = journey.observations()
    assert [b"m"] == [m.key for m in journey.engine.messages("observations")]
    assert {"predictions": 1, "outcomes": 0} == message.newest
    assert NOW + 5000 == message.watermark_ms
    assert journey.streams == message.streams
    assert [("served", "predictions", 2), ("labelled", "outcomes", 1)] == [
        (block.kind, block.topic, block.count) for block in message.blocks
    ]


async def test_absent_columns_are_left_out(tmp_path: Path) -> None:
    """If this breaks, every message carries columns of nothing."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    block = journey.observations()[0].blocks[0]
    assert {"offset", "served_ms", "version"} == set(block.columns)


async def test_large_windows_are_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, a message grows beyond what a topic takes."""
    monkeypatch.setattr(observe, "MOST_ROWS", 4)
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", *[prediction(f"p{n}") for n in range(10)])
    journey.write("outcomes", *[outcome(f"p{n}", 1) for n in range(10)])
    await journey.read_all()
    sizes = [sum(block.count for block in m.blocks) for m in journey.observations()]
    assert 20 == sum(sizes)
    assert max(sizes) <= 4
    assert 20 == len(journey.read_rows())


async def test_only_features_that_a_guard_names_are_said(tmp_path: Path) -> None:
    """If this breaks, personal features leave the topic that they came on."""
    guards = [GuardSpec(signal="feature:age", detector="adwin")]
    journey = Journey(tmp_path, [policy(guards=guards)])
    await journey.open()
    journey.write(
        "predictions", prediction("a", features={"age": 30, "name": "ann", "zip": 1}),
        prediction("b"), prediction("c", features={"age": "old"}),
    )  # fmt: skip
    await journey.read_all()
    assert [30.0, None, None] == [row.values.get("feature:age") for row in journey.rows()]
    assert {"feature:age"} == {
        name for row in journey.rows() for name in row.values if name.startswith("feature:")
    }


async def test_groups_last_from_the_prediction_to_its_end(tmp_path: Path) -> None:
    """If this breaks, a guard on a segment or on units sees predictions, but no labels."""
    guards = [GuardSpec(signal="accuracy", min=0.9, segment="region")]
    journey = Journey(tmp_path, [policy(guards=guards, votes="unit")])
    await journey.open()
    journey.write(
        "predictions", prediction("a", unit="ann", segments={"region": "eu", "name": "ann"}),
        prediction("b", unit="bob", segments={"region": "us"}), prediction("c", unit="bob"),
    )  # fmt: skip
    await journey.read_all()
    journey.crash()
    await journey.open()
    journey.write("outcomes", outcome("a", 1, sampled=0.25), outcome("c", 1))
    await journey.read_all()
    await journey.pass_time(30)

    rows = {kind: [row.values for row in journey.rows() if row.kind == kind] for kind in KINDS}

    def of(kind: str, name: str) -> list[Any]:
        return [values.get(name) for values in rows[kind]]

    ann, bob = unit_hash("ann"), unit_hash("bob")
    assert ["eu", "us", None] == of("served", "segment:region")
    assert ["eu", None] == of("labelled", "segment:region") == of("matured", "segment:region")
    assert ["us"] == of("unlabelled", "segment:region")
    assert [ann, bob, bob] == of("served", "unit")
    assert [ann, bob] == of("labelled", "unit") == of("matured", "unit")
    assert [bob] == of("unlabelled", "unit")
    assert [0.25, None] == of("labelled", "sampled") == of("matured", "sampled")
    said = {name for kind in rows.values() for values in kind for name in values}
    assert {"segment:region"} == {name for name in said if name.startswith("segment:")}


async def test_an_outcome_before_its_prediction_keeps_how_it_was_sampled(tmp_path: Path) -> None:
    """If this breaks, an audit weighs labels wrong that came early."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("outcomes", outcome("a", 1, sampled=0.5, cost=2.5))
    await journey.read_all()
    journey.crash()
    await journey.open()
    journey.write("predictions", prediction("a"))
    await journey.read_all()
    (labelled,) = (row.values for row in journey.rows() if row.kind == "labelled")
    assert (0.5, 2.5) == (labelled["sampled"], labelled["cost"])


async def test_segments_beyond_the_room_are_none_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, a segment of ever new values fills the memory, or nobody learns of it."""
    monkeypatch.setattr(slices, "MOST", 2)
    guards = [GuardSpec(signal="error_rate", max=0.1, segment="id")]
    journey = Journey(tmp_path, [policy(guards=guards)])
    await journey.open()
    names = ["x", "y", "z", "x", "z"]
    journey.write("predictions", *[prediction(f"p{at}", segments={"id": name})
                                   for at, name in enumerate(names)])  # fmt: skip
    await journey.read_all()
    assert ["x", "y", None, "x", None] == [r.values.get("segment:id") for r in journey.rows()]
    sample = "rollbackd_segments_dropped_total"
    assert 2 == journey.metrics.registry.get_sample_value(sample)


def test_features_are_sampled_evenly_up_to_the_cap() -> None:
    """If this breaks, a hot model floods `watch`, or only its first rows are looked at."""
    sampler = Sampler(rows_per_s=50)
    taken = []
    for second in range(10):
        places = [
            sampler.choose(0, np.arange(at, at + 500), second)
            for at in range(second * 10_000, (second + 1) * 10_000, 500)
        ]
        taken.append([len(chosen) for chosen in places])
    assert all(sum(each) <= 50 for each in taken)
    assert all(sum(each) >= 30 for each in taken[1:])
    # From the second second on, the later half of a second is sampled too.
    assert all(sum(each[10:]) >= 10 for each in taken[1:])
    assert 0 == len(Sampler(0).choose(0, np.arange(10), 0))


async def test_a_model_with_many_versions_lists_only_those_it_speaks_of(tmp_path: Path) -> None:
    """If this breaks, messages grow with every version that ever was."""
    journey = Journey(tmp_path)
    await journey.open()
    journey.write("predictions", *[prediction(f"p{n}", version=f"v{n}") for n in range(40)])
    await journey.read_all()
    journey.write("predictions", prediction("x", version="v17"), prediction("y", version="v3"))
    await journey.read_all()
    assert ["v17", "v3"] == journey.observations()[-1].versions
    assert ["v17", "v3"] == [row.values["version"] for row in journey.rows()[-2:]]


async def test_long_texts_keep_their_equality(tmp_path: Path) -> None:
    """If this breaks, generated text fills the memory, or right answers count as wrong."""
    journey = Journey(tmp_path)
    await journey.open()
    long = "x" * 5000
    journey.write("predictions", prediction("a", prediction=long),
                  prediction("b", prediction=long + "y"))  # fmt: skip
    journey.write("outcomes", outcome("a", 1, long), outcome("b", 1, long))
    await journey.read_all()
    a, b = (row.values for row in journey.rows() if row.kind == "labelled")
    assert a["class"] == a["label_class"] == b["label_class"] != b["class"]
    assert len(a["class"]) <= 128
