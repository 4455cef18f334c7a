"""Lines to events: numbers, strictness, packed files, damage."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from service.replay.read import KIND_OF, RecordingFault, chunks, read
from tests.service.replay.recordings import a_prediction, a_rollout, an_outcome, packed

LINES = packed([a_rollout(), a_prediction("a", 0.0), an_outcome("a", 1.0)])


def test_kinds_and_numbers() -> None:
    """If this breaks, results name other lines than an editor shows."""
    found = read(10, [b"\n", *LINES, b"  \n"])

    assert ([11, 12, 13], [2, 0, 1], []) == (
        found.lines, [KIND_OF[type(event)] for event in found.events], found.refused,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"not json", "not JSON"),
        (b'{"type": "prediction"}', "prediction"),
        (b'{"type": "guess"}', "event.type"),
        (b"[1, 2]", "event"),
        (b'{"type": "outcome", "prediction_id": "a\\u0000b", "observed_at": 1, "label": 1}', "NUL"),
        (b'{"type": "outcome", "prediction_id": "' + b"x" * 70_000 + b'"}', "bytes"),
        (b'{"type": "outcome", "prediction_id": "\xff", "observed_at": 1, "label": 1}', "UTF-8"),
    ],
)
def test_what_live_refuses_is_refused(line: bytes, reason: str) -> None:
    """If this breaks, replay judges by events that live would never count."""
    found = read(1, [LINES[1], line + b"\n", LINES[2]])

    assert [1, 3] == found.lines
    assert [2] == [number for number, _ in found.refused]
    assert reason in found.refused[0][1]


def test_cloud_events_are_opened() -> None:
    """If this breaks, recordings made from a CloudEvents topic cannot be replayed."""
    envelope = {"specversion": "1.0", "type": "org.acme.prediction", "id": "1", "source": "x",
                "data": a_prediction("a", 0.0)}  # fmt: skip

    [event] = read(1, packed([envelope])).events

    assert 0 == KIND_OF[type(event)]


def test_lines_are_numbered_over_all_files_packed_or_not(tmp_path: Path) -> None:
    """If this breaks, line numbers begin anew with the second file."""
    (tmp_path / "a.jsonl").write_bytes(b"".join(LINES))
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(b"".join(LINES)))

    found = list(chunks([tmp_path / "a.jsonl", tmp_path / "b.jsonl.gz"], 2))

    assert [(1, 2), (3, 1), (4, 2), (6, 1)] == [(first, len(lines)) for first, lines in found]
    assert 2 * LINES == [line for _, lines in found for line in lines]


def test_a_cut_archive_is_one_sentence(tmp_path: Path) -> None:
    """If this breaks, half a recording passes for a whole one."""
    data = gzip.compress(b"".join(json.dumps({"n": n}).encode() + b"\n" for n in range(5000)))
    (tmp_path / "cut.gz").write_bytes(data[: len(data) // 2])

    with pytest.raises(RecordingFault, match=r"cut\.gz cannot be unpacked after line \d+"):
        list(chunks([tmp_path / "cut.gz"], 100))
