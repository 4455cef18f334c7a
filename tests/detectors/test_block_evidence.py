"""Blocks of rows whose share of traffic is not known."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from detectors.block_evidence import Block, block_gain

RATIOS = np.geomspace(1.27, 8, 8)


@pytest.mark.parametrize(("n_canary", "n_stable"), [(1, 9), (5, 45), (10, 10), (20, 4), (0, 12)])
@pytest.mark.parametrize("margin", [1.0, 1.15, 1.5])
def test_its_mean_is_at_most_one_under_every_null(
    n_canary: int, n_stable: int, margin: float
) -> None:
    """If this breaks, mirrored canaries are rolled back falsely; every outcome is enumerated."""
    ratios = np.maximum(RATIOS, 1.1 * margin)
    highest = 0.0
    for guess in (0.005, 0.02, 0.1, 0.4):
        gains = {
            (a, b): np.exp(block_gain((n_canary, a, n_stable, b), guess, ratios, margin))
            for a in range(n_canary + 1)
            for b in range(n_stable + 1)
        }
        for stable in (0.001, 0.01, 0.02, 0.05, 0.2, 0.6):
            for canary in (0.5 * stable, stable, margin * stable):
                mean = np.zeros(len(ratios))
                for (a, b), gain in gains.items():
                    chance_a = comb(n_canary, a) * canary**a * (1 - canary) ** (n_canary - a)
                    chance_b = comb(n_stable, b) * stable**b * (1 - stable) ** (n_stable - b)
                    mean += chance_a * chance_b * gain
                highest = max(highest, float(mean.max()))

    assert highest <= 1 + 1e-9


def test_a_guess_inside_the_null_proves_nothing() -> None:
    """If this breaks, a high base rate, where multiples are clamped, makes evidence of nothing."""
    gain = block_gain((50, 50, 50, 10), 0.95, np.array([1.2, 4.0]), 1.15)

    assert [0.0, 0.0] == gain.tolist()


def test_a_worse_canary_wins_and_a_better_one_loses() -> None:
    """If this breaks, the sign of the evidence is wrong."""
    assert (block_gain((100, 12, 900, 18), 0.02, RATIOS[3:], 1.15) > 1).all()
    assert (block_gain((100, 0, 900, 18), 0.02, RATIOS[3:], 1.15) < 0).all()


def test_there_is_no_evidence_before_there_is_a_guess() -> None:
    """If this breaks, the first block is judged by a rate made up."""
    block = Block()
    block.add((50, 50, 50, 0), (1, 1))
    assert not block.close(RATIOS, 1.15).any()
    block.add((10, 0, 90, 1), (2, 2))
    block.close(RATIOS, 1.15)
    block.add((50, 50, 50, 0), (3, 3))
    assert block.is_open and block.is_ripe
    assert (block.close(RATIOS, 1.15) > 1).all()
    assert not block.is_open


def test_the_guess_follows_the_recent_stable() -> None:
    """If this breaks, power is lost for good after the world has moved."""
    block = Block()
    for _ in range(200):
        block.add((0, 0, 100, 1), (1, 1))
        block.close(RATIOS, 1.15)
    for _ in range(200):
        block.add((0, 0, 100, 6), (1, 1))
        block.close(RATIOS, 1.15)

    assert 0.055 < block.stable_bad / block.stable_rows < 0.06
