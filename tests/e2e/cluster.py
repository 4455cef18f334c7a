"""rollbackd as a cluster: one process per role on a real Kafka and a real PostgreSQL."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaProducer

from tests.e2e.platform import SECRET
from tests.real import Process, free_port, run_process, start_process, url_answers, wait_until

ROLES = ("ingest", "watch", "act", "record", "alert", "web")
RUN = [sys.executable, "-c", "from service.cli import main; main()"]
ROOT = Path(__file__).parents[2]


class Cluster:
    """The roles, each a process that can be killed and started again."""

    def __init__(self, folder: Path, kafka: str, database: str, url: str, prefix: str) -> None:
        self.folder, self._kafka, self.prefix = folder, kafka, prefix
        self.ports = {role: free_port() for role in ROLES}
        self.processes: dict[str, Process] = {}
        self.kills: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)
        self.config = folder / "rollbackd.yaml"
        self.config.write_text(
            json.dumps(
                {
                    "engine": {
                        "url": f"kafka://{kafka}",
                        "prefix": prefix,
                        "partitions": 2,
                        "state_dir": str(folder / "state"),
                    },
                    "storage": database,
                    "adapters": {"prod": {"kind": "webhook", "url": url, "secret": SECRET}},
                    "policies": [
                        {
                            "model": "credit-risk",
                            "adapter": "prod",
                            "mode": "enforce",
                            "positive": 1,
                            "horizon": "5s",
                            "max_decision_age": "5m",
                            "guards": [
                                {"signal": "error_rate", "max": 0.05},
                                {"signal": "latency_ms", "quantile": 0.95, "max": 300},
                                {"signal": "accuracy", "min": 0.5},
                            ],
                        }
                    ],
                }
            )
        )

    def __enter__(self) -> Cluster:
        self.call("topics", "--create")
        for role in ROLES:
            self.start(role)
        wait_until(lambda: all(self.ready(role) for role in ROLES), 60, what="all roles ready")
        return self

    def __exit__(self, *_: object) -> None:
        with ExitStack() as stack:
            for process in self.processes.values():
                stack.callback(process.stop)

    def start(self, role: str) -> None:
        """Start a role's process."""
        command = [*RUN, "run", "--config", str(self.config), "--role", role,
                   "--listen", f"127.0.0.1:{self.ports[role]}"]  # fmt: skip
        log = self.folder / f"{role}.log"
        self.processes[role] = start_process(command, log, {"PYTHONPATH": str(ROOT)}, ROOT)

    def ready(self, role: str) -> bool:
        """Whether a role owns its share and is up to date."""
        return url_answers(f"http://127.0.0.1:{self.ports[role]}/readyz")

    def kill(self, role: str) -> None:
        """End a role as a power cut would, and start it again at once."""
        self.processes[role].kill()
        self.kills.append(role)
        self.start(role)

    def call(self, *arguments: str) -> str:
        """Run a command as a person would; its standard output."""
        log = self.folder / f"call-{arguments[0]}.log"
        log.unlink(missing_ok=True)
        command = [*RUN, *arguments, "--config", str(self.config)]
        with run_process(command, log, {"PYTHONPATH": str(ROOT)}, ROOT) as process:
            assert process.child.wait(60) == 0, process.output()
        return process.output()

    def incidents(self) -> list[dict[str, Any]]:
        """All incidents, as a reader of the API sees them."""
        return list(json.loads(self.call("incidents", "--json")))

    def appender(self) -> tuple[Callable[[str, list[tuple[str, str]]], None], Callable[[], None]]:
        """A producer's append, for a thread of its own, and what closes it."""
        loop = asyncio.new_event_loop()
        producer: AIOKafkaProducer | None = None

        async def send(topic: str, events: list[tuple[str, str]]) -> None:
            nonlocal producer
            if producer is None:
                producer = AIOKafkaProducer(bootstrap_servers=self._kafka, acks="all")
                await producer.start()
            name = self.prefix + topic
            sent = [await producer.send(name, value.encode(), key=key.encode())
                    for key, value in events]  # fmt: skip
            await asyncio.gather(*sent)

        def append(topic: str, events: list[tuple[str, str]]) -> None:
            loop.run_until_complete(send(topic, events))

        def close() -> None:
            if producer is not None:
                loop.run_until_complete(producer.stop())
            loop.close()

        return append, close
