"""The whole daemon with the real controllers of Argo Rollouts and Flagger, both ways round.

Argo asks rollbackd (its `web` metric), or rollbackd tells Argo; Flagger asks its rollback hook.
Traffic follows the weights that the controllers write.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from service.clock import WallClock
from tests.contracts.kube_benches import RolloutBench, ns
from tests.e2e.platform import MODEL, Platform, Producer
from tests.e2e.test_one_machine import Machine
from tests.kube import Kube, Refused, Relay, a_deployment
from tests.real import wait_until

pytestmark = pytest.mark.kube
LONG_S = 150.0


class Followed:
    """What serves, as the controller's own route object says it; read twice a second."""

    def __init__(self, read: Callable[[], dict[str, float]]) -> None:
        self._read = read
        self.shares: dict[str, float] = {"v41": 80.0, "v42": 20.0}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def begin(self) -> None:
        """Until now the canary's traffic is made up, so that it is known here before Argo asks."""
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()

    def _follow(self) -> None:
        while not self._stop.wait(0.5):
            self.shares = {"v41": 0.0, "v42": 0.0} | self._read()


@contextmanager
def producing(machine: Machine, followed: Followed) -> Iterator[Producer]:
    """Events as the route sends them, with a rollout plan before."""
    wait_until(machine.ready, 60, what="the daemon is ready")
    plan = {"model": MODEL, "stable": "v41", "canary": "v42", "weight": 0.2,
            "at": WallClock().now_ms()}  # fmt: skip
    machine.post("rollouts", [(MODEL, json.dumps(plan))])
    platform: Platform = followed  # type: ignore[assignment]
    with Producer(platform, machine.post) as producer:
        wait_until(lambda: _verdict(machine), 30, 0.2, "there is a verdict")
        yield producer
        followed.end()
    assert producer.fault is None


def _verdict(machine: Machine) -> str | None:
    found = machine.get(f"/v1/verdicts/{MODEL}?version=v42")
    return None if found is None else str(found["verdict"])


def _incident(machine: Machine) -> dict[str, Any]:
    found = machine.get("/v1/incidents")
    listed = found["incidents"] if found else []
    return dict(listed[0]) if listed else {"state": ""}


class Judged(RolloutBench):
    """A Rollout whose first step asks rollbackd."""

    def prepare(self) -> None:
        """Make v41 stable; the template comes when the address is known."""
        self.make_rollout("v41", [{"setWeight": 20}, {"pause": {}}])

    def phase(self) -> str:
        return str(self.kube.get(self.path)["status"].get("phase", ""))

    def gate(self, address: str) -> None:
        """Put the metric in place of the pause."""
        metric = {
            "name": "rollbackd",
            "interval": "1s",
            "count": 100000,
            "consecutiveSuccessLimit": 1,
            "inconclusiveLimit": 100000,
            "consecutiveErrorLimit": 30,
            "failureLimit": 0,
            "successCondition": 'result == "pass"',
            "failureCondition": 'result == "breach"',
            "provider": {
                "web": {
                    "url": f"{address}/v1/verdicts/{MODEL}?version=v42",
                    "timeoutSeconds": 5,
                    "jsonPath": "{$.verdict}",
                }
            },
        }
        base = {"apiVersion": "argoproj.io/v1alpha1", "kind": "AnalysisTemplate"}
        body = {**base, "metadata": {"name": "rollbackd"}, "spec": {"metrics": [metric]}}
        self.kube.make(ns("argoproj.io/v1alpha1", self.namespace, "analysistemplates"), body)
        analysis = {"analysis": {"templates": [{"templateName": "rollbackd"}]}}
        place = "/spec/strategy/canary/steps"
        steps = [{"setWeight": 20}, analysis]
        self.kube.patch(self.path, [{"op": "replace", "path": place, "value": steps}])


@pytest.fixture
def rollout(kube: Kube, tmp_path: Path) -> Iterator[Judged]:
    """A healthy Rollout at v41."""
    kube.install("argo")
    with kube.namespace() as namespace:
        relay = Relay(kube)  # not run: the adapter speaks TLS to the server itself
        yield Judged(kube, namespace, tmp_path, relay)


@pytest.mark.parametrize(("errors", "phase"), [(0.5, "Degraded"), (0.01, "Healthy")])
def test_argo_asks_and_does_as_the_verdict_says(
    rollout: Judged, tmp_path: Path, errors: float, phase: str
) -> None:
    """If this breaks, Argo promotes a bad canary, or a healthy one never gets on."""
    followed = Followed(rollout.shares)
    machine = Machine(tmp_path, "", {"kind": "dry_run"}, mode="observe")
    try:
        with producing(machine, followed) as producer:
            rollout.gate(machine.address)
            producer.errors["v42"] = errors
            rollout.image("v42")
            followed.begin()
            wait_until(lambda: rollout.shares().get("v42"), 60, what="the canary has traffic")
            wait_until(
                lambda: (rollout.phase(), len(rollout.shares())) == (phase, 1),
                LONG_S,
                0.3,
                f"the Rollout is {phase}",
            )
            verdict = _verdict(machine)
        shares, status = rollout.shares(), rollout.kube.get(rollout.path)["status"]
    finally:
        machine.process.stop()

    bad = phase == "Degraded"
    assert {"v41" if bad else "v42": 100.0} == shares
    assert ("breach" if bad else "pass") == verdict
    assert bad == bool(status.get("abort"))


def test_rollbackd_tells_argo_and_sees_it_in_the_traffic(rollout: Judged, tmp_path: Path) -> None:
    """If this breaks, a breach does not reach a Rollout, or nobody checks that it did."""
    followed = Followed(rollout.shares)
    _, settings = rollout.settings(server="")
    settings["kubeconfig"] = str(rollout.kube.kubeconfig(tmp_path / "own", rollout.token))
    adapter = {"kind": "argo_rollouts", **settings}
    machine = Machine(tmp_path, "", adapter)
    try:
        with producing(machine, followed) as producer:
            rollout.image("v42")
            wait_until(lambda: rollout.shares().get("v42"), 60, what="the canary has traffic")
            followed.begin()
            producer.errors["v42"] = 0.5
            wait_until(lambda: _incident(machine)["state"] == "verified", LONG_S, 0.3, "verified")
        shares, status = rollout.shares(), rollout.kube.get(rollout.path)["status"]
    finally:
        machine.process.stop()

    assert ({"v41": 100.0}, True) == (shares, status.get("abort"))


class Watched:
    """A Canary of the real Flagger, routed by an HTTPRoute."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace = kube, namespace
        kube.install("gateway")
        self.target = ns("apps/v1", namespace, "deployments")
        kube.make(self.target, a_deployment("fraud", "fraud:v41"))
        self.target += "/fraud"
        self.path = ns("flagger.app/v1beta1", namespace, "canaries", "fraud")

    def watch(self, address: str) -> None:
        """Make the Canary with rollbackd's hook."""
        hook = {
            "name": "rollbackd", "type": "rollback", "url": f"{address}/flagger/rollback",
            "timeout": "5s", "metadata": {"model": MODEL},
        }  # fmt: skip
        analysis = {
            "interval": "10s", "threshold": 5, "maxWeight": 50, "stepWeight": 20,
            "webhooks": [hook],
        }  # fmt: skip
        body = {
            "apiVersion": "flagger.app/v1beta1", "kind": "Canary", "metadata": {"name": "fraud"},
            "spec": {
                "targetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud"},
                "service": {"port": 80, "gatewayRefs": [{"name": "front", "namespace": "default"}]},
                "analysis": analysis,
            },
        }  # fmt: skip
        self.kube.make(self.path.removesuffix("/fraud"), body)
        wait_until(lambda: self.phase() == "Initialized", LONG_S, 0.5, "Flagger has begun")

    def phase(self) -> str:
        return str(self.kube.get(self.path).get("status", {}).get("phase", ""))

    def shares(self) -> dict[str, float]:
        path = ns("gateway.networking.k8s.io/v1", self.namespace, "httproutes", "fraud")
        try:
            legs = self.kube.get(path)["spec"]["rules"][0]["backendRefs"]
        except (Refused, KeyError):
            return {"v41": 100.0}
        found = {leg["name"]: float(leg["weight"]) for leg in legs}
        canary = found.get("fraud-canary", 0.0)
        return {"v41": 100.0 - canary, "v42": canary}


def test_flagger_asks_and_is_told_to_go_back(kube: Kube, tmp_path: Path) -> None:
    """If this breaks, a breach never reaches a Canary, since Flagger takes no orders."""
    with kube.namespace() as namespace:
        kube.install("flagger")
        canary = Watched(kube, namespace)
        file = kube.kubeconfig(tmp_path / "config", kube.account("flagger", namespace))
        adapter = {
            "kind": "flagger", "name": "fraud", "namespace": namespace, "kubeconfig": str(file),
            "versions": {"v41": "fraud:v41", "v42": "fraud:v42"},
        }  # fmt: skip
        machine, followed = Machine(tmp_path, "", adapter), Followed(canary.shares)
        try:
            with producing(machine, followed) as producer:
                canary.watch(machine.address)
                image = "/spec/template/spec/containers/0/image"
                kube.patch(canary.target, [{"op": "replace", "path": image, "value": "fraud:v42"}])
                wait_until(lambda: canary.shares().get("v42"), LONG_S, 0.5, "it has traffic")
                followed.begin()
                producer.errors["v42"] = 0.5
                wait_until(
                    lambda: _incident(machine)["state"] == "verified", LONG_S, 0.5, "verified"
                )
            shares, phase = canary.shares(), canary.phase()
        finally:
            machine.process.stop()

    assert ({"v41": 100.0, "v42": 0.0}, "Failed") == (shares, phase)
