"""Find and start the real programs that tests talk to, and watch them with deadlines.

Why. A fake broker or database agrees with whoever wrote it. So Kafka (`tests/broker.py`),
PostgreSQL, HAProxy, Prometheus and Chromium are real here; where one is missing its tests skip and
say why, and with `ROLLBACKD_REQUIRE=all` (or a list such as `kafka,postgres`) they fail instead.

How. Every program gets its own port, its own temporary data and its own process group, listens on
loopback, and goes when its block ends, also by a failing test or a killed pytest.

Refused here: sleeping for a fixed time in place of a condition, and ending any process that was
not started here.
"""

import asyncio
import contextlib
import http.client
import inspect
import os
import pwd
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar, overload

import pytest

T = TypeVar("T")

CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",  # Chromium refuses its sandbox to root, and tests may run as root
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
"""What a start of Chromium needs on a machine without a screen or a way out."""

_given_ports: set[int] = set()


def require(name: str, reason: str) -> NoReturn:
    """Skip the test, or fail it where `ROLLBACKD_REQUIRE` is `all` or lists `name`.

    `all -kube` requires everything but `kube`.
    """
    required = os.environ.get("ROLLBACKD_REQUIRE", "").replace(",", " ").split()
    if name in required or ("all" in required and f"-{name}" not in required):
        pytest.fail(f"{name} is required here (ROLLBACKD_REQUIRE): {reason}", pytrace=False)
    pytest.skip(f"{name}: {reason}")


def program(name: str, *candidates: str) -> str:
    """Path of an installed program; skips (or fails, see `require`) when there is none."""
    # Debian keeps servers in /usr/sbin, which an ordinary user's PATH leaves out.
    path = os.environ.get("PATH", os.defpath) + ":/usr/local/sbin:/usr/sbin"
    for candidate in candidates or (name,):
        if found := shutil.which(candidate, path=path):
            return found
    require(name, f"no program {' or '.join(candidates or (name,))} on PATH")


def free_port() -> int:
    """Give a loopback TCP port that nothing uses, never the same one twice in this process.

    It lies below the range that the kernel hands to outgoing connections, so that a server that
    is killed and started again finds its port still free.
    """
    for _ in range(1000):
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            if port not in _given_ports:
                _given_ports.add(port)
                return port
    raise RuntimeError("no free port between 20000 and 32000 on 127.0.0.1")


def wait_until(
    condition: Callable[[], T], timeout_s: float, every_s: float = 0.05, what: str = ""
) -> T:
    """Ask `condition` every `every_s` seconds and return its first true answer.

    Raises
    ------
    TimeoutError
        When it has not been true within `timeout_s`; names `what`, or the condition.
    """
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        if time.monotonic() >= deadline:
            raise TimeoutError(_late(condition, timeout_s, what))
        time.sleep(every_s)
    return answer


@overload
async def wait_until_async(
    condition: Callable[[], Awaitable[T]], timeout_s: float, every_s: float = ..., what: str = ...
) -> T: ...
@overload
async def wait_until_async(
    condition: Callable[[], T], timeout_s: float, every_s: float = ..., what: str = ...
) -> T: ...
async def wait_until_async(
    condition: Callable[[], Any], timeout_s: float, every_s: float = 0.05, what: str = ""
) -> Any:
    """Do what `wait_until` does without blocking the loop; `condition` may be a coroutine's."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() >= deadline:
            raise TimeoutError(_late(condition, timeout_s, what))
        await asyncio.sleep(every_s)


def _late(condition: Callable[[], object], timeout_s: float, what: str) -> str:
    return f"not true within {timeout_s:g} s: {what or getattr(condition, '__name__', condition)}"


def port_answers(port: int, host: str = "127.0.0.1") -> bool:
    """Whether something accepts a connection there."""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=1):
        return True
    return False


def url_answers(url: str, status: int = 200) -> bool:
    """Whether a GET is answered with `status`; a refused connection or another status is False."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == status)
    except urllib.error.HTTPError as error:
        return error.code == status
    except (OSError, http.client.HTTPException):
        return False


@dataclass(frozen=True)
class Process:
    """A child in its own process group, with all it prints in one file."""

    child: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        return self.child.poll() is None

    def output(self) -> str:
        """Everything it has written so far, standard output and standard error in one."""
        return self.log.read_text(errors="replace")

    def send(self, sign: signal.Signals) -> None:
        """Signal its whole process group: SIGKILL, SIGSTOP, SIGCONT, …; nothing if it is gone."""
        if self.alive:
            os.killpg(self.child.pid, sign)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        self.send(signal.SIGKILL)
        self.child.wait()

    def stop(self, sign: signal.Signals = signal.SIGTERM, grace_s: float = 10.0) -> int:
        """Ask it to end, after `grace_s` seconds make it; return its exit code."""
        self.send(sign)
        try:
            return self.child.wait(grace_s)
        except subprocess.TimeoutExpired:
            self.kill()
            return self.child.wait()

    def wait_until(self, condition: Callable[[], T], timeout_s: float, what: str) -> T:
        """Wait for `condition`, but no longer than the process lives; errors carry its last words.

        Raises
        ------
        RuntimeError
            When the process ended, or the condition did not come true in `timeout_s` seconds.
        """
        try:
            if answer := wait_until(lambda: not self.alive or condition(), timeout_s, what=what):
                if self.alive:
                    return answer  # type: ignore[return-value]
                what = f"exit code {self.child.returncode} before: {what}"
        except TimeoutError as error:
            what = str(error)
        raise RuntimeError(f"{self.child.args!r}: {what}\n{self.output()[-4000:]}")


@contextmanager
def run_process(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> Iterator[Process]:
    """Run `command` while the block lasts; `env` is added to ours, `user` needs us to be root.

    At the end only this child's process group is stopped, then killed.
    """
    process = start_process(command, log, env, cwd, user)
    try:
        yield process
    finally:
        process.send(signal.SIGCONT)  # a stopped process would sit out its grace time
        process.stop()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.child.pid, signal.SIGKILL)  # what it left behind in its group


def start_process(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    user: str | None = None,
) -> Process:
    """Start `command` and leave its end to the caller; prefer `run_process`."""
    prefix = [] if user is None else _as_user(user)
    with log.open("ab") as out:
        child = subprocess.Popen(
            [*prefix, *_dying_with_us(), *map(str, command)],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            start_new_session=True,
        )
    return Process(child, log)


def _as_user(user: str) -> list[str]:
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"]


def _dying_with_us() -> list[str]:
    # The kernel sends it when the *thread* that forked ends, so only the main thread may ask.
    if shutil.which("setpriv") and threading.current_thread() is threading.main_thread():
        return ["setpriv", "--pdeathsig", "KILL", "--"]
    return []


@contextmanager
def run_postgres() -> Iterator[str]:
    """Run PostgreSQL on its own data; yield `postgresql://…` of a superuser with a password.

    As root it runs as the user `postgres`, since it refuses to run as root.
    """
    tools = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    on_path = shutil.which("postgres")
    if not tools and not on_path:
        require("postgres", "no /usr/lib/postgresql/*/bin/postgres and no postgres on PATH")
    bin_dir = tools[-1].parent if tools else Path(str(on_path)).parent
    user = "postgres" if os.geteuid() == 0 else None
    if user and user not in {entry.pw_name for entry in pwd.getpwall()}:
        require("postgres", "we are root and there is no user `postgres` to run it as")
    # Not pytest's folder: that is closed to other users.
    with tempfile.TemporaryDirectory(prefix="rollbackd-postgres-") as made:
        home = Path(made)
        (home / "password").write_text("test\n")
        if user:
            for path in (home, home / "password"):
                shutil.chown(path, user, user)
        initdb = [bin_dir / "initdb", "-D", home / "data", "-U", "rollbackd", "-E", "UTF8"]
        initdb += ["--locale=C.UTF-8", "--no-sync", "-A", "scram-sha-256"]
        initdb += [f"--pwfile={home / 'password'}"]
        prefix = _as_user(user) if user else []
        subprocess.run([*prefix, *map(str, initdb)], check=True, capture_output=True, cwd=home)
        port = free_port()
        server: list[str | Path] = [bin_dir / "postgres", "-D", home / "data", "-p", str(port)]
        server += ["-h", "127.0.0.1", "-k", "", "-F", "-c", "max_connections=100"]
        with run_process(server, home / "log", cwd=home, user=user) as process:
            ready = [str(bin_dir / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port)]
            process.wait_until(
                lambda: subprocess.run(ready, check=False).returncode == 0, 30, "pg_isready"
            )
            yield f"postgresql://rollbackd:test@127.0.0.1:{port}/postgres"
            process.stop(signal.SIGINT)  # the fast shutdown: SIGTERM waits for every client


@contextmanager
def run_prometheus(config: str, home: Path) -> Iterator[str]:
    """Run Prometheus with `config` (YAML) and its data below `home`; yield its address.

    `PORT` in the configuration is its own port.
    """
    with run_prometheus_process(config, home) as (url, _):
        yield url


@contextmanager
def run_prometheus_process(config: str, home: Path) -> Iterator[tuple[str, Process]]:
    """Do what `run_prometheus` does; yield the process as well, to be stopped or killed."""
    binary, port = program("prometheus"), free_port()
    home.mkdir(parents=True, exist_ok=True)
    (home / "prometheus.yml").write_text(config.replace("PORT", str(port)))
    command = [binary, f"--config.file={home / 'prometheus.yml'}"]
    command += [f"--storage.tsdb.path={home / 'data'}", f"--web.listen-address=127.0.0.1:{port}"]
    with run_process([*command, "--log.level=warn"], home / "log") as process:
        url = f"http://127.0.0.1:{port}"
        process.wait_until(lambda: url_answers(f"{url}/-/ready"), 30, "Prometheus is ready")
        yield url, process
