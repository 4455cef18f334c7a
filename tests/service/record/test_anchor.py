"""Anchors of the incident log, on a real embedded engine and a real database."""

from __future__ import annotations

from pathlib import Path

import msgspec
import sqlalchemy as sa

from schemas.chain import Anchor, SignedAnchor, walk
from service.anchors import append_line, from_lines, from_topic, sign
from service.clock import SetClock
from service.engine.local import LocalEngine
from service.record.anchor import Anchoring
from service.signing import Signer, Verifier
from service.storage.checkpoints import CheckpointStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from tests.builders import NOW, an_entry


async def test_the_log_is_vouched_for_in_topic_and_file(
    sqlite_store: sa.Engine, tmp_path: Path
) -> None:
    """If this breaks, a cut or rewritten record cannot be told from an honest one."""
    log, clock, file = IncidentLog(sqlite_store), SetClock(NOW), tmp_path / "worm" / "anchors.jsonl"
    signer = Signer.load_or_create(tmp_path / "audit.key")
    verifier = Verifier([signer.public_pem])
    engine = LocalEngine(tmp_path / "log", clock, CheckpointStore(sqlite_store), Metrics())
    await engine.start()
    anchoring = Anchoring(engine, clock, log, signer, file)

    await anchoring.say()
    log.add([an_entry(text=str(n)) for n in range(3)])
    await anchoring.say()
    await anchoring.say()
    log.add([an_entry(text="later")])
    await anchoring.say()

    found = await engine.read("anchors")
    topic = from_topic([(r.offset, r.value, r.headers) for r in found], verifier)
    kept = from_lines(file.read_bytes().splitlines(), verifier, "file")
    await engine.stop()
    assert [3, 4] == [anchor.size for anchor in topic.anchors]
    assert topic == kept
    assert (4, [], 4) == walk(log.links(), topic.anchors)
    with sqlite_store.begin() as connection:
        connection.execute(sa.text("DELETE FROM incident_entries WHERE sequence = 4"))
    assert 1 == len(walk(log.links(), topic.anchors).faults)


def test_an_anchor_of_another_key_or_with_other_words_counts_for_nothing(tmp_path: Path) -> None:
    """If this breaks, whoever rewrites the log writes its anchors too."""
    ours, theirs = (Signer.load_or_create(tmp_path / name) for name in ("ours", "theirs"))
    anchor = Anchor(size=3, head="ab", at=NOW, log="cd")
    for signed in (sign(anchor, theirs), sign(anchor, ours)):
        append_line(tmp_path / "a.jsonl", signed)
    edited = msgspec.structs.replace(
        sign(anchor, ours), anchor=msgspec.structs.replace(anchor, size=2)
    )
    append_line(tmp_path / "a.jsonl", edited)
    lines = [*(tmp_path / "a.jsonl").read_bytes().splitlines(), b"{broken"]

    checked = from_lines(lines, Verifier([ours.public_pem]), "a.jsonl")

    assert [anchor] == checked.anchors
    assert [
        "anchor 1 of a.jsonl: it is signed by a key that is not trusted here",
        "anchor 3 of a.jsonl: its signature does not fit its bytes",
        "anchor 4 of a.jsonl: it is not signed",
    ] == checked.faults
    assert msgspec.json.decode(lines[1], type=SignedAnchor).anchor == anchor
