"""Benches on fakes and on small real platforms that HTTP reaches; the fakes are named as such."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from service.act.adapters.azure_ml import AzureML
from service.act.adapters.base import Adapter
from service.act.adapters.envoy import Envoy
from service.act.adapters.mlflow import MLflow
from service.act.adapters.sagemaker import SageMaker
from service.act.adapters.terraform import Terraform
from service.act.adapters.vertex_ai import VertexAI
from tests.fake_platforms import azure_ml, mlflow, sagemaker, vertex_ai
from tests.fake_platforms.azure_ml import FakeAzureML
from tests.fake_platforms.envoy import PREFIX, EnvoyRelay, envoy_program, proxying
from tests.fake_platforms.mlflow import FakeMLflow
from tests.fake_platforms.sagemaker import FakeSageMaker
from tests.fake_platforms.serving import serving
from tests.fake_platforms.terraform import Workspace, terraforming, value_of
from tests.fake_platforms.vertex_ai import FakeVertexAI
from tests.real import free_port

VERSIONS = ("v41", "v42", "v43")
WEIGHTS = {"v41": 90.0, "v42": 10.0, "v43": 0.0}


class FakeBench:
    """A fake with `shares`, `move` and `revert`, and the settings that lead an adapter to it."""

    changes = True

    def __init__(self, fake: Any, kind: type[Adapter], settings: dict[str, Any]) -> None:
        self.fake = fake
        self._kind = kind
        self._settings = settings

    def settings(self) -> tuple[str, dict[str, Any]]:
        """Kind and settings, for another process."""
        return self._kind.__plugin__.kind, {**self._settings, "url": self.fake.url}  # type: ignore[attr-defined]

    def adapter(self) -> Adapter:
        return self._kind(**self.settings()[1])

    def lost(self) -> Adapter:
        return self._kind(**{**self._settings, "url": f"http://127.0.0.1:{free_port()}"})

    def shares(self) -> dict[str, float]:
        return {version: share for version, share in self.fake.shares().items() if share}

    def writes(self) -> list[str]:
        return list(self.fake.written)

    def move(self, **shares: int) -> None:
        self.fake.move(**shares)

    def lose_answer(self, done: bool) -> None:
        self.fake.faults = ["reset" if done else "lost"]

    def revert(self) -> None:
        self.fake.faults = ["lie"]


class SageMakerBench(FakeBench):
    """A fake of SageMaker, under the shipped policy."""

    def revert(self) -> None:
        self.fake.reverting = True


@asynccontextmanager
async def sagemaker_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[FakeBench]:
    fake = FakeSageMaker(now_s, WEIGHTS)
    fake.takes_s, fake.lag_s = 0.5, 0.3
    settings = {
        "endpoint": sagemaker.ENDPOINT,
        "region": sagemaker.REGION,
        "variants": {version: f"variant-{version}" for version in VERSIONS},
        "access_key_id": sagemaker.KEY_ID,
        "secret_access_key": sagemaker.SECRET_KEY,
        "settle_s": 60.0,
        "recheck_s": 1.0,
        "lag_s": 2.0,
    }
    async with serving(fake):
        yield SageMakerBench(fake, SageMaker, settings)
        assert ([], 0) == (fake.forbidden, fake.unproven)


class AzureMLBench(FakeBench):
    """A fake of Azure ML, under the shipped role."""

    def revert(self) -> None:
        self.fake.reverting = True


@asynccontextmanager
async def azure_ml_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[FakeBench]:
    fake = FakeAzureML(now_s, WEIGHTS)
    fake.takes_s, fake.lag_s = 0.5, 0.3
    (home / "token").write_text(azure_ml.TOKEN)
    settings = {
        "subscription": azure_ml.SUBSCRIPTION,
        "resource_group": azure_ml.GROUP,
        "workspace": azure_ml.WORKSPACE,
        "endpoint": azure_ml.ENDPOINT,
        "deployments": {version: f"d-{version}" for version in VERSIONS},
        "token_path": str(home / "token"),
        "settle_s": 60.0,
        "recheck_s": 1.0,
        "lag_s": 2.0,
    }
    async with serving(fake):
        yield AzureMLBench(fake, AzureML, settings)
        assert ([], 0) == (fake.forbidden, fake.unproven)


@asynccontextmanager
async def vertex_ai_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[FakeBench]:
    fake = FakeVertexAI(now_s, WEIGHTS)
    (home / "token").write_text(vertex_ai.TOKEN)
    settings = {
        "project": vertex_ai.PROJECT,
        "location": vertex_ai.LOCATION,
        "endpoint": vertex_ai.ENDPOINT,
        "deployed_models": vertex_ai.IDS,
        "token_path": str(home / "token"),
        "settle_s": 30.0,
        "recheck_s": 1.0,
    }
    async with serving(fake):
        yield FakeBench(fake, VertexAI, settings)
        assert ([], 0) == (fake.forbidden, fake.unproven)


class MLflowBench(FakeBench):
    """A fake of MLflow's registry; its real server is in tests/service/act/adapters."""

    def revert(self) -> None:
        self.fake.faults = ["lie"] * 10


@asynccontextmanager
async def mlflow_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[FakeBench]:
    fake = FakeMLflow(now_s)
    settings = {
        "name": mlflow.NAME,
        "versions": mlflow.NUMBERS,
        "aliases": dict.fromkeys(mlflow.ALIASES, 10.0),
        "token": mlflow.TOKEN,
    }
    async with serving(fake):
        yield MLflowBench(fake, MLflow, settings)
        assert ([], 0) == (fake.forbidden, fake.unproven)


class TerraformBench:
    """The real program on a module of its built-in resource."""

    changes = True

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace

    def settings(self) -> tuple[str, dict[str, Any]]:
        return "terraform", {
            "directory": str(self.workspace.directory),
            "versions": {version: version for version in VERSIONS},
            "resources": ["terraform_data.split"],
            "program": str(self.workspace.program),
        }

    def adapter(self) -> Terraform:
        return Terraform(**self.settings()[1])

    def lost(self) -> Terraform:
        return Terraform(**{**self.settings()[1], "directory": "/nowhere"})

    def shares(self) -> dict[str, float]:
        return {version: share for version, share in self.workspace.shares().items() if share}

    def writes(self) -> list[str]:
        return self.workspace.calls("apply")

    def move(self, **shares: int) -> None:
        self.workspace.set({version: shares.get(version, 0) for version in VERSIONS})

    def lose_answer(self, done: bool) -> None:
        self.workspace.script("reset" if done else "lost")

    def revert(self) -> None:
        self.workspace.script("after " + value_of(WEIGHTS))


@asynccontextmanager
async def terraform_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[TerraformBench]:
    with terraforming(home, **WEIGHTS) as workspace:
        yield TerraformBench(workspace)


class EnvoyBench:
    """A real Envoy behind a relay that takes notes."""

    changes = True

    def __init__(self, relay: EnvoyRelay) -> None:
        self.relay = relay

    def settings(self) -> tuple[str, dict[str, Any]]:
        clusters = {version: f"c-{version}" for version in VERSIONS}
        return "envoy", {"admins": [self.relay.url], "prefix": PREFIX, "clusters": clusters}

    def adapter(self) -> Envoy:
        return Envoy(**self.settings()[1])

    def lost(self) -> Envoy:
        return Envoy(**{**self.settings()[1], "admins": [f"http://127.0.0.1:{free_port()}"]})

    def shares(self) -> dict[str, float]:
        entries = json.loads(self.relay.proxy.say("GET", "/runtime?format=json")[1])["entries"]
        weights = {
            version: float(entries.get(f"{PREFIX}.c-{version}", {}).get("final_value", configured))
            for version, configured in WEIGHTS.items()
        }
        return {version: weight for version, weight in weights.items() if weight}

    def writes(self) -> list[str]:
        return list(self.relay.written)

    def move(self, **shares: int) -> None:
        self.relay.proxy.set(**{version: shares.get(version, 0) for version in VERSIONS})

    def lose_answer(self, done: bool) -> None:
        self.relay.faults = ["reset" if done else "lost"]

    def revert(self) -> None:
        self.relay.after_write = lambda: self.move(v41=90, v42=10)


@asynccontextmanager
async def envoy_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[EnvoyBench]:
    with proxying(envoy_program(), home, {v: int(weight) for v, weight in WEIGHTS.items()}) as one:
        relay = EnvoyRelay(now_s, one)
        async with serving(relay):
            yield EnvoyBench(relay)
            assert [] == relay.forbidden
