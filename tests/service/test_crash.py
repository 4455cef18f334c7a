"""Kill points: they kill where they say, and cost and do nothing when unset."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from service.crash import VARIABLE, parse_crash

PASSES = """
from service.crash import crash_point
for number in range(1, 5):
    crash_point("K4")
    crash_point("K5")
    print(number, flush=True)
"""


def passing(setting: str | None) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if name != VARIABLE}
    env |= {} if setting is None else {VARIABLE: setting}
    return subprocess.run(
        [sys.executable, "-c", PASSES], env=env, capture_output=True, text=True, timeout=30
    )


def test_it_kills_at_the_nth_passage_with_one_warning() -> None:
    """If this breaks, kill tests pass because nothing was ever killed where they think."""
    done = passing("K5:3")

    assert (-9, "1\n2\n") == (done.returncode, done.stdout)
    assert 1 == done.stderr.count(VARIABLE)


@pytest.mark.parametrize("setting", [None, "", "K9:1", "K5:5"])
def test_other_points_and_no_setting_kill_nothing(setting: str | None) -> None:
    """If this breaks, a daemon dies in production at a place made for tests."""
    done = passing(setting)

    assert (0, "1\n2\n3\n4\n") == (done.returncode, done.stdout)
    assert bool(setting) == bool(done.stderr)


@pytest.mark.parametrize("text", ["K5", "K5:0", "K5:-1", ":3", "K5:x", "K 5:1"])
def test_a_setting_that_never_kills_is_refused(text: str) -> None:
    """If this breaks, a typing error turns a kill test into a test of nothing."""
    with pytest.raises(ValueError, match=VARIABLE):
        parse_crash(text)
