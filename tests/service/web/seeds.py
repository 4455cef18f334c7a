"""A site with a fleet, incidents and holds as they look on a working day."""

import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import sqlalchemy as sa

from schemas.incidents import Entry
from schemas.secrets import Secret
from service.clock import Clock, WallClock
from service.config import HttpSettings, Token
from service.engine.base import Snapshot
from service.record.ledger import (
    entry_of_breach,
    entry_of_command,
    entry_of_progress,
    entry_of_receipt,
)
from service.storage.checkpoints import CheckpointStore
from service.storage.history import VerdictHistory
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from service.web.site import Site, Stores
from service.web.worker import WebWorker
from tests.builders import (
    a_breach,
    a_command,
    a_guard_verdict,
    a_hold,
    a_progress,
    a_proposal,
    a_receipt,
)
from tests.service.running import a_local_engine

TOKENS = HttpSettings(
    listen="127.0.0.1:0",
    tokens=[
        Token(name="vera", role="viewer", token=Secret("viewer-token-0123456789")),
        Token(name="otto", role="operator", token=Secret("operator-token-0123456789")),
        Token(name="adam", role="admin", token=Secret("admin-token-0123456789")),
        Token(name="pipe", role="producer", token=Secret("producer-token-0123456789")),
    ],
)
OPEN = HttpSettings(listen="127.0.0.1:0")


def bearer(role: str) -> dict[str, str]:
    return {"authorization": f"Bearer {role}-token-0123456789"}


def a_version(version: str, role: str, **changes: Any) -> dict[str, Any]:
    made = {
        "version": version, "role": role, "predictions": 4210, "outcomes": 3980,
        "unlabelled": 31, "coverage": 0.992, "share": 0.5, "verdict": "pass",
        "reason": "within_objectives", "text": "every limit holds with the promised confidence",
    }  # fmt: skip
    return {**made, **changes}


def a_view(model: str, versions: list[dict[str, Any]], now: int, **changes: Any) -> dict[str, Any]:
    """The document of contract §4, as `watch` writes it."""
    by_role = {one["role"]: one["version"] for one in versions}
    verdicts = {
        one["version"]: {
            "model": model, "version": one["version"], "rollout_id": "r1",
            "verdict": one["verdict"], "reason": one["reason"], "text": one["text"], "guards": [],
            "roles": "declared", "decided_at": now - 900, "role": one["role"],
            "position": {"topic": "outcomes", "partition": 0, "offset": 17},
        }
        for one in versions
    }  # fmt: skip
    made = {
        "model": model, "stable": by_role.get("stable"), "canary": by_role.get("canary"),
        "weight": 0.1 if "canary" in by_role else None, "rollout_id": "r1", "roles": "declared",
        "watermark": now - 1200, "lag_s": 0.21, "versions": versions, "verdicts": verdicts,
        "updated_at": now - 400,
    }  # fmt: skip
    return {**made, **changes}


def a_fleet(now: int) -> list[dict[str, Any]]:
    fine = "every limit holds with the promised confidence"
    return [
        a_view("credit-risk", [
            a_version("v41", "stable", predictions=1_482_113, share=1.0, text=fine),
            a_version("v42", "retired", predictions=15_207, coverage=0.98, share=0.0,
                      verdict="breach", reason="guard_alarmed", text="failed error_rate"),
        ], now),
        a_view("fraud-detector", [
            a_version("2025-11-03", "stable", predictions=8_204_551, coverage=0.997, share=0.901),
            a_version("2025-11-19", "canary", predictions=91_340, coverage=0.41, share=0.099,
                      verdict="inconclusive", reason="immature",
                      text="no limit failed; labels need about 3 more hours"),
        ], now),
        a_view("search-ranking", [
            a_version("r118", "stable", predictions=22_410_006, share=0.75),
            a_version("r119", "canary", predictions=741_220, share=0.25, verdict="breach",
                      reason="guard_alarmed",
                      text="latency_ms p95 is 341 [327, 356], 300 allowed; stable has 212"),
        ], now, weight=0.25, watermark=now - 400),
        a_view("churn", [
            a_version("v9", "stable", predictions=60_112, coverage=0.0, share=1.0,
                      verdict="unknown", reason="label_outage",
                      text="predictions mature without labels since 06:40"),
        ], now, roles="inferred", lag_s=14.2, watermark=now - 16_000),
    ]  # fmt: skip


def a_story(now: int, model: str = "credit-risk", ends: str = "verified") -> list[Entry]:
    """One incident from breach to its end."""
    at = now - 2_400_000
    latency = a_guard_verdict(
        name="latency_ms p95", signal="latency_ms", verdict="pass", estimate=212.4, lower=205.0,
        upper=221.7, limit=300.0, stable_estimate=209.9, evidence=0.4, n=15_207,
    )  # fmt: skip
    breach = a_breach(
        model=model, decided_at=at, guards=[a_guard_verdict(), latency],
        text="v42 fails error_rate: 0.081 [0.072, 0.093], 0.05 allowed; stable has 0.039",
    )  # fmt: skip
    incident = breach.incident_id
    command = a_command(model=model, incident_id=incident, issued_at=at + 400)
    opened = entry_of_breach(breach, None, at)
    if ends == "withheld":
        why = "Policy is in mode observe: a rollback to v41 would have been ordered"
        withheld = a_progress(
            kind="withheld", model=model, incident_id=incident, reason="mode_observe",
            text=why, at=at + 300,
        )  # fmt: skip
        return [opened, entry_of_progress(withheld, "v42", at)]
    if ends == "proposed":
        plain = {**msgspec.to_builtins(command), "expires_at": now + 300_000}
        asked = a_proposal(
            model=model, incident_id=incident, at=at + 300, command=plain,
            command_id=f"c-{model}",
        )  # fmt: skip
        return [opened, entry_of_progress(asked, "v42", at)]
    receipt = a_receipt(
        model=model, incident_id=incident, started_at=at + 500, finished_at=at + 1800
    )
    verified = a_progress(
        model=model, incident_id=incident, at=at + 10_400,
        text="v42 has 0.0 % of the last 80 predictions",
    )  # fmt: skip
    return [
        opened,
        entry_of_command(command, at),
        entry_of_receipt(receipt, at),
        entry_of_progress(verified, "v42", at),
    ]


def seed(stores: Stores, now: int, extra: list[dict[str, Any]] | None = None) -> None:
    """Fill the stores."""
    store_views(stores, [*a_fleet(now), *(extra or [])])
    stores.log.add(a_story(now))
    stores.log.add(a_story(now + 1_200_000, "churn", "withheld"))
    stores.log.add(a_story(now + 2_000_000, "search-ranking", "proposed"))
    stores.holds.set(
        a_hold(model="fraud-detector", reason="label backfill runs until noon", at=now - 700_000)
    )


def store_views(stores: Stores, views: list[dict[str, Any]]) -> None:
    """Store views as a `watch` that owns the partition does."""
    claim = stores.checkpoints.claim("watch", 0)
    snapshots: Mapping[str, Snapshot] = {
        view["model"]: Snapshot(b"", msgspec.json.encode(view)) for view in views
    }
    assert stores.checkpoints.save("watch", 0, claim.epoch, {}, snapshots)


def the_stores(database: sa.Engine) -> Stores:
    return Stores(IncidentLog(database), HoldStore(database), CheckpointStore(database),
                  VerdictHistory(database))  # fmt: skip


@asynccontextmanager
async def a_site(
    folder: Path, database: sa.Engine, settings: HttpSettings = OPEN, clock: Clock | None = None
) -> AsyncIterator[Site]:
    """A site on a real local engine."""
    metrics = Metrics()
    engine = a_local_engine(folder / "log", database, clock, metrics)
    await engine.start()
    try:
        yield Site(engine, clock or WallClock(), metrics, settings)
    finally:
        await engine.stop()


@asynccontextmanager
async def served(site: Site, stores: Stores | None) -> AsyncIterator[str]:
    """Serve it on a real port; yield its address."""
    import asyncio

    from service.web.app import create_app

    worker = WebWorker(create_app(site, stores), site.settings)
    address, stop = worker.bind(), asyncio.Event()
    serving = asyncio.create_task(worker.run(stop))
    try:
        yield f"http://{address}"
    finally:
        started = time.monotonic()
        stop.set()
        await serving
        assert time.monotonic() - started < 5, "a stop must not wait for open streams"
