"""Registries find marked files, and refuse in words what they do not know."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

from schemas.plugins import PluginFault, Registry, plugin

COIN = """
from dataclasses import dataclass
from schemas.plugins import plugin

@plugin("{kind}", arms="single")
@dataclass
class {name}:
    bias: float
    sides: int = 2
"""


@plugin("dice")
@dataclass
class Dice:
    eyes: int
    seen: int = field(default=0, init=False)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A package folder on the import path, forgotten afterwards."""
    package = tmp_path / "toss"
    package.mkdir()
    (package / "__init__.py").write_text("")
    sys.path.insert(0, str(tmp_path))
    yield package
    sys.path.remove(str(tmp_path))
    for name in [name for name in sys.modules if name.split(".")[0] in ("toss", "outside")]:
        del sys.modules[name]


def toss() -> ModuleType:
    sys.modules.pop("toss", None)
    return import_module("toss")


def test_a_new_file_is_a_plugin_because_it_exists(folder: Path) -> None:
    """If this breaks, adding a detector needs an edit in a second file."""
    (folder / "coin.py").write_text(COIN.format(kind="coin", name="Coin"))
    (folder / "deeper").mkdir()
    (folder / "deeper" / "__init__.py").write_text("")
    (folder / "deeper" / "medal.py").write_text(COIN.format(kind="medal", name="Medal"))

    registry = Registry.of(toss())

    assert ("coin", "medal") == registry.kinds()
    assert {"arms": "single"} == dict(registry.facts("coin"))
    assert ("bias", "sides") == registry.parameters("coin")
    assert 0.25 == registry.make("coin", bias=0.25).bias


def test_an_imported_plugin_is_counted_where_it_was_written(folder: Path) -> None:
    """If this breaks, importing a detector next door refuses the start as a doubled kind."""
    (folder / "coin.py").write_text(COIN.format(kind="coin", name="Coin"))
    (folder / "tests_of_coin.py").write_text("from toss.coin import Coin\n")

    assert ("coin",) == Registry.of(toss()).kinds()


def test_a_doubled_kind_is_refused_with_both_places(folder: Path) -> None:
    """If this breaks, which of two detectors judges a canary depends on file order."""
    (folder / "coin.py").write_text(COIN.format(kind="coin", name="Coin"))
    (folder / "penny.py").write_text(COIN.format(kind="coin", name="Penny"))

    with pytest.raises(PluginFault, match=r"two plugins of kind 'coin'.*Coin.*Penny"):
        Registry.of(toss())


def test_unknown_kind_field_and_missing_field_say_what_is_known() -> None:
    """If this breaks, a typing error in a policy gives a riddle, or a silent default."""
    registry = Registry([Dice], family="detector")

    with pytest.raises(PluginFault, match=r"no detector of kind 'dices'; known: dice"):
        registry.make("dices")
    with pytest.raises(PluginFault, match=r"no field 'eye'; known: eyes"):
        registry.make("dice", eye=6)
    with pytest.raises(PluginFault, match=r"no field 'seen'; known: eyes"):
        registry.make("dice", eyes=6, seen=1)
    with pytest.raises(PluginFault, match=r"needs 'eyes'; known: eyes"):
        registry.make("dice")
    with pytest.raises(PluginFault, match=r"known: none"):
        Registry().facts("dice")


def test_a_mark_is_not_inherited_and_not_global() -> None:
    """If this breaks, a subclass in someone's tests doubles a shipped kind."""

    class Loaded(Dice):
        pass

    with pytest.raises(PluginFault, match="is not marked"):
        Registry([Loaded])
    assert () == Registry().kinds()


def test_a_plugin_must_be_a_dataclass_with_a_kind() -> None:
    """If this breaks, a plugin without fields takes its faults to run time."""

    @plugin("plain")
    class Plain:
        pass

    with pytest.raises(PluginFault, match="must be a dataclass"):
        Registry([Plain])
    with pytest.raises(PluginFault, match="needs a kind"):
        plugin("")


def install(folder: Path, value: str, group: str = "rollbackd.tosses") -> None:
    """Write the metadata that an installed outside package leaves behind."""
    info = folder.parent / "outside-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmedal = {value}\n")


@pytest.mark.parametrize("value", ["outside:Medal", "outside"])
def test_outside_packages_join_by_entry_points(folder: Path, value: str) -> None:
    """If this breaks, a team cannot ship its own detector without a fork."""
    (folder.parent / "outside.py").write_text(COIN.format(kind="medal", name="Medal"))
    install(folder, value)
    (folder / "coin.py").write_text(COIN.format(kind="coin", name="Coin"))

    registry = Registry.of(toss(), entry_points="rollbackd.tosses")

    assert ("coin", "medal") == registry.kinds()


@pytest.mark.parametrize(
    ("value", "words"), [("outside:Nothing", "cannot be loaded"), ("sys", "nothing marked")]
)
def test_a_broken_entry_point_is_named(folder: Path, value: str, words: str) -> None:
    """If this breaks, a bad outside package is skipped in silence and its guard never runs."""
    (folder.parent / "outside.py").write_text("")
    install(folder, value)

    with pytest.raises(PluginFault, match=rf"entry point 'medal' of rollbackd.tosses.*{words}"):
        Registry.of(toss(), entry_points="rollbackd.tosses")
