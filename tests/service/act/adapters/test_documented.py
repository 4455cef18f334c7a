"""The settings that the documentation shows are settings that work."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import service.act.adapters
from schemas.plugins import Registry
from service.plug import build
from service.text import _PATHS
from tests.contracts.kube_benches import KUBE

TEXT = (Path(__file__).parents[4] / "docs" / "adapters.md").read_text()
REGISTRY = Registry.of(service.act.adapters)


def shown() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for block in TEXT.split("```yaml\n")[1:]:
        read = yaml.safe_load(block.split("```")[0])
        if isinstance(read, dict):
            found |= read.get("adapters") or {}
    return found


@pytest.mark.parametrize("name", sorted(shown()))
def test_every_example_can_be_built(name: str) -> None:
    """If this breaks, a user copies settings that `check` refuses."""
    lines: list[str] = []
    made = build(REGISTRY, shown()[name], f"adapters.{name}", lines)

    assert ([], True) == (lines, made is not None)


@pytest.mark.parametrize(
    "kind",
    ["sagemaker", "azure_ml", "vertex_ai", "mlflow", "terraform", "envoy", "docker"],
)
def test_every_kind_is_named_with_its_role(kind: str) -> None:
    """If this breaks, an adapter exists that nobody can find, or has no smallest role."""
    assert f"| `{kind}` |" in TEXT
    assert (Path(__file__).parents[4] / "deploy" / "iam" / f"{kind}.json").is_file()


@pytest.mark.parametrize("kind", sorted(KUBE))
def test_every_kind_of_the_kubernetes_family_is_named_with_its_role(kind: str) -> None:
    """If this breaks, an adapter exists that nobody can find, or has no smallest role."""
    assert f"| `{kind}` |" in TEXT
    assert (Path(__file__).parents[4] / "deploy" / "rbac" / f"{kind}.yaml").is_file()


@pytest.mark.parametrize("kind", REGISTRY.kinds())
def test_no_field_could_be_taken_for_a_secret_in_a_file(kind: str) -> None:
    """If this breaks, settings replace a path by what is in the file before the adapter sees it."""
    names = {name for name in REGISTRY.parameters(kind) if name.endswith("_file")}

    assert names <= _PATHS
