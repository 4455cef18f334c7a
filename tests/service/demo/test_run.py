"""The demonstration as a user starts it, and its honest failure."""

import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from service.config import Config
from service.demo import http1, run
from tests.real import run_process, wait_until

START = "import sys; sys.argv = ['rollbackd', *sys.argv[1:]]; from service.cli import main; main()"


@asynccontextmanager
async def no_daemon(config: Config) -> AsyncIterator[None]:
    """Nobody home: as if the daemon had died."""
    yield None


async def test_what_is_not_verified_is_not_claimed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, a broken daemon passes for a working one."""
    monkeypatch.setattr(run, "LIMIT_S", 5.0)

    code = await run.run_demo(once=True, port=0, start_daemon=no_daemon)

    assert 1 == code
    assert "Not verified within 5 s: no breach was detected." in capsys.readouterr().out


async def test_a_taken_port_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """If this breaks, the user gets a stack of calls in place of the way out."""
    with http1.listen() as taken:
        port = taken.getsockname()[1]
        code = await run.run_demo(once=True, port=port, start_daemon=no_daemon)

    assert 1 == code
    assert f"Port {port} of 127.0.0.1 is taken" in capsys.readouterr().out


@pytest.mark.e2e
@pytest.mark.slow
@pytest.mark.parametrize("router", ["HAProxy", "small router"])
def test_demo_once_ends_with_a_verified_rollback(
    router: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """If this breaks, the first thing that anybody tries does not work."""
    program: str | None = request.getfixturevalue("haproxy") if router == "HAProxy" else None
    hidden = "" if program else "import service.demo.router as r; r.find_haproxy = lambda: None; "
    command = [sys.executable, "-c", hidden + START, "demo", "--once", "--port", "0"]
    with run_process(command, tmp_path / "log", {"COLUMNS": "200"}, Path(os.curdir)) as process:
        wait_until(lambda: not process.alive, 120, what="the demonstration ends by itself")
        told = process.output()

    assert 0 == process.child.returncode, told
    assert f"Router: {router}" in told
    assert re.search(r"traffic confirms it\s+│\s+\d+\.\d s", told)
    assert re.search(r"Incident \w+: (verified|resolved)", told)
    assert "Refused events" not in told
