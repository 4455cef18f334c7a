"""The one wiring function: settings in, a running process out. Straight down; closed in reverse.

Nothing is built at import, and nothing else knows concrete classes. A role is wired by its own
small function, so that one process hosts all of them or a single one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa
import structlog

import detectors
from schemas.plugins import Registry
from service.act import adapters as adapter_files
from service.alert import notifiers as notifier_files
from service.alert.audience import Audience, parted, read_audience
from service.alert.heartbeat import Heart
from service.alert.worker import AlertWorker
from service.clock import Clock, WallClock
from service.config import Config, ConfigFaults, local_path
from service.engine.base import Engine
from service.engine.kafka import KafkaEngine
from service.engine.local import LocalEngine
from service.memory import collect_seldom, give_back_often
from service.plug import build
from service.signing import Signer, Verifier
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.storage.deliveries import DeliveryStore
from service.storage.fleet import FleetStore
from service.storage.history import VerdictHistory
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.storage.receipts import ReceiptStore
from service.telemetry import Metrics
from service.watch.named import faults_of_detectors
from service.web.worker import ListenFault as ListenFault

ROLES = ("ingest", "watch", "act", "record", "alert", "web")

log = structlog.get_logger()


@dataclass
class Parts:
    """What every role is built from."""

    config: Config
    clock: Clock
    metrics: Metrics
    database: sa.Engine
    engine: Engine
    adapters: dict[str, Any]
    notifiers: dict[str, Any]
    jobs: list[Callable[[asyncio.Event], Any]] = field(default_factory=list)
    """What runs beside the engine until the process stops."""

    @property
    def kill_switch(self) -> Path | None:
        """The file that stops automatic action."""
        file = self.config.kill_switch_file
        return Path(file) if file else None


def plugins_of(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Build adapters and notifiers, and see that the detectors that policies name can be built.

    Raises
    ------
    ConfigFaults
        With every fault of every plugin.
    """
    lines: list[str] = []
    adapters = Registry.of(adapter_files, entry_points="rollbackd.adapters")
    notifiers = Registry.of(notifier_files, entry_points="rollbackd.notifiers")
    built = {
        name: build(adapters, settings, f"adapters.{name}", lines)
        for name, settings in config.adapters.items()
    }
    built.setdefault("dry_run", adapters.make("dry_run"))
    told = {}
    for index, alert in enumerate(_alerts(config)):
        own, hears = parted(alert)
        name, path = notifier_files.endpoint_name(own), f"alerts[{index}]"
        told[name] = build(notifiers, own, path, lines)
        read_audience(hears, path, lines)
    lines += faults_of_detectors(config.policies, detectors_known())
    if lines:
        raise ConfigFaults(lines)
    return built, told


def audiences_of(config: Config) -> dict[str, tuple[Audience, ...]]:
    """Give what each endpoint wants to hear; `plugins_of` has found all faults of it."""
    audiences: dict[str, tuple[Audience, ...]] = {}
    for alert in _alerts(config):
        own, hears = parted(alert)
        name = notifier_files.endpoint_name(own)
        audiences[name] = (*audiences.get(name, ()), read_audience(hears, "alerts", []))
    return audiences


def _alerts(config: Config) -> list[dict[str, Any]]:
    return config.alerts or [{"kind": "log"}]


def detectors_known() -> Registry:
    """Find every detector, ours and those of installed packages."""
    return Registry.of(detectors, entry_points="rollbackd.detectors", family="detector")


def engine_of(config: Config, database: sa.Engine, clock: Clock, metrics: Metrics) -> Engine:
    """Make the engine that the settings name; it is not started."""
    settings, checkpoints = config.engine, CheckpointStore(database)
    if settings.url.startswith("local:"):
        return LocalEngine(
            Path(local_path(settings.url)), clock, checkpoints, metrics, settings.partitions or 1,
            max_records=config.ingest.batch_records,
            checkpoint_every_s=settings.checkpoint_every,
        )  # fmt: skip
    return KafkaEngine(
        settings.url.removeprefix("kafka://"), clock, checkpoints, metrics,
        prefix=settings.prefix, names=settings.topics, partitions=settings.partitions or 4,
        security=settings.security, session_timeout_ms=settings.session_timeout.ms,
        checkpoint_every_s=settings.checkpoint_every,
    )  # fmt: skip


@contextlib.asynccontextmanager
async def opened(config: Config, clock: Clock | None = None) -> AsyncIterator[Parts]:
    """Open database and engine, as the daemon and the commands use them; close them after."""
    clock, metrics = clock or WallClock(), Metrics()
    adapters, notifiers = plugins_of(config)
    database = await asyncio.to_thread(open_database, config.storage_url)
    try:
        engine = engine_of(config, database, clock, metrics)
        try:
            await engine.start()
            yield Parts(config, clock, metrics, database, engine, adapters, notifiers)
        finally:
            await engine.stop()
    finally:
        database.dispose()


async def serve(
    config: Config, roles: set[str], stop: asyncio.Event, listen: str | None = None,
    ready: asyncio.Event | None = None,
) -> None:  # fmt: skip
    """Run the named roles in this process until `stop` is set.

    Raises
    ------
    EngineFault, StorageFault, ConfigFaults
        When the process cannot start, or cannot go on.
    """
    async with opened(config) as parts:
        for role in ROLES:
            if role in roles:
                _WIRE[role](parts)
        bound = _serve_http(parts, "web" in roles, listen)
        log.info("started", roles=sorted(roles), engine=config.engine.url.split("?")[0],
                 listen=bound, digest=config.digest)  # fmt: skip
        collect_seldom()
        parts.jobs.append(give_back_often)
        if ready is not None:
            ready.set()
        await _run_until(parts, stop)
        log.info("stopped", roles=sorted(roles))


async def _run_until(parts: Parts, stop: asyncio.Event) -> None:
    """Run engine and jobs; whatever ends first ends all, and its fault is raised."""
    tasks = [asyncio.create_task(parts.engine.run(), name="engine")]
    tasks += [asyncio.create_task(job(stop), name="job") for job in parts.jobs]
    waiting = asyncio.create_task(stop.wait(), name="stop")
    try:
        await asyncio.wait([*tasks, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        await parts.engine.stop()
        waiting.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
    for fault in ended:
        if isinstance(fault, Exception):
            raise fault


def _wire_ingest(parts: Parts) -> None:
    from service.ingest.worker import IngestWorker

    config = parts.config
    IngestWorker(parts.engine, parts.clock, parts.metrics, config.ingest, config.policies,
                 config.data_dir).register()  # fmt: skip
    if config.prometheus is not None:
        from service.ingest.prometheus import PrometheusPoller

        PrometheusPoller(parts.engine, parts.clock, parts.metrics, config.prometheus,
                         config.policies).register()  # fmt: skip


def _wire_watch(parts: Parts) -> None:
    from service.watch.stops import Stops
    from service.watch.worker import WatchWorker

    config = parts.config
    stops = Stops(HoldStore(parts.database), FleetStore(parts.database), config.fleet,
                  config.freeze, parts.kill_switch)  # fmt: skip
    WatchWorker(
        parts.engine, parts.clock, parts.metrics, config.policies,
        detectors_known(), stops, Signer.load_or_create(_key_file(config)), config.digest,
    ).register()  # fmt: skip


def _wire_act(parts: Parts) -> None:
    from service.act.worker import ActWorker

    config = parts.config
    files = [Path(file) for file in config.signing.public_key_files]
    pems: list[str | bytes] = [file.read_bytes() for file in files]
    verifier = Verifier(pems or [Signer.load_or_create(_key_file(config)).public_pem])
    ActWorker(
        parts.engine, parts.clock, parts.metrics, parts.adapters, ReceiptStore(parts.database),
        HoldStore(parts.database), verifier, parts.kill_switch,
    ).register()  # fmt: skip


def _wire_record(parts: Parts) -> None:
    from service.record.anchor import Anchoring
    from service.record.history import HistoryKeeper
    from service.record.worker import RecordWorker

    log, audit = IncidentLog(parts.database), parts.config.audit
    RecordWorker(parts.engine, parts.clock, parts.metrics, log,
                 HoldStore(parts.database)).register()  # fmt: skip
    history = VerdictHistory(parts.database)
    HistoryKeeper(parts.engine, parts.clock, parts.metrics, history).register()
    signer = Signer.load_or_create(audit_key_file(parts.config))
    file = Path(audit.anchor_file) if audit.anchor_file else None
    Anchoring(parts.engine, parts.clock, log, signer, file).register(audit.anchor_every)


def _wire_alert(parts: Parts) -> None:
    log, settings, heart = IncidentLog(parts.database), parts.config.heartbeat, None
    if settings is not None:
        heart = Heart(settings, parts.clock, parts.metrics, parts.engine.health, log,
                      CheckpointStore(parts.database))  # fmt: skip
    worker = AlertWorker(
        parts.clock, parts.metrics, log, DeliveryStore(parts.database),
        parts.notifiers, public_url=parts.config.http.public_url,
        audiences=audiences_of(parts.config), heart=heart,
    )  # fmt: skip
    parts.jobs.append(worker.run)


def _wire_web(parts: Parts) -> None:
    """Web has no handler of its own: it reads storage and is served by `_serve_http`."""


def _serve_http(parts: Parts, api: bool, listen: str | None) -> str:
    """Open the address now, so that a taken one fails the start; returns it as it is."""
    from service.web.app import create_app
    from service.web.site import Site, Stores
    from service.web.worker import WebWorker

    site = Site(parts.engine, parts.clock, parts.metrics, parts.config.http)
    stores = Stores(IncidentLog(parts.database), HoldStore(parts.database),
                    CheckpointStore(parts.database), VerdictHistory(parts.database),
                    ReceiptStore(parts.database))  # fmt: skip
    worker = WebWorker(create_app(site, stores if api else None), parts.config.http, listen)
    bound = worker.bind()
    parts.jobs.append(worker.run)
    return bound


def audit_key_file(config: Config) -> Path:
    """Where `record` has the key that signs anchors."""
    return Path(config.audit.key_file or config.data_dir / "audit.key")


def _key_file(config: Config) -> Path:
    return Path(config.signing.key_file or config.data_dir / "signing.key")


_WIRE: dict[str, Callable[[Parts], None]] = {
    "ingest": _wire_ingest,
    "watch": _wire_watch,
    "act": _wire_act,
    "record": _wire_record,
    "alert": _wire_alert,
    "web": _wire_web,
}
