"""A real Kafka broker for tests: the one you name, one in Docker, or one from Maven's jars.

The order: `ROLLBACKD_TEST_KAFKA` (a bootstrap address) → a Docker daemon that answers a ping, with
testcontainers and the image apache/kafka → Java 17 or later with Maven → skip with the reason. The
last two start the same single KRaft node with the same settings, and can be killed and resumed on
their data. Topics never appear by themselves: a test that forgets to create one must fail.
"""

import base64
import contextlib
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

from tests.real import Process, free_port, require, start_process, wait_until

VERSION = "4.1.0"
POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>rollbackd.tests</groupId><artifactId>kafka</artifactId><version>1</version><dependencies>
<dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId>
<version>{VERSION}</version></dependency>
<dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId>
<version>1.7.36</version></dependency>
</dependencies></project>
"""


class Broker(Protocol):
    """One Kafka node at `bootstrap` (`host:port`). Every verb returns when it is true."""

    bootstrap: str

    def start(self) -> None:
        """Start on empty data."""

    def stop(self) -> None:
        """Stop and remove the data."""

    def kill(self) -> None:
        """End it as a power cut would; the data stays."""

    def resume(self) -> None:
        """Start again on the data it had."""


def settings(listen: str, port: int, controller_port: int) -> dict[str, str]:
    """Give the server properties of a single node that listens on `listen` (an address)."""
    return {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": f"1@127.0.0.1:{controller_port}",
        "controller.listener.names": "CONTROLLER",
        "listeners": f"PLAINTEXT://{listen}:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://127.0.0.1:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "auto.create.topics.enable": "false",
        # A killed node waits out its old session before it may register again (else 9 s).
        "broker.heartbeat.interval.ms": "500",
        "broker.session.timeout.ms": "3000",
        "group.initial.rebalance.delay.ms": "0",
        "group.min.session.timeout.ms": "1000",
        "log.segment.bytes": "67108864",
        "num.partitions": "4",
        "offsets.topic.num.partitions": "4",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "transaction.state.log.num.partitions": "4",
        "transaction.state.log.replication.factor": "1",
    }


def kafka_answers(bootstrap: str) -> bool:
    """Whether an ApiVersions request is answered: an open port alone says too little."""
    host, _, port = bootstrap.rpartition(":")
    request = struct.pack(">hhih", 18, 0, 1, -1)  # ApiVersions, version 0, id 1, no client id
    try:
        with socket.create_connection((host, int(port)), timeout=1) as peer:
            peer.sendall(struct.pack(">i", len(request)) + request)
            size, correlation, error = struct.unpack(">iih", _read(peer, 10))
            return bool(size > 0 and correlation == 1 and error == 0)
    except OSError:
        return False


def _read(peer: socket.socket, size: int) -> bytes:
    answer = b""
    while len(answer) < size:
        if not (part := peer.recv(size - len(answer))):
            raise ConnectionError("closed in the middle of an answer")
        answer += part
    return answer


class JavaBroker:
    """A broker from Maven's jars, in its own process, port and temporary folder."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._jars = jars()
        self._home = Path(tempfile.mkdtemp(prefix="rollbackd-kafka-"))
        self._process: Process | None = None

    def start(self) -> None:
        shutil.rmtree(self._home / "data", ignore_errors=True)
        self._home.mkdir(exist_ok=True)
        properties = settings("127.0.0.1", self.port, free_port())
        properties["log.dirs"] = str(self._home / "data")
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        self._properties.write_text(lines)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:21]
        form = ["format", "-t", f"K{cluster}", "-c", str(self._properties)]
        java = self._java("kafka.tools.StorageTool", "error")
        subprocess.run([*java, *form], check=True, capture_output=True, timeout=60)
        self.resume()

    def resume(self) -> None:
        command = [*self._java("kafka.Kafka", "warn"), str(self._properties)]
        self._process = start_process(command, self._home / "log")
        self._process.wait_until(lambda: kafka_answers(self.bootstrap), 60, "Kafka answers")

    def kill(self) -> None:
        if self._process:
            self._process.kill()

    def stop(self) -> None:
        self.kill()  # its data goes next: there is nothing to close in good order
        shutil.rmtree(self._home, ignore_errors=True)

    @property
    def _properties(self) -> Path:
        return self._home / "server.properties"

    def _java(self, main: str, level: str) -> list[str]:
        log = f"-Dorg.slf4j.simpleLogger.defaultLogLevel={level}"
        heap = ["-Xms128m", "-Xmx512m", "-XX:+UseSerialGC"]
        return ["java", *heap, log, "-cp", f"{self._jars}/*", main]


class DockerBroker:
    """The same node in a container of the image apache/kafka, on a published port of loopback."""

    def __init__(self) -> None:
        self.port = free_port()
        self.bootstrap = f"127.0.0.1:{self.port}"
        self._container: Any = None

    def start(self) -> None:
        from testcontainers.core.container import DockerContainer

        container = DockerContainer(f"apache/kafka:{VERSION}")
        ports: dict[str, Any] = container.ports  # its own verb cannot bind to loopback alone
        ports[f"{self.port}/tcp"] = ("127.0.0.1", self.port)
        container.with_env("KAFKA_LOG_DIRS", "/var/lib/kafka/data")
        for name, value in settings("0.0.0.0", self.port, self.port + 1).items():
            container.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
        self._container = container.start()
        self._wait()

    def resume(self) -> None:
        self._container.get_wrapped_container().start()
        self._wait()

    def kill(self) -> None:
        self._container.get_wrapped_container().kill()

    def stop(self) -> None:
        if self._container is not None:
            self._container.stop()

    def _wait(self) -> None:
        wait_until(lambda: kafka_answers(self.bootstrap), 120, what="Kafka in Docker answers")


def jars() -> Path:
    """Folder with Kafka's jars; fetches them once into the user's cache (43 MB).

    Skips (or fails, see `require`) without Java 17 or later, without Maven, or when Maven fails.
    """
    java = shutil.which("java")
    said = java and subprocess.run([java, "-version"], capture_output=True, text=True, check=False)
    version = re.search(r'version "(\d+)', said.stderr) if said else None
    if version is None or int(version[1]) < 17:
        require("kafka", "needs ROLLBACKD_TEST_KAFKA, or a Docker daemon, or Java 17 with Maven")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rollbackd"
    folder = cache / f"kafka-{VERSION}"
    if folder.is_dir():
        return folder
    if not shutil.which("mvn"):
        require("kafka", f"Java is there, but neither Maven nor its jars in {folder}")
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as made:
        pom, part = Path(made) / "pom.xml", Path(made) / "jars"
        pom.write_text(POM)
        copy = ["dependency:copy-dependencies", f"-DoutputDirectory={part}"]
        command = ["mvn", "-q", "-B", "-f", str(pom), *copy]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
        if done.returncode != 0:
            require("kafka", f"Maven could not fetch its jars: {done.stdout[-300:].strip()}")
        with contextlib.suppress(OSError):  # another session may have been first
            part.rename(folder)
    return folder


def docker_answers() -> bool:
    """Whether a Docker daemon answers a ping; a client without a daemon is not enough."""
    try:
        import docker  # type: ignore[import-untyped]

        return bool(docker.from_env(timeout=5).ping())
    except Exception:  # every way of not answering is the same answer
        return False


@contextlib.contextmanager
def run_broker() -> Iterator[Broker]:
    """Run a broker of one's own, which a test may kill and resume."""
    broker: Broker = DockerBroker() if docker_answers() else JavaBroker()
    try:
        broker.start()
        yield broker
    finally:
        broker.stop()
