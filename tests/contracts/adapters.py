"""Benches: for every kind of adapter the best platform that runs here.

To put a new adapter under the whole suite: write a class with the verbs of `AdapterBench` and enter
it in `BENCHES` under the adapter's kind.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Protocol

from schemas.secrets import Secret
from service.act.adapters.base import Adapter
from service.act.adapters.docker import Docker
from service.act.adapters.dry_run import DryRun
from service.act.adapters.haproxy import HAProxy
from service.act.adapters.webhook import Webhook
from tests.contracts.fake_benches import (
    azure_ml_bench,
    envoy_bench,
    mlflow_bench,
    sagemaker_bench,
    terraform_bench,
    vertex_ai_bench,
)
from tests.contracts.kube_benches import KUBE, opener
from tests.fake_platforms.docker import FakeDocker
from tests.fake_platforms.serving import serving
from tests.platforms import SECRET, Balancer, Deployer, balancing, deploying
from tests.real import free_port, program

SHARES = {"v41": 90.0, "v42": 10.0}
"""What serves when a bench opens, as `a_command` expects it."""


class AdapterBench(Protocol):
    """One platform on which v41 has 90 % and v42 has 10 %."""

    changes: bool
    """Whether commands have an effect at all."""

    def adapter(self) -> Adapter:
        """A new adapter, as after a restart."""
        ...

    def lost(self) -> Adapter:
        """An adapter whose platform is not there."""
        ...

    def shares(self) -> dict[str, float]:
        """What serves by the platform's own account, past the adapter; versions at 0 left out."""
        ...

    def writes(self) -> list[str]:
        """Every mutating call that came, by the platform's own account."""
        ...

    def move(self, **shares: int) -> None:
        """Move traffic by somebody else's hand."""
        ...

    def lose_answer(self, done: bool) -> None:
        """Break the connection of the next write, after or before it was carried out."""
        ...

    def revert(self) -> None:
        """Say yes to the next write, and let the old state serve."""
        ...


class HAProxyBench:
    """A real HAProxy."""

    changes = True

    def __init__(self, balancer: Balancer) -> None:
        self.balancer = balancer

    def adapter(self) -> HAProxy:
        return self._of(self.balancer.socket)

    def lost(self) -> HAProxy:
        return self._of(str(self.balancer.home / "nobody.sock"))

    def _of(self, path: str) -> HAProxy:
        servers = {version: f"s-{version}" for version in ("v41", "v42", "v43")}
        return HAProxy(path, "fraud", servers)

    def shares(self) -> dict[str, float]:
        weights = {}
        for version in ("v41", "v42", "v43"):
            answer = self.balancer.say(f"get weight fraud/s-{version}")
            weights[version] = int(answer.split()[0])
        total = sum(weights.values())
        return {version: 100 * w / total for version, w in weights.items() if w}

    def writes(self) -> list[str]:
        return self.balancer.sets()

    def move(self, **shares: int) -> None:
        for version in ("v41", "v42", "v43"):
            self.balancer.say(f"set weight fraud/s-{version} {shares.get(version, 0)}")

    def lose_answer(self, done: bool) -> None:
        if done:
            self.balancer.cut_after = "set weight fraud/s-v42"
        else:
            self.balancer.cut_before = "set weight fraud/s-v41"

    def revert(self) -> None:
        def on_line(line: str) -> None:
            # A controller that puts its own state back, seen at the first look after the write.
            if line.startswith("show servers") and self.writes():
                self.move(v41=90, v42=10)

        self.balancer.on_line = on_line


class DockerBench(HAProxyBench):
    """A real HAProxy; the containers behind it are a fake engine's."""

    def settings(self) -> tuple[str, dict[str, object]]:
        """Kind and settings, for another process."""
        return "docker", {
            "socket": str(self.balancer.home / "docker.sock"),
            "deployment": "fraud",
            "haproxy": self.balancer.socket,
            "backend": "fraud",
            "servers": {version: f"s-{version}" for version in ("v41", "v42", "v43")},
        }

    def adapter(self) -> Docker:  # type: ignore[override]
        return Docker(**self.settings()[1])  # type: ignore[arg-type]

    def lost(self) -> Docker:  # type: ignore[override]
        nobody = str(self.balancer.home / "nobody.sock")
        return Docker(**{**self.settings()[1], "socket": nobody})  # type: ignore[arg-type]


class WebhookBench:
    """A deployer behind a signed webhook."""

    changes = True

    def __init__(self, deployer: Deployer) -> None:
        self.deployer = deployer

    def adapter(self) -> Webhook:
        return Webhook(Secret(self.deployer.url), Secret(SECRET))

    def lost(self) -> Webhook:
        return Webhook(Secret(f"http://127.0.0.1:{free_port()}/canary-path"), Secret(SECRET))

    def shares(self) -> dict[str, float]:
        return {version: share for version, share in self.deployer.shares.items() if share}

    def writes(self) -> list[str]:
        return [order["command_id"] for order in self.deployer.commands]

    def move(self, **shares: int) -> None:
        self.deployer.shares = {version: float(share) for version, share in shares.items()}

    def lose_answer(self, done: bool) -> None:
        self.deployer.faults = ["reset" if done else "lost"]

    def revert(self) -> None:
        self.deployer.faults = ["lie"]


class DryRunBench:
    """No platform: nothing may ever change."""

    changes = False

    def __init__(self) -> None:
        self._adapter = DryRun()

    def adapter(self) -> DryRun:
        return self._adapter

    def lost(self) -> DryRun:
        return self._adapter

    def shares(self) -> dict[str, float]:
        return dict(SHARES)

    def writes(self) -> list[str]:
        return []

    def move(self, **shares: int) -> None:
        """Nobody is there to move it."""

    def lose_answer(self, done: bool) -> None:
        """No call leaves."""

    def revert(self) -> None:
        """Nothing is said."""


@asynccontextmanager
async def haproxy_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[AdapterBench]:
    with balancing(program("haproxy"), home, {"v41": 90, "v42": 10, "v43": 0}) as balancer:
        yield HAProxyBench(balancer)


@asynccontextmanager
async def docker_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[AdapterBench]:
    engine = FakeDocker(now_s, ("v41", "v42", "v43"))
    with balancing(program("haproxy"), home, {"v41": 90, "v42": 10, "v43": 0}) as balancer:
        async with serving(engine, home / "docker.sock"):
            yield DockerBench(balancer)
            assert [] == engine.forbidden


@asynccontextmanager
async def webhook_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[AdapterBench]:
    async with deploying(now_s, **SHARES) as deployer:
        yield WebhookBench(deployer)
        assert [] == deployer.unsigned


@asynccontextmanager
async def dry_run_bench(home: Path, now_s: Callable[[], float]) -> AsyncIterator[AdapterBench]:
    yield DryRunBench()


Open = Callable[[Path, Callable[[], float]], AbstractAsyncContextManager[AdapterBench]]

BENCHES: dict[str, Open] = {
    "haproxy": haproxy_bench,
    "webhook": webhook_bench,
    "dry_run": dry_run_bench,
    "sagemaker": sagemaker_bench,
    "azure_ml": azure_ml_bench,
    "vertex_ai": vertex_ai_bench,
    "mlflow": mlflow_bench,
    "terraform": terraform_bench,
    "envoy": envoy_bench,
    "docker": docker_bench,
    **{kind: opener(kind) for kind in KUBE},
}
