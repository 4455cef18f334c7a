"""Replay against the real thing: the same recording through ingest and watch on a real log."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from rich.console import Console

from service.app import opened, serve
from service.cli.recordings import send_all
from service.config import Config, parse
from service.engine.local import LocalEngine
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from tests.real import wait_until_async
from tests.service.replay.recordings import POLICY, a_prediction, packed, replayed, terms, traffic

COUNTS = ("predictions", "outcomes", "unlabelled", "coverage", "verdict")


def settings(folder: Path) -> Config:
    """The policy of the replays, with everything in one folder."""
    return parse(f"engine: local:{folder}/log\nhttp: {{listen: 127.0.0.1:0}}\n{POLICY}")


def counted(view: dict[str, Any] | None) -> dict[str, dict[str, Any]]:
    """What `status` says of each version."""
    versions = view["versions"] if view is not None else []
    return {v["version"]: {name: v[name] for name in COUNTS} for v in versions}


async def live(config: Config, file: Path, expected: dict[str, Any]) -> list[dict[str, Any]]:
    """Send a recording to a running daemon; its breaches once the counts are as expected."""
    async with opened(config) as parts:
        await send_all(parts.engine, parts.clock, [file], Console(quiet=True))
    stop = asyncio.Event()
    daemon = asyncio.create_task(serve(config, {"ingest", "watch"}, stop))
    database = open_database(config.storage_url)
    store = CheckpointStore(database)
    try:
        await wait_until_async(
            lambda: counted(store.view("watch", "credit-risk")) == expected, 40,
            what=f"counts {expected}",
        )  # fmt: skip
    finally:
        stop.set()
        await daemon
        database.dispose()
    async with opened(config) as parts:
        assert isinstance(parts.engine, LocalEngine)
        return [json.loads(record.value) for record in await parts.engine.read("breaches")]


async def test_live_and_replay_decide_alike(tmp_path: Path) -> None:
    """If this breaks, replay promises catches that the daemon would not make, or hides some."""
    lines = traffic(canary_wrong=0.6, canary_fails=0.2, seconds=90)
    lines.append(a_prediction("closing", 140.0))
    file = tmp_path / "recording.jsonl"
    file.write_bytes(b"".join(packed(lines)))
    config = settings(tmp_path)
    again = replayed(packed(lines))
    [found] = again.summary["models"].values()
    expected = {name: {count: own[count] for count in COUNTS}
                for name, own in found["versions"].items()}  # fmt: skip

    breaches = await live(config, file, expected)

    def said(breach: dict[str, Any]) -> tuple[Any, ...]:
        evidence = breach["evidence"]
        return (breach["guard"], breach["breach_id"], breach["incident_id"], breach["action"],
                breach["version"], evidence["evidence"], evidence["threshold"])  # fmt: skip

    assert {"accuracy min=0.9", "error_rate max=0.05"} <= {b["guard"] for b in breaches}
    assert sorted(map(said, again.of("breach"))) == sorted(map(said, breaches))
    assert terms().policies == config.policies
