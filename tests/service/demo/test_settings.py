"""The demonstration's settings are ordinary ones."""

from pathlib import Path

import pytest

from service.app import plugins_of
from service.clock import WallClock
from service.demo.events import HORIZON_S, MODEL
from service.demo.haproxy import HAProxyRouter
from service.demo.router import Router
from service.demo.settings import demo_config
from service.demo.small_router import SmallRouter


def a_small_router() -> SmallRouter:
    """One that listens nowhere yet."""
    router = SmallRouter({"v41": 1, "v42": 2}, WallClock())
    router.listens_on(3)
    return router


@pytest.mark.parametrize(
    "router", [a_small_router(), HAProxyRouter(1, Path("/run/h.sock"), ["v41", "v42"])]
)
def test_settings_are_accepted_for_both_routers(router: Router, tmp_path: Path) -> None:
    """If this breaks, `rollbackd demo` ends with faults of its own settings."""
    config = demo_config(tmp_path, 8420, router)
    adapters, _ = plugins_of(config)
    (policy,) = config.policies

    assert "router" in adapters
    assert (MODEL, HORIZON_S, "enforce") == (policy.model, policy.horizon, policy.mode)
    assert tmp_path / "engine" == config.data_dir
    assert "127.0.0.1:8420" == config.http.listen
