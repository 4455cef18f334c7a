"""What is particular to each platform of the Kubernetes family, on a real API server."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from schemas.commands import Command, Expected
from service.act.adapters.gateway_api import GatewayApi
from service.act.adapters.istio import Istio
from service.act.adapters.kubernetes import Kubernetes
from tests.builders import a_command
from tests.contracts.kube_benches import REGISTRY, WHOLE, KubeBench, ns, opener
from tests.kube import Kube, a_deployment
from tests.real import wait_until
from tests.service.act.executing import Bed

pytestmark = pytest.mark.kube
Open = Callable[[str], AbstractAsyncContextManager[KubeBench]]


@pytest.fixture
def opened(kube: Kube, tmp_path: Path, bed: Bed) -> Open:
    """`async with opened(kind) as bench`."""

    def make(kind: str) -> AbstractAsyncContextManager[KubeBench]:
        made: AbstractAsyncContextManager[KubeBench] = opener(kind)(tmp_path, lambda: 0.0)
        return made

    return make


@pytest.fixture
async def istio(opened: Open, bed: Bed) -> AsyncIterator[KubeBench]:
    async with opened("istio") as bench:
        bed.on_pause = bench.on_pause
        yield bench


def an_order(bench: KubeBench, **changes: object) -> Command:
    expected = Expected("v41", "v42", bench.start["v42"] / 100)
    return a_command(**{"expected": expected, **changes})


def with_(bench: KubeBench, **changes: Any) -> Any:
    kind, settings = bench.settings()
    return REGISTRY.make(kind, **{**settings, **changes})


# Istio and the Gateway API


async def test_testers_and_mirrors_are_taken_off_the_bad_version_too(
    istio: KubeBench, bed: Bed
) -> None:
    """If this breaks, a header match or a mirror keeps sending requests to the bad version."""
    side = {
        "match": [{"headers": {"x-canary": {"exact": "1"}}}],
        "route": [{"destination": {"host": "fraud-v42", "port": {"number": 80}}}],
    }
    other = {
        "match": [{"uri": {"prefix": "/other"}}],
        "route": [{"destination": {"host": "other"}}],
        "mirror": {"host": "fraud-v42"},
        "mirrorPercentage": {"value": 5},
    }
    split = istio.kube.get(istio.path)["spec"]["http"][0]  # type: ignore[attr-defined]
    istio.kube.patch(istio.path, {"spec": {"http": [side, other, split]}})  # type: ignore[attr-defined]

    receipt = await bed.execute(istio.adapter(), an_order(istio))
    again = await bed.execute(istio.adapter(), an_order(istio, command_id="c2"))

    http = istio.kube.get(istio.path)["spec"]["http"]  # type: ignore[attr-defined]
    assert ("applied", "already_there") == (receipt.status, again.status), receipt
    assert {"host": "fraud-v41", "port": {"number": 80}} == http[0]["route"][0]["destination"]
    assert side["match"] == http[0]["match"]
    assert {"match": other["match"], "route": other["route"]} == http[1]
    assert [100, 0, 0] == [leg.get("weight", 0) for leg in http[2]["route"]]
    assert "3s" == http[2]["timeout"]


async def test_the_undo_in_the_receipt_works(istio: KubeBench, bed: Bed) -> None:
    """If this breaks, a person who takes a rollback back does not get what there was."""
    before = istio.kube.get(istio.path)["spec"]  # type: ignore[attr-defined]
    receipt = await bed.execute(istio.adapter(), an_order(istio))
    (command,) = receipt.detail["undo"]
    patch = json.loads(command.partition(" -p '")[2].removesuffix("'"))
    istio.kube.patch(istio.path, patch)  # type: ignore[attr-defined]

    assert before == istio.kube.get(istio.path)["spec"]  # type: ignore[attr-defined]


async def test_a_reordered_route_is_a_conflict_and_no_wrong_weight(
    istio: KubeBench, bed: Bed
) -> None:
    """If this breaks, an index that moved gives all traffic to the bad version."""

    def reorder() -> None:
        istio.relay.before_write = lambda: None
        legs = istio.kube.get(istio.path)["spec"]["http"][0]["route"]  # type: ignore[attr-defined]
        place = {"op": "replace", "path": "/spec/http/0/route", "value": legs[::-1]}
        istio.kube.patch(istio.path, [place])  # type: ignore[attr-defined]

    istio.relay.before_write = reorder
    receipt = await bed.execute(istio.adapter(), an_order(istio))

    assert ("applied", {"v41": 100.0}, 2) == (receipt.status, istio.shares(), receipt.attempts)


async def test_who_owns_the_weights_is_named_and_left_alone(istio: KubeBench, bed: Bed) -> None:
    """If this breaks, a controller puts the bad version back and nobody knows which one."""
    place = [{"op": "replace", "path": "/spec/http/0/route/0/weight", "value": 90}]
    path = f"{istio.path}?fieldManager=weight-bot"  # type: ignore[attr-defined]
    istio.kube.call("PATCH", path, place, "application/json-patch+json")
    place[0]["value"] = 91
    istio.kube.call("PATCH", path, place, "application/json-patch+json")
    place[0]["value"] = 90
    istio.kube.call("PATCH", path, place, "application/json-patch+json")

    refused = await bed.execute(istio.adapter(), an_order(istio))
    known = await bed.execute(with_(istio, writers=["weight-bot"]), an_order(istio))

    assert ("refused", "owned", "weight-bot") == (
        refused.status,
        refused.detail["reason"],
        refused.detail["owner"],
    )
    assert "applied" == known.status


async def test_a_route_of_argo_rollouts_is_left_to_it(opened: Open, bed: Bed) -> None:
    """If this breaks, Argo puts the canary's weight back half a second later."""
    async with opened("argo_rollouts") as bench:
        _, settings = bench.settings()
        token = bench.kube.account("istio", bench.namespace)
        file = Path(settings["kubeconfig"]).with_name("istio")
        settings["kubeconfig"] = str(bench.kube.kubeconfig(file, token, bench.relay.url))
        hosts = {"v41": "fraud-stable", "v42": "fraud-canary"}
        receipt = await bed.execute(Istio(**{**settings, "versions": hosts}), an_order(bench))

    assert ("refused", "owned", []) == (receipt.status, receipt.detail["reason"], bench.writes())
    assert "argo_rollouts" in receipt.detail["text"]


async def test_argo_cd_is_told_of(istio: KubeBench, bed: Bed) -> None:
    """If this breaks, GitOps takes a rollback back minutes later and the receipt said nothing."""
    mark = {"argocd.argoproj.io/tracking-id": "fraud:networking.istio.io/VirtualService:x/fraud"}
    istio.kube.patch(istio.path, {"metadata": {"annotations": mark}})  # type: ignore[attr-defined]

    receipt = await bed.execute(istio.adapter(), an_order(istio))

    assert ("applied", "Argo CD (fraud)") == (receipt.status, receipt.detail["owner"])
    assert "put its own state back" in receipt.detail["notes"][0]


async def test_a_version_asleep_is_scaled_up_before_traffic_moves(
    istio: KubeBench, bed: Bed
) -> None:
    """If this breaks, a rollback sends everyone to a version without a pod."""
    path = ns("apps/v1", istio.namespace, "deployments")
    istio.kube.make(path, a_deployment("fraud-v41", "fraud:v41", replicas=0))
    istio.kube.make(path, a_deployment("fraud-v42", "fraud:v42", replicas=2))
    adapter = with_(istio, deployments={"v41": "fraud-v41", "v42": "fraud-v42"})

    receipt = await bed.execute(adapter, an_order(istio))

    assert ("applied", {"v41": 100.0}) == (receipt.status, istio.shares()), receipt
    found = istio.kube.get(f"{path}/fraud-v41")
    assert (2, 2) == (found["spec"]["replicas"], found["status"]["availableReplicas"])
    assert "scale" in istio.writes()[0]
    assert "virtualservices" in istio.writes()[-1]


async def test_a_version_that_is_not_ready_gets_no_traffic(istio: KubeBench, bed: Bed) -> None:
    """If this breaks, traffic moves to pods that cannot start."""
    path = ns("apps/v1", istio.namespace, "deployments")
    istio.kube.make(path, a_deployment("fraud-v41", "bad:v41"))
    adapter = with_(istio, deployments={"v41": "fraud-v41"})

    receipt = await bed.execute(adapter, an_order(istio))

    assert ("refused", "not_ready", []) == (
        receipt.status,
        receipt.detail["reason"],
        istio.writes(),
    )


async def test_a_route_that_its_gateway_does_not_take_is_not_called_applied(
    opened: Open, bed: Bed
) -> None:
    """If this breaks, a stored HTTPRoute is taken for moved traffic."""
    async with opened("gateway_api") as bench:
        bed.on_pause = bench.on_pause
        bench.relay.after_write = lambda: None
        receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("failed", "unconfirmed", "unknown") == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["effect"],
    )


async def test_a_request_mirror_to_the_bad_version_goes(opened: Open, bed: Bed) -> None:
    """If this breaks, the bad version still gets a copy of every request."""
    async with opened("gateway_api") as bench:
        backend = {"name": "fraud-v42", "port": 80}
        mirror = {"type": "RequestMirror", "requestMirror": {"backendRef": backend}}
        place = [{"op": "add", "path": "/spec/rules/0/filters", "value": [mirror]}]
        bench.kube.patch(bench.path, place)  # type: ignore[attr-defined]
        bench.follow()
        receipt = await bed.execute(bench.adapter(), an_order(bench))
        rule = bench.kube.get(bench.path)["spec"]["rules"][0]  # type: ignore[attr-defined]

    assert "applied" == receipt.status
    assert not rule.get("filters")


# Deployments and Services


async def test_a_rollout_that_is_stuck_is_rolled_back(opened: Open, bed: Bed) -> None:
    """If this breaks, a version that never becomes ready cannot be taken out."""
    async with opened("kubernetes") as bench:
        bed.on_pause = bench.on_pause
        bench.move(v41=100)
        place = "/spec/template/spec/containers/0/image"
        patch = [{"op": "replace", "path": place, "value": "bad:v44"}]
        bench.kube.patch(bench.path, patch)  # type: ignore[attr-defined]
        wait_until(lambda: len(bench.shares()) == 2, 30, what="both versions have pods")
        adapter = with_(bench, versions={"v41": "fraud:v41", "v42": "bad:v44"})
        expected = Expected("v41", "v42", 0.5)
        receipt = await bed.execute(adapter, a_command(expected=expected))
        bench_shares = bench.shares()

    assert ("applied", {"v41": 100.0}) == (receipt.status, bench_shares), receipt


async def test_a_secret_in_a_pod_template_is_stored_nowhere(
    opened: Open, bed: Bed, tmp_path: Path
) -> None:
    """If this breaks, a password from a Deployment's environment lies in rollbackd's database."""
    async with opened("kubernetes") as bench:
        bed.on_pause = bench.on_pause
        path = bench.path  # type: ignore[attr-defined]
        env = [{"name": "PASSWORD", "value": "canary-password"}]
        place = "/spec/template/spec/containers/0"
        secret = [
            {"op": "add", "path": f"{place}/env", "value": env},
            {"op": "replace", "path": f"{place}/image", "value": "fraud:v44"},
        ]
        bench.kube.patch(path, secret)
        wait_until(lambda: bench.shares() == {"v44": 100.0}, 60, what="v44 is rolled out")
        good = [{"op": "replace", "path": f"{place}/image", "value": "fraud:v45"}]
        bench.kube.patch(path, good)
        wait_until(lambda: bench.shares() == {"v45": 100.0}, 60, what="v45 is rolled out")
        adapter = with_(bench, versions={"v41": "fraud:v44", "v42": "fraud:v45"})
        receipt = await bed.execute(adapter, an_order(bench))
        served = bench.kube.get(path)["spec"]["template"]["spec"]["containers"][0]
        stored = _stored(tmp_path)

    assert ("applied", "fraud:v44", env) == (receipt.status, served["image"], served["env"])
    assert receipt.command_id.encode() in stored
    assert b"canary-password" not in stored
    assert "canary-password" not in str(receipt)


def _stored(home: Path) -> bytes:
    return b"".join(file.read_bytes() for file in home.glob("act.db*"))


async def test_our_hold_ends_with_a_rollback_and_a_person_s_does_not(
    opened: Open, bed: Bed
) -> None:
    """If this breaks, a held Deployment cannot be rolled back, or a person's pause is lifted."""
    async with opened("kubernetes") as bench:
        bed.on_pause = bench.on_pause
        adapter, path = bench.adapter(), bench.path  # type: ignore[attr-defined]
        held = await bed.execute(adapter, an_order(bench, action="hold"))
        again = await bed.execute(adapter, an_order(bench, action="hold", command_id="c2"))
        back = await bed.execute(adapter, an_order(bench, command_id="c3"))
        after = bench.kube.get(path)["spec"].get("paused", False)
        bench.move(v42=100)
        bench.kube.patch(path, {"spec": {"paused": True}})
        refused = await bed.execute(adapter, an_order(bench, command_id="c4"))

    assert ("applied", "already_there") == (held.status, again.status)
    assert ("applied", False) == (back.status, after), back
    assert ("refused", "paused") == (refused.status, refused.detail["reason"])


async def test_a_version_whose_replica_set_is_gone_is_refused(opened: Open, bed: Bed) -> None:
    """If this breaks, a rollback invents a pod template."""
    async with opened("kubernetes") as bench:
        versions = {"v40": "fraud:v40", "v42": "fraud:v42"}
        expected = Expected("v40", "v42", 1.0)
        command = a_command(to_version="v40", expected=expected)
        receipt = await bed.execute(with_(bench, versions=versions), command)

    assert ("refused", "no_target") == (receipt.status, receipt.detail["reason"])
    assert [] == bench.writes()


async def test_a_service_does_not_move_to_pods_that_are_not_ready(opened: Open, bed: Bed) -> None:
    """If this breaks, a selector empties the Service at once."""
    async with opened("kubernetes_service") as bench:
        bed.on_pause = bench.on_pause
        path = ns("apps/v1", bench.namespace, "deployments", "fraud-v41")
        place = "/spec/template/spec/containers/0/image"
        scale = {"op": "replace", "path": "/spec/replicas", "value": 0}
        bench.kube.patch(path, [scale])
        wait_until(
            lambda: not bench.kube.get(path)["status"].get("replicas"), 30, what="it has no pods"
        )
        asleep = await bed.execute(bench.adapter(), an_order(bench))
        woken = bench.shares()
        bench.move(v42=100)
        bench.kube.patch(path, [{"op": "replace", "path": place, "value": "bad:1"}, scale])
        wait_until(
            lambda: not bench.kube.get(path)["status"].get("replicas"), 30, what="it has no pods"
        )
        bench.kube.patch(path, {"spec": {"replicas": 1}})
        ill = await bed.execute(bench.adapter(), an_order(bench, command_id="c2"))

    assert ("applied", {"v41": 100.0}) == (asleep.status, woken), asleep
    assert ("refused", "not_ready") == (ill.status, ill.detail["reason"])
    assert WHOLE == {"v42": 100.0}


# Argo Rollouts, by its real controller


async def test_a_promoted_rollout_is_undone_by_its_template(opened: Open, bed: Bed) -> None:
    """If this breaks, an abort of a finished rollout is answered with 200 and changes nothing."""
    async with opened("argo_rollouts") as bench:
        bed.on_pause = bench.on_pause
        path = bench.path  # type: ignore[attr-defined]
        bench.kube.patch(path, {"spec": {"rollbackWindow": {"revisions": 3}}})
        _promote(bench, "v42")
        # Argo tells older from newer by whole seconds.
        started = time.monotonic()
        wait_until(lambda: time.monotonic() - started > 1.2, 10, what="a second has passed")
        place = "/spec/template/spec/containers/0/image"
        bench.kube.patch(path, [{"op": "replace", "path": place, "value": "fraud:v43"}])
        wait_until(lambda: "v43" in bench.shares(), 60, what="v43 is the canary")
        _promote(bench, "v43")
        changes = {"from_version": "v43", "to_version": "v42"}
        command = a_command(expected=Expected("v42", "v43", 1.0), **changes)
        receipt = await bed.execute(bench.adapter(), command)
        again = await bed.execute(bench.adapter(), command)
        after = bench.shares()

    assert ("applied", {"v42": 100.0}) == (receipt.status, after), receipt
    assert "already_there" == again.status


def _promote(bench: KubeBench, version: str) -> None:
    path = bench.path  # type: ignore[attr-defined]
    bench.kube.patch(f"{path}/status", {"status": {"promoteFull": True}})

    def promoted() -> bool:
        said = bench.kube.get(path)["status"].get("phase")
        return said == "Healthy" and bench.shares() == {version: 100.0}

    wait_until(promoted, 60, what=f"{version} is promoted")


async def test_an_undo_that_stops_at_a_step_is_partial(opened: Open, bed: Bed) -> None:
    """If this breaks, an undo that Argo holds at its first step is called a rollback."""
    async with opened("argo_rollouts") as bench:
        bed.on_pause = bench.on_pause
        _promote(bench, "v42")
        command = a_command(expected=Expected("v41", "v42", 1.0))
        receipt = await bed.execute(bench.adapter(), command)

    assert ("partial", "mixed") == (receipt.status, receipt.detail["effect"]), receipt
    assert "rollbackWindow" in receipt.detail["notes"][0]


async def test_an_abort_that_argo_made_itself_is_already_there(opened: Open, bed: Bed) -> None:
    """If this breaks, both directions meet and our command is called superseded or done twice."""
    async with opened("argo_rollouts") as bench:
        bench.move(v41=100)
        receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("already_there", []) == (receipt.status, bench.writes())


async def test_a_held_rollout_is_still_aborted(opened: Open, bed: Bed) -> None:
    """If this breaks, a hold keeps a bad version in."""
    async with opened("argo_rollouts") as bench:
        bed.on_pause = bench.on_pause
        held = await bed.execute(bench.adapter(), an_order(bench, action="hold"))
        back = await bed.execute(bench.adapter(), an_order(bench, command_id="c2"))
        after = bench.shares()

    assert ("applied", "applied", {"v41": 100.0}) == (held.status, back.status, after), back


async def test_an_abort_without_a_ready_stable_is_refused(opened: Open, bed: Bed) -> None:
    """If this breaks, Argo accepts an abort that moves nothing, and the receipt believes it."""
    async with opened("argo_rollouts") as bench:
        path = ns("apps/v1", bench.namespace, "replicasets")
        status = bench.kube.get(bench.path)["status"]  # type: ignore[attr-defined]
        label = f"?labelSelector=rollouts-pod-template-hash%3D{status['stableRS']}"
        (one,) = bench.kube.get(path + label)["items"]
        name = one["metadata"]["name"]
        pods = ns("v1", bench.namespace, "pods")
        bench.kube.patch(
            f"{path}/{name}",
            {"spec": {"template": {"metadata": {"annotations": {"kube-try/hold": "1"}}}}},
        )
        for pod in bench.kube.get(pods + label)["items"]:
            bench.kube.call("DELETE", f"{pods}/{pod['metadata']['name']}")
        wait_until(
            lambda: not bench.kube.get(f"{path}/{name}")["status"].get("availableReplicas"),
            30,
            what="the stable has no available pod",
        )
        receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("refused", "not_ready", []) == (
        receipt.status,
        receipt.detail["reason"],
        bench.writes(),
    )


# KServe, Seldon


async def test_seldon_never_gets_a_candidate_without_weight(opened: Open, bed: Bed) -> None:
    """If this breaks, Seldon goes on sending traffic to the bad model (issue 5181)."""
    async with opened("seldon") as bench:
        path = bench.path  # type: ignore[attr-defined]
        bench.kube.patch(path, {"spec": {"mirror": {"name": "fraud-v42", "percent": 5}}})
        receipt = await bed.execute(bench.adapter(), an_order(bench))
        spec = bench.kube.get(path)["spec"]

    assert "applied" == receipt.status
    assert {"default": "fraud-v41", "candidates": [{"name": "fraud-v41", "weight": 100}]} == spec


async def test_kserve_standard_writes_its_whole_list(opened: Open, bed: Bed) -> None:
    """If this breaks, a canary's pods go with the rollback, and what they could tell."""
    async with opened("kserve") as bench:
        path = bench.path  # type: ignore[attr-defined]
        canary = {"trafficPercent": 10, "predictor": {"name": "fraud-v42", "minReplicas": 2}}
        bench.relay.after_write = lambda: _standard(bench)
        spec = {"predictor": {"name": "fraud-v41", "canaryTrafficPercent": None}}
        bench.kube.patch(path, {"spec": {**spec, "canary": [canary]}})
        _standard(bench)
        receipt = await bed.execute(with_(bench, mode="standard"), an_order(bench))
        after = bench.kube.get(path)["spec"]["canary"]

    assert "applied" == receipt.status, receipt
    assert [{**canary, "trafficPercent": 0}] == after


def _standard(bench: KubeBench) -> None:
    path = bench.path  # type: ignore[attr-defined]
    status = {
        "observedGeneration": bench.kube.get(path)["metadata"]["generation"],
        "conditions": [{"type": "Ready", "status": "True"}],
        "canaryStatuses": [{"name": "fraud-v42", "ready": True}],
    }
    bench.kube.patch(f"{path}/status", {"status": status})


async def test_kserve_refuses_a_mode_it_was_not_set_for(opened: Open, bed: Bed) -> None:
    """If this breaks, raw mode ignores the percentage in silence."""
    async with opened("kserve") as bench:
        mode = {"serving.kserve.io/deploymentMode": "RawDeployment"}
        bench.kube.patch(bench.path, {"metadata": {"annotations": mode}})  # type: ignore[attr-defined]
        receipt = await bed.execute(bench.adapter(), an_order(bench))

    assert ("refused", "unfit", []) == (receipt.status, receipt.detail["reason"], bench.writes())


# Settings


@pytest.mark.parametrize("name", ["", "*", "a/b", "..", "a\nb", "Fraud", "a..b", "-a"])
def test_names_that_could_become_another_path_are_refused(name: str) -> None:
    """If this breaks, a name in the settings reaches another object."""
    versions = {"v41": "a", "v42": "b"}
    for kind in (Kubernetes, Istio, GatewayApi):
        with pytest.raises(ValueError, match="name"):
            kind(name=name, versions=versions)
        with pytest.raises(ValueError, match="namespace"):
            kind(name="fraud", namespace=name, versions=versions)
    with pytest.raises(ValueError, match="v42"):
        GatewayApi(name="fraud", versions={"v41": "a", "v42": name})
