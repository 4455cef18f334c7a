"""The main job on one machine: one process, the embedded log, events over HTTP, and kill -9."""

from __future__ import annotations

import http.client
import json
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from service.clock import WallClock
from tests.e2e.platform import MODEL, SECRET, Platform, Producer
from tests.real import Process, free_port, run_process, start_process, url_answers, wait_until

RUN = [sys.executable, "-c", "from service.cli import main; main()"]
ROOT = Path(__file__).parents[2]

CUT_OFF = (OSError, http.client.HTTPException, ValueError)
"""What a reader sees of a server that is killed: before, within and after the head of its answer;
in the last case half a body, which is no JSON."""


class Machine:
    """One daemon on the local engine, which can be killed and started again."""

    def __init__(
        self, folder: Path, url: str, adapter: dict[str, Any] | None = None, **policy: Any
    ) -> None:
        self.folder, self.port = folder, free_port()
        self.config = folder / "rollbackd.yaml"
        self.address = f"http://127.0.0.1:{self.port}"
        self.kills = 0
        settings = {
            "engine": f"local:{folder}/data",
            "http": {"listen": f"127.0.0.1:{self.port}"},
            "adapters": {"prod": adapter or {"kind": "webhook", "url": url, "secret": SECRET}},
            "policies": [
                {
                    "model": MODEL,
                    "adapter": "prod",
                    "mode": "enforce",
                    "horizon": "5s",
                    "guards": [{"signal": "error_rate", "max": 0.05}],
                    **policy,
                }
            ],
        }
        self.config.write_text(json.dumps(settings))
        self.process = self._start()

    def _start(self) -> Process:
        command = [*RUN, "run", "--config", str(self.config)]
        return start_process(command, self.folder / "log", {"PYTHONPATH": str(ROOT)}, ROOT)

    def kill(self) -> None:
        """End it as a power cut would, and start it again at once."""
        self.process.kill()
        self.kills += 1
        self.process = self._start()

    def ready(self) -> bool:
        """Whether it owns all and is up to date."""
        return url_answers(f"{self.address}/readyz")

    def get(self, path: str) -> Any:
        """Ask the API; None while it is down."""
        try:
            with urllib.request.urlopen(self.address + path, timeout=5) as reply:
                return json.load(reply)
        except CUT_OFF:
            return None

    def post(self, topic: str, events: list[tuple[str, str]]) -> None:
        """Post until acknowledged, as a producer that loses nothing would."""
        word = topic.removesuffix("s")
        lines = [json.dumps({"type": word} | json.loads(event)) for _, event in events]
        body = "\n".join(lines).encode()
        wait_until(lambda: self._post(body), 30, 0.05, "events are acknowledged")

    def _post(self, body: bytes) -> bool:
        request = urllib.request.Request(self.address + "/v1/events", body, method="POST")
        try:
            with urllib.request.urlopen(request, timeout=5) as reply:
                return int(json.load(reply)["refused"]) == 0
        except CUT_OFF:
            return False

    def command(self, *arguments: str) -> str:
        """Run a command as a person would."""
        log = self.folder / "command.log"
        log.unlink(missing_ok=True)
        line = [*RUN, *arguments, "--config", str(self.config)]
        with run_process(line, log, {"PYTHONPATH": str(ROOT)}, ROOT) as process:
            assert process.child.wait(60) == 0, process.output()
        return process.output()


def test_a_killed_daemon_rolls_back_once_and_counts_every_event_once(tmp_path: Path) -> None:
    """If this breaks, a restart of a small team's only daemon loses events or acts twice."""
    with Platform(weight=0.2) as platform:
        machine = Machine(tmp_path, platform.url)
        try:
            wait_until(machine.ready, 30, what="the daemon is ready")
            platform.on_post = lambda: machine.kill() if machine.kills < 2 else None
            plan = {
                "model": MODEL,
                "stable": "v41",
                "canary": "v42",
                "weight": 0.2,
                "at": WallClock().now_ms(),
            }
            machine.post("rollouts", [(MODEL, json.dumps(plan))])
            with Producer(platform, machine.post) as producer:
                started = time.monotonic()
                wait_until(lambda: time.monotonic() - started > 2, 5)
                machine.kill()
                producer.errors["v42"] = 0.4
                wait_until(lambda: _state(machine) == "verified", 60, 0.2, "verified")
            assert producer.fault is None
            wait_until(lambda: _counted(machine) == producer.sent, 20, 0.2, "all are counted")
            incidents = machine.get("/v1/incidents")
            status = json.loads(machine.command("status", MODEL, "--json"))
        finally:
            machine.process.stop()

    assert 1 == len(platform.effective)
    assert 1 == len({post["command_id"] for post in platform.posts})
    assert 2 == machine.kills
    assert 1 == len(incidents["incidents"] if isinstance(incidents, dict) else incidents)
    assert ("v41", None) == (status["stable"], status["canary"])


def _state(machine: Machine) -> str | None:
    found = machine.get("/v1/incidents")
    found = found["incidents"] if isinstance(found, dict) else found
    return found[0]["state"] if found else None


def _counted(machine: Machine) -> dict[str, int] | None:
    status = machine.get(f"/v1/models/{MODEL}")
    if status is None:
        return None
    return {version["version"]: version["predictions"] for version in status["versions"]}
