"""Every engine under kill -9: real processes, seeded moments, the truth from outside."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.engines import EngineBench
from tests.contracts.killing import crash_under_load, kill_under_load

pytestmark = pytest.mark.e2e

POINTS = [("K1", 3), ("K2", 4), ("K3", 5), ("K4", 6), ("K5", 2), ("K6", 3), ("K13", 2)]


async def test_kills_lose_nothing_and_count_nothing_twice(
    bench: EngineBench, tmp_path: Path
) -> None:
    """If this breaks, a machine that dies costs evidence, or evidence counts twice."""
    survived = await kill_under_load(bench, tmp_path, seed=20, kills=10)

    print(f"{bench.name}: {survived}")
    assert 10 == survived.kills
    assert survived.median_s <= bench.takeover_s
    assert survived.takeovers_s[-1] <= bench.takeover_max_s


@pytest.mark.parametrize(("point", "passage"), POINTS)
async def test_a_kill_around_a_commit_changes_nothing(
    bench: EngineBench, tmp_path: Path, point: str, passage: int
) -> None:
    """If this breaks, there is a moment at which a kill loses or repeats a decision."""
    survived = await crash_under_load(bench, tmp_path, point, passage)

    print(f"{bench.name} {point}:{passage}: {survived}")
    assert survived.takeovers_s[-1] <= bench.takeover_max_s
