"""A canary's whole life on one machine: up by steps, stable, bad, and back to what was good."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.clock import WallClock
from tests.e2e.platform import MODEL, Platform, Producer
from tests.e2e.test_one_machine import Machine
from tests.real import wait_until

PROMOTE = {"steps": [0.3, 0.5, 1.0], "margin": 1.0, "bake": "2s"}


def test_a_canary_climbs_becomes_stable_turns_bad_and_goes_back(tmp_path: Path) -> None:
    """If this breaks, a promotion stops half-way, or nobody guards a version after it."""
    guards = [{"signal": "error_rate", "max": 0.5}]
    with Platform(weight=0.3) as platform:
        machine = Machine(tmp_path, platform.url, promote=PROMOTE, guards=guards, good_after="3s")
        try:
            wait_until(machine.ready, 30, what="the daemon is ready")
            plan = {"model": MODEL, "stable": "v41", "canary": "v42", "weight": 0.3,
                    "at": WallClock().now_ms()}  # fmt: skip
            machine.post("rollouts", [(MODEL, json.dumps(plan))])
            with Producer(platform, machine.post) as producer:
                producer.errors |= {"v41": 0.2, "v42": 0.2}
                wait_until(lambda: _serving(machine) == ("v42", None), 120, 0.3, "promoted")
                wait_until(lambda: _incidents(machine)[0]["state"] == "verified", 60, 0.3,
                           "the promotion is verified")  # fmt: skip
                machine.kill()
                producer.errors["v42"] = 0.95
                wait_until(lambda: _serving(machine) == ("v41", None), 120, 0.3, "rolled back")
                wait_until(lambda: _incidents(machine)[0]["state"] == "verified", 60, 0.3,
                           "the rollback is verified")  # fmt: skip
            incidents = _incidents(machine)
        finally:
            machine.process.stop()

    assert producer.fault is None
    assert ["shift", "promote", "rollback"] == [post["action"] for post in platform.effective]
    assert {"v41": 100.0, "v42": 0.0} == platform.shares
    assert ["breach", "promotion"] == [incident["kind"] for incident in incidents]


def _serving(machine: Machine) -> tuple[Any, Any] | None:
    status = machine.get(f"/v1/models/{MODEL}")
    return None if status is None else (status["stable"], status["canary"])


def _incidents(machine: Machine) -> list[dict[str, Any]]:
    found = machine.get("/v1/incidents")
    listed = found["incidents"] if isinstance(found, dict) else found
    return listed or [{"state": "", "kind": ""}]
