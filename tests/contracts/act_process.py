"""The act role as a process, to be killed: `python -m tests.contracts.act_process JSON`."""

import asyncio
import json
import sys
from pathlib import Path

from schemas.plugins import Registry
from schemas.secrets import Secret
from service.clock import WallClock
from service.engine.local import LocalEngine
from service.signing import Signer, Verifier
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.storage.holds import HoldStore
from service.storage.receipts import ReceiptStore
from service.telemetry import Metrics


def open_engine(home: Path) -> LocalEngine:
    database = open_database(f"sqlite:///{home / 'store.db'}")
    return LocalEngine(home / "messages", WallClock(), CheckpointStore(database), Metrics())


async def main(told: dict[str, str]) -> None:
    import service.act.adapters
    from service.act.worker import ActWorker

    home = Path(told["home"])
    database = open_database(f"sqlite:///{home / 'store.db'}")
    settings = json.loads(told["settings"])
    if told["kind"] == "webhook":
        settings |= {name: Secret(settings[name]) for name in ("url", "secret")}
    adapter = Registry.of(service.act.adapters).make(told["kind"], **settings)
    engine = open_engine(home)
    verifier = Verifier([Signer.load_or_create(home / "watch.pem").public_pem])
    ActWorker(
        engine, WallClock(), Metrics(), {"prod": adapter}, ReceiptStore(database),
        HoldStore(database), verifier,
    ).register()  # fmt: skip
    await engine.start()
    await engine.run()


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
