"""Benches on a real Kubernetes API server: real objects, real locks, exactly the shipped rights.

Where a platform's controller does not run, the bench writes the status it would write, after the
write that it would follow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar

import service.act.adapters
from schemas.plugins import Registry
from service.act.adapters.base import Adapter
from tests.kube import Kube, Relay, a_deployment, pause, relaying, the_server
from tests.real import free_port, wait_until

VERSIONS = ("v41", "v42", "v43")
SPLIT = {"v41": 90.0, "v42": 10.0}
WHOLE = {"v42": 100.0}
REGISTRY = Registry.of(service.act.adapters)


class KubeBench:
    """One object in a namespace of its own, reached through a relay."""

    changes = True
    kind: ClassVar[str]
    start: ClassVar[dict[str, float]] = SPLIT
    params: ClassVar[dict[str, Any]] = {}

    def __init__(self, kube: Kube, namespace: str, home: Path, relay: Relay) -> None:
        self.kube, self.namespace, self.home, self.relay = kube, namespace, home, relay
        self.prepare()
        self.token = kube.account(self.kind, namespace)
        relay.after_write = self.follow

    # What a platform's bench fills in.

    def prepare(self) -> None:
        """Make the objects."""

    def shares(self) -> dict[str, float]:
        """Read what serves, as the administrator."""
        raise NotImplementedError

    def put(self, shares: dict[str, float]) -> None:
        """Set what serves, as the administrator."""
        raise NotImplementedError

    def follow(self) -> None:
        """Do what the platform's controller does after a write."""

    # The verbs of AdapterBench.

    def settings(self, server: str | None = None) -> tuple[str, dict[str, Any]]:
        file = self.kube.kubeconfig(
            self.home / f"config-{len(server or '')}", self.token, server or self.relay.url
        )
        common = {"name": "fraud", "namespace": self.namespace, "kubeconfig": str(file)}
        return self.kind, {**common, "settle_s": 20.0, "call_s": 60.0, **self.params}

    def adapter(self) -> Adapter:
        kind, settings = self.settings()
        made: Adapter = REGISTRY.make(kind, **settings)
        return made

    def lost(self) -> Adapter:
        kind, settings = self.settings(f"http://127.0.0.1:{free_port()}/")
        made: Adapter = REGISTRY.make(kind, **settings)
        return made

    def writes(self) -> list[str]:
        return list(self.relay.writes)

    def move(self, **shares: int) -> None:
        given = {version: float(share) for version, share in shares.items() if share}
        if self.start == WHOLE:
            given = {max(given): 100.0}
        self.put(given)
        self.follow()

    def lose_answer(self, done: bool) -> None:
        self.relay.faults = ["reset" if done else "lost"]

    def revert(self) -> None:
        def put_back() -> None:
            self.put(self.start)
            self.follow()

        self.relay.after_write = put_back

    def on_pause(self) -> None:
        pause()


def ns(group_version: str, namespace: str, plural: str, name: str = "") -> str:
    root = "/apis" if "/" in group_version else "/api"
    return f"{root}/{group_version}/namespaces/{namespace}/{plural}" + (f"/{name}" if name else "")


class DeploymentBench(KubeBench):
    """A Deployment with three ReplicaSets; the real controller rolls it."""

    kind, start = "kubernetes", WHOLE
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud:{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.path = ns("apps/v1", self.namespace, "deployments")
        self.kube.make(self.path, a_deployment("fraud", "fraud:v43"))
        self.path += "/fraud"
        self._rolled("v43")
        for version in ("v41", "v42"):
            self.put({version: 100.0})

    def put(self, shares: dict[str, float]) -> None:
        (version,) = shares
        place = "/spec/template/spec/containers/0/image"
        value = f"fraud:{version}"
        self.kube.patch(self.path, [{"op": "replace", "path": place, "value": value}])
        self._rolled(version)

    def _rolled(self, version: str) -> None:
        wait_until(lambda: {version: 100.0} == self.shares(), 60, what=f"{version} is rolled out")

    def shares(self) -> dict[str, float]:
        found: dict[str, float] = {}
        for one in self.kube.get(ns("apps/v1", self.namespace, "replicasets"))["items"]:
            if count := one.get("status", {}).get("replicas", 0):
                image = one["spec"]["template"]["spec"]["containers"][0]["image"]
                found[image.partition(":")[2]] = count
        return {version: 100 * count / sum(found.values()) for version, count in found.items()}


class ServiceBench(KubeBench):
    """A Service and three Deployments; the endpoints controller is played."""

    kind, start = "kubernetes_service", WHOLE
    params: ClassVar[dict[str, Any]] = {
        "versions": {v: v for v in VERSIONS},
        "deployments": {v: f"fraud-{v}" for v in VERSIONS},
    }

    def prepare(self) -> None:
        path = ns("apps/v1", self.namespace, "deployments")
        for version in VERSIONS:
            labels = {"version": version}
            self.kube.make(path, a_deployment(f"fraud-{version}", "fraud:1", labels=labels))
        self.path = ns("v1", self.namespace, "services", "fraud")
        spec = {"selector": {"version": "v42"}, "ports": [{"port": 80}]}
        body = {"metadata": {"name": "fraud"}, "spec": spec}
        self.kube.make(ns("v1", self.namespace, "services"), body)
        for version in VERSIONS:
            wait_until(lambda v=version: self._available(v), 60, what=f"{version} has a pod")
        self.follow()

    def _available(self, version: str) -> int:
        found = self.kube.get(ns("apps/v1", self.namespace, "deployments", f"fraud-{version}"))
        return int(found["status"].get("availableReplicas", 0))

    def put(self, shares: dict[str, float]) -> None:
        (version,) = shares
        self.kube.patch(self.path, {"spec": {"selector": {"version": version}}})

    def shares(self) -> dict[str, float]:
        return {self.kube.get(self.path)["spec"]["selector"]["version"]: 100.0}

    def follow(self) -> None:
        (version,) = self.shares()
        path = ns("v1", self.namespace, "pods") + f"?labelSelector=version%3D{version}"
        names = [one["metadata"]["name"] for one in self.kube.get(path)["items"]]
        endpoints = [
            {
                "addresses": [f"10.0.0.{9 + index}"],
                "conditions": {"ready": True},
                "targetRef": {"kind": "Pod", "name": name, "namespace": self.namespace},
            }
            for index, name in enumerate(names)
        ]
        slices = ns("discovery.k8s.io/v1", self.namespace, "endpointslices")
        labels = {"kubernetes.io/service-name": "fraud"}
        body = {
            "metadata": {"name": "fraud-1", "labels": labels},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [],
        }
        with contextlib.suppress(Exception):
            self.kube.call("DELETE", f"{slices}/fraud-1")
        self.kube.make(slices, body)


class IstioBench(KubeBench):
    """The real CRD; no proxy obeys it."""

    kind = "istio"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud-{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.kube.install("istio")
        self.path = ns("networking.istio.io/v1", self.namespace, "virtualservices")
        spec = {"hosts": ["fraud"], "http": [{"timeout": "3s", "route": self.legs(SPLIT)}]}
        self.kube.make(
            self.path,
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "fraud"},
                "spec": spec,
            },
        )
        self.path += "/fraud"

    def legs(self, shares: dict[str, float]) -> list[dict[str, Any]]:
        return [
            {"destination": {"host": f"fraud-{v}"}, "weight": round(shares.get(v, 0))}
            for v in VERSIONS
        ]

    def put(self, shares: dict[str, float]) -> None:
        place = [{"op": "replace", "path": "/spec/http/0/route", "value": self.legs(shares)}]
        self.kube.patch(self.path, place)

    def shares(self) -> dict[str, float]:
        legs = self.kube.get(self.path)["spec"]["http"][0]["route"]
        found = {leg["destination"]["host"][-3:]: float(leg.get("weight", 0)) for leg in legs}
        return {version: share for version, share in found.items() if share}


class GatewayBench(KubeBench):
    """The real CRD; the gateway's word for what it accepted is played."""

    kind = "gateway_api"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud-{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.kube.install("gateway")
        self.path = ns("gateway.networking.k8s.io/v1", self.namespace, "httproutes")
        spec = {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": self.legs(SPLIT)}]}
        self.kube.make(
            self.path,
            {
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {"name": "fraud"},
                "spec": spec,
            },
        )
        self.path += "/fraud"
        self.follow()

    def legs(self, shares: dict[str, float]) -> list[dict[str, Any]]:
        return [
            {"name": f"fraud-{v}", "port": 80, "weight": round(shares.get(v, 0))} for v in VERSIONS
        ]

    def put(self, shares: dict[str, float]) -> None:
        place = "/spec/rules/0/backendRefs"
        self.kube.patch(self.path, [{"op": "replace", "path": place, "value": self.legs(shares)}])

    def shares(self) -> dict[str, float]:
        legs = self.kube.get(self.path)["spec"]["rules"][0]["backendRefs"]
        total = sum(leg["weight"] for leg in legs)
        return {leg["name"][-3:]: 100 * leg["weight"] / total for leg in legs if leg["weight"]}

    def follow(self) -> None:
        generation = self.kube.get(self.path)["metadata"]["generation"]
        conditions = [
            {
                "type": name,
                "status": "True",
                "reason": name,
                "message": "",
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for name in ("Accepted", "ResolvedRefs")
        ]
        parent = {"parentRef": {"name": "front"}, "controllerName": "test/x"}
        status = {"parents": [{**parent, "conditions": conditions}]}
        self.kube.patch(f"{self.path}/status", {"status": status})


class RolloutBench(KubeBench):
    """A Rollout of the real controller, which moves an Istio VirtualService."""

    kind = "argo_rollouts"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud:{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        steps = [{"setWeight": 10}, {"pause": {}}, {"setWeight": 30}, {"pause": {}}]
        self.make_rollout("v41", steps)
        self.image("v42")
        self._reach(SPLIT, "Paused")

    def make_rollout(self, version: str, steps: list[dict[str, Any]]) -> None:
        """Make a Rollout that is done with a version."""
        self.kube.install("argo")
        self.kube.install("istio")
        for name in ("fraud-stable", "fraud-canary"):
            spec = {"selector": {"app": "fraud"}, "ports": [{"port": 80}]}
            body = {"metadata": {"name": name}, "spec": spec}
            self.kube.make(ns("v1", self.namespace, "services"), body)
        legs = [
            {"destination": {"host": "fraud-stable"}, "weight": 100},
            {"destination": {"host": "fraud-canary"}, "weight": 0},
        ]
        self.kube.make(
            ns("networking.istio.io/v1", self.namespace, "virtualservices"),
            {
                "apiVersion": "networking.istio.io/v1",
                "kind": "VirtualService",
                "metadata": {"name": "fraud"},
                "spec": {"hosts": ["fraud"], "http": [{"name": "main", "route": legs}]},
            },
        )
        self.path = ns("argoproj.io/v1alpha1", self.namespace, "rollouts")
        made = a_deployment("fraud", f"fraud:{version}")
        made |= {"apiVersion": "argoproj.io/v1alpha1", "kind": "Rollout"}
        made["spec"]["strategy"] = {
            "canary": {
                "stableService": "fraud-stable",
                "canaryService": "fraud-canary",
                "abortScaleDownDelaySeconds": 0,
                "trafficRouting": {"istio": {"virtualService": {"name": "fraud"}}},
                "steps": steps,
            }
        }
        self.kube.make(self.path, made)
        self.path += "/fraud"
        self._reach({version: 100.0}, "Healthy")

    def image(self, version: str) -> None:
        place = "/spec/template/spec/containers/0/image"
        value = f"fraud:{version}"
        self.kube.patch(self.path, [{"op": "replace", "path": place, "value": value}])

    def _reach(self, shares: dict[str, float], phase: str) -> None:
        def there() -> bool:
            said = self.kube.get(self.path).get("status", {}).get("phase")
            return phase == said and shares == self.shares()

        wait_until(there, 90, what=f"the Rollout serves {shares} and is {phase}")

    def put(self, shares: dict[str, float]) -> None:
        status = f"{self.path}/status"
        if shares == {"v41": 100.0}:
            self.kube.patch(status, {"status": {"abort": True}})
            self._reach(shares, "Degraded")
        elif "v43" in shares:
            self.image("v43")
            self._reach({"v41": 90.0, "v43": 10.0}, "Paused")
        elif shares == SPLIT:
            self.kube.patch(status, {"status": {"abort": False}})
            self._reach(SPLIT, "Paused")
        else:
            self.kube.patch(status, {"status": {"pauseConditions": None}})
            self._reach({"v41": 70.0, "v42": 30.0}, "Paused")

    def shares(self) -> dict[str, float]:
        """What the VirtualService says, with names from the ReplicaSets."""
        path = ns("networking.istio.io/v1", self.namespace, "virtualservices", "fraud")
        legs = self.kube.get(path)["spec"]["http"][0]["route"]
        status = self.kube.get(self.path).get("status", {})
        names = {}
        for one in self.kube.get(ns("apps/v1", self.namespace, "replicasets"))["items"]:
            image = one["spec"]["template"]["spec"]["containers"][0]["image"]
            names[one["metadata"]["labels"]["rollouts-pod-template-hash"]] = image[-3:]
        stable = names.get(status.get("stableRS"), "?")
        canary = names.get(status.get("currentPodHash"), "?")
        found = {stable: float(legs[0]["weight"])}
        found[canary] = found.get(canary, 0.0) + float(legs[1]["weight"])
        return {version: share for version, share in found.items() if share}


class KServeBench(KubeBench):
    """Names of KServe's own with an open schema; what its controller does is played."""

    kind = "kserve"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud-{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.kube.install_open("serving.kserve.io", "v1beta1", "InferenceService")
        self.path = ns("serving.kserve.io/v1beta1", self.namespace, "inferenceservices")
        predictor = {"canaryTrafficPercent": 10, "model": {"storageUri": "s3://fraud/42"}}
        self.kube.make(
            self.path,
            {
                "apiVersion": "serving.kserve.io/v1beta1",
                "kind": "InferenceService",
                "metadata": {"name": "fraud"},
                "spec": {"predictor": predictor},
            },
        )
        self.path += "/fraud"
        self.follow()

    def follow(self) -> None:
        found = self.kube.get(self.path)
        percent = found["spec"]["predictor"].get("canaryTrafficPercent", 100)
        self._say({"v42": percent, "v41": 100 - percent})

    def _say(self, shares: dict[str, float]) -> None:
        generation = self.kube.get(self.path)["metadata"]["generation"]
        traffic = [{"revisionName": f"fraud-{v}", "percent": p} for v, p in shares.items()]
        predictor = {
            "traffic": traffic,
            "latestReadyRevision": "fraud-v42",
            "latestCreatedRevision": "fraud-v42",
            "latestRolledoutRevision": "fraud-v42" if shares.get("v42") == 100 else "fraud-v41",
            "previousRolledoutRevision": "fraud-v41",
        }
        status = {
            "observedGeneration": generation,
            "conditions": [{"type": "Ready", "status": "True"}],
            "components": {"predictor": predictor},
        }
        self.kube.patch(f"{self.path}/status", {"status": status})

    def put(self, shares: dict[str, float]) -> None:
        percent = round(shares.get("v42", 0))
        self.kube.patch(self.path, {"spec": {"predictor": {"canaryTrafficPercent": percent}}})

    def move(self, **shares: int) -> None:
        super().move(**shares)
        if "v43" in shares:
            self._say({version: float(share) for version, share in shares.items()})

    def shares(self) -> dict[str, float]:
        traffic = self.kube.get(self.path)["status"]["components"]["predictor"]["traffic"]
        found = {one["revisionName"][-3:]: float(one["percent"]) for one in traffic}
        return {version: share for version, share in found.items() if share}


class SeldonBench(KubeBench):
    """Names of Seldon's own with an open schema; what its scheduler does is played."""

    kind = "seldon"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud-{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.kube.install_open("mlops.seldon.io", "v1alpha1", "Experiment")
        self.path = ns("mlops.seldon.io/v1alpha1", self.namespace, "experiments")
        self.kube.make(
            self.path,
            {
                "apiVersion": "mlops.seldon.io/v1alpha1",
                "kind": "Experiment",
                "metadata": {"name": "fraud"},
                "spec": {"default": "fraud-v41", "candidates": self.legs(SPLIT)},
            },
        )
        self.path += "/fraud"
        self.follow()

    def legs(self, shares: dict[str, float]) -> list[dict[str, Any]]:
        return [{"name": f"fraud-{v}", "weight": round(share)} for v, share in shares.items()]

    def put(self, shares: dict[str, float]) -> None:
        self.kube.patch(self.path, {"spec": {"candidates": self.legs(shares)}})

    def shares(self) -> dict[str, float]:
        candidates = self.kube.get(self.path)["spec"]["candidates"]
        return {one["name"][-3:]: float(one["weight"]) for one in candidates}

    def follow(self) -> None:
        generation = self.kube.get(self.path)["metadata"]["generation"]
        status = {"conditions": [{"type": "Ready", "status": "True"}]}
        self.kube.patch(
            f"{self.path}/status", {"status": {**status, "observedGeneration": generation}}
        )


class FlaggerBench(KubeBench):
    """The real CRD; what Flagger does after its hook said yes is played."""

    kind = "flagger"
    params: ClassVar[dict[str, Any]] = {"versions": {v: f"fraud:{v}" for v in VERSIONS}}

    def prepare(self) -> None:
        self.kube.install("flagger")
        path = ns("apps/v1", self.namespace, "deployments")
        self.kube.make(path, a_deployment("fraud", "fraud:v42"))
        self.kube.make(path, a_deployment("fraud-primary", "fraud:v41"))
        self.path = ns("flagger.app/v1beta1", self.namespace, "canaries")
        hook = {"name": "rollbackd", "type": "rollback", "url": "http://127.0.0.1:9/"}
        target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "fraud"}
        analysis = {"interval": "10s", "threshold": 5, "stepWeight": 10, "webhooks": [hook]}
        # Suspended, so that a controller that runs here leaves the status to us.
        spec = {"suspend": True, "targetRef": target, "analysis": analysis}
        spec["service"] = {"port": 80}
        self.kube.make(
            self.path,
            {
                "apiVersion": "flagger.app/v1beta1",
                "kind": "Canary",
                "metadata": {"name": "fraud"},
                "spec": spec,
            },
        )
        self.path += "/fraud"
        wait_until(self._available, 60, what="the primary has a pod")
        self.put(SPLIT)

    def _available(self) -> int:
        found = self.kube.get(ns("apps/v1", self.namespace, "deployments", "fraud-primary"))
        return int(found["status"].get("availableReplicas", 0))

    def put(self, shares: dict[str, float]) -> None:
        bad = next((version for version in ("v43", "v42") if version in shares), "")
        if bad:
            place = "/spec/template/spec/containers/0/image"
            path = ns("apps/v1", self.namespace, "deployments", "fraud")
            self.kube.patch(path, [{"op": "replace", "path": place, "value": f"fraud:{bad}"}])
        self._say("Progressing" if bad else "Failed", round(shares.get(bad, 0)))

    def _say(self, phase: str, weight: int) -> None:
        status = {
            "phase": phase,
            "canaryWeight": weight,
            "failedChecks": 0,
            "iterations": 0,
            "lastAppliedSpec": "x",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }

        def said() -> bool:
            # A controller that runs here says once that it begins; ours is the last word.
            self.kube.patch(f"{self.path}/status", {"status": status})
            time.sleep(0.1)
            return bool(self.kube.get(self.path)["status"]["phase"] == phase)

        wait_until(said, 30, what="the status is ours")

    def follow(self) -> None:
        """Flagger asked, was told yes, and rolled back; unless somebody moved it before."""
        if self.relay.writes:
            self._say("Failed", 0)

    def move(self, **shares: int) -> None:
        self.put({version: float(share) for version, share in shares.items() if share})

    def revert(self) -> None:
        self.relay.after_write = lambda: self.put(SPLIT)

    def shares(self) -> dict[str, float]:
        status = self.kube.get(self.path)["status"]
        path = ns("apps/v1", self.namespace, "deployments", "fraud")
        image = self.kube.get(path)["spec"]["template"]["spec"]["containers"][0]["image"]
        weight = float(status["canaryWeight"])
        found = {"v41": 100.0 - weight, image[-3:]: weight}
        return {version: share for version, share in found.items() if share}


KUBE: dict[str, type[KubeBench]] = {
    bench.kind: bench
    for bench in (
        DeploymentBench,
        ServiceBench,
        IstioBench,
        GatewayBench,
        RolloutBench,
        KServeBench,
        SeldonBench,
        FlaggerBench,
    )
}


def opener(kind: str) -> Callable[[Path, Callable[[], float]], Any]:
    """Open a bench by its kind."""

    @asynccontextmanager
    async def opened(home: Path, now_s: Callable[[], float]) -> AsyncIterator[KubeBench]:
        kube = the_server()
        with kube.namespace() as namespace:
            async with relaying(kube) as relay:
                yield KUBE[kind](kube, namespace, home, relay)

    return opened
