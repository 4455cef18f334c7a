"""S12 drives the real join and the real judge, and would notice if they lost or doubled a row."""

from __future__ import annotations

from pathlib import Path

import pytest

from evidence.delivery import Delivery, run
from evidence.scenarios.faults import CLEAN, FAULTS, travel
from service.watch import tables


def test_the_worst_journey_ends_in_the_same_bits(tmp_path: Path) -> None:
    """If this breaks, a crash changes who is rolled back."""
    clean: Delivery = run(travel(tmp_path / "clean", CLEAN, 2_000, 0.06))
    worst: Delivery = run(travel(tmp_path / "worst", FAULTS[-1], 2_000, 0.06))

    assert clean.verdicts() == worst.verdicts()
    assert clean.fingerprint() == worst.fingerprint()
    assert worst.cuts > 0
    assert {2_000} == {sum(v.rows for who, v in clean.verdicts().items() if "error" in who)}


def test_events_of_another_rate_end_in_other_bits(tmp_path: Path) -> None:
    """If this breaks, the fingerprint says nothing."""
    one: Delivery = run(travel(tmp_path / "one", CLEAN, 1_000, 0.015))
    other: Delivery = run(travel(tmp_path / "other", CLEAN, 1_000, 0.06))

    assert one.fingerprint() != other.fingerprint()


def test_a_judge_that_counts_repeats_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, S12 would be green over a watch that doubles evidence."""
    crashes = next(fault for fault in FAULTS if fault.crash_every and not fault.new_machine)
    clean: Delivery = run(travel(tmp_path / "clean", CLEAN, 4_000, 0.015))

    monkeypatch.setattr(tables, "_new_rows", lambda *_: None)
    doubled: Delivery = run(travel(tmp_path / "doubled", crashes, 4_000, 0.015))

    assert clean.fingerprint() != doubled.fingerprint()
    rows = [sum(v.rows for v in d.verdicts().values()) for d in (clean, doubled)]
    assert rows[0] < rows[1]
