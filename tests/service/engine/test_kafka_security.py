"""Every client of the engine, Faust's included, over TLS with a password; others are refused."""

from __future__ import annotations

import base64
import datetime
import ipaddress
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from schemas.secrets import Secret
from service.clock import WallClock
from service.engine.base import EngineFault, Message, Record
from tests.broker import JavaBroker, settings
from tests.contracts.tally import Taker, running
from tests.real import free_port, port_answers, start_process, wait_until_async
from tests.service.engine.kafka_bench import Bench

pytestmark = [pytest.mark.e2e, pytest.mark.kafka]

PASSWORD = "only-for-this-test"


class SecureBroker(JavaBroker):
    """SASL_SSL with PLAIN on the port that clients use."""

    def secure(self) -> Path:
        """Start it; return the certificate that clients must trust."""
        self._home.mkdir(exist_ok=True)
        trust, both = certificate(self._home)
        properties = settings("127.0.0.1", self.port, free_port())
        login = "org.apache.kafka.common.security.plain.PlainLoginModule required"
        internal = free_port()
        properties |= {
            "log.dirs": str(self._home / "data"),
            "listeners": f"SASL_SSL://127.0.0.1:{self.port},PLAINTEXT://127.0.0.1:{internal},"
            + properties["listeners"].partition(",")[2],
            "advertised.listeners": f"SASL_SSL://127.0.0.1:{self.port},"
            f"PLAINTEXT://127.0.0.1:{internal}",
            "listener.security.protocol.map": "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,"
            "CONTROLLER:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "ssl.keystore.type": "PEM",
            "ssl.keystore.location": str(both),
            "sasl.enabled.mechanisms": "PLAIN",
            "listener.name.sasl_ssl.plain.sasl.jaas.config": f'{login} user_ours="{PASSWORD}";',
        }
        lines = "".join(f"{name}={value}\n" for name, value in properties.items())
        self._properties.write_text(lines)
        cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode()[:21]
        form = ["format", "-t", f"K{cluster}", "-c", str(self._properties)]
        java = self._java("kafka.tools.StorageTool", "error")
        subprocess.run([*java, *form], check=True, capture_output=True, timeout=60)
        command = [*self._java("kafka.Kafka", "warn"), str(self._properties)]
        self._process = start_process(command, self._home / "log")
        self._process.wait_until(lambda: port_answers(self.port), 60, "Kafka listens")
        return trust


def certificate(home: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself: what to trust, and key and certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test broker")])
    start = datetime.datetime.fromtimestamp(WallClock().now_ms() / 1000, datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start - datetime.timedelta(days=1))
        .not_valid_after(start + datetime.timedelta(days=2))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    text = made.public_bytes(serialization.Encoding.PEM)
    secret = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    trust, both = home / "trust.pem", home / "both.pem"
    trust.write_bytes(text)
    both.write_bytes(secret + text)
    return trust, both


@pytest.fixture(scope="module")
def secured() -> Iterator[tuple[str, dict[str, Any]]]:
    """Bootstrap address and the security settings that fit."""
    broker = SecureBroker()
    trust = broker.secure()
    yield (
        broker.bootstrap,
        {
            "security_protocol": "SASL_SSL",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "ours",
            "sasl_plain_password": Secret(PASSWORD),
            "cafile": str(trust),
        },
    )
    broker.stop()


async def test_every_verb_works_over_tls_with_a_password(
    secured: tuple[str, dict[str, Any]],
) -> None:
    """If this breaks, one part of the daemon cannot reach a cluster as companies run it."""
    bootstrap, security = secured
    bench, taker = Bench(bootstrap), Taker()
    acts: list[Record] = []
    leads: list[int] = []

    async def act(record: Record) -> None:
        acts.append(record)

    async def lead() -> None:
        leads.append(1)

    engine = bench.engine(security=security)
    await engine.start()
    await engine.topics(create=True)
    engine.bulk(["predictions"], taker, "ingest")
    engine.each("commands", act, "act")
    engine.lead("poll", 0.1, lead)
    async with running(engine):
        await engine.append("predictions", [Message(b"k", b"1")])
        await engine.append("commands", [Message(b"k", b"1")])
        await wait_until_async(lambda: taker.taken and acts and leads, 40)
        assert 1 == len(await engine.read("predictions"))


@pytest.mark.parametrize(
    "change",
    [
        {"sasl_plain_password": Secret("wrong")},
        {"cafile": None},
        {"security_protocol": None, "sasl_mechanism": None, "sasl_plain_username": None,
         "sasl_plain_password": None, "cafile": None},
    ],
    ids=["wrong password", "unknown authority", "plain text"],
)  # fmt: skip
async def test_wrong_security_ends_in_a_sentence_without_the_secret(
    secured: tuple[str, dict[str, Any]], change: dict[str, Any]
) -> None:
    """If this breaks, a daemon talks to whoever answers, or shows the password in its log."""
    bootstrap, security = secured
    wrong = {n: value for n, value in {**security, **change}.items() if value is not None}
    engine = Bench(bootstrap).engine(security=wrong)

    with pytest.raises(EngineFault, match="cannot be reached") as caught:
        await engine.start()
    await engine.stop()
    assert PASSWORD not in str(caught.value)
    assert "wrong" not in str(caught.value)
