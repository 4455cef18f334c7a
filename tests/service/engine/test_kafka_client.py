"""Settings, names and topics of a real cluster; nothing is made in silence."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from schemas.secrets import Secret
from service.engine.base import EngineFault, Position
from service.engine.kafka_client import Cluster, client_settings, note, position, topic_settings
from tests.real import free_port, wait_until_async


@pytest_asyncio.fixture
async def cluster(kafka: str) -> AsyncIterator[Cluster]:
    """A connection with a prefix of its own."""
    made = Cluster(kafka, prefix=f"t{uuid.uuid4().hex[:12]}.", names={"receipts": made_name()})
    await made.start()
    yield made
    await made.stop()


def made_name() -> str:
    return f"acme-receipts-{uuid.uuid4().hex[:8]}"


async def delete(cluster: Cluster, topic: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    await admin.delete_topics([cluster.real(topic)])
    await admin.close()

    async def gone() -> bool:
        return (await cluster.describe([topic]))[topic].partitions == 0

    await wait_until_async(gone, 10)


async def test_asking_makes_nothing(cluster: Cluster) -> None:
    """If this breaks, a misspelt topic name is made on the first look, and read for ever."""
    await cluster.describe(["predictions"])
    found = await cluster.describe(["predictions"])

    assert 0 == found["predictions"].partitions
    with pytest.raises(EngineFault, match=r"lacks .*predictions.*topics --create"):
        await cluster.require(["predictions"])


async def test_a_topic_made_again_is_another_stream(cluster: Cluster) -> None:
    """If this breaks, positions of a deleted topic hide the messages of its successor."""
    await cluster.create(["predictions"], 2)
    first = (await cluster.describe(["predictions"]))["predictions"]
    again = (await cluster.describe(["predictions"]))["predictions"]

    await delete(cluster, "predictions")
    await cluster.create(["predictions"], 2)
    other = (await cluster.describe(["predictions"]))["predictions"]

    assert (2, first) == (first.partitions, again)
    assert first.stream != other.stream


async def test_topics_have_their_settings_and_names(cluster: Cluster) -> None:
    """If this breaks, holds are forgotten after a week, or verdicts fill the disk."""
    await cluster.create(["holds", "receipts"], 3)

    admin = AIOKafkaAdminClient(bootstrap_servers=cluster.bootstrap)
    await admin.start()
    found = {}
    for topic in ("holds", "receipts"):
        reply = await admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, cluster.real(topic))]
        )
        found[topic] = {entry[0]: entry[1] for entry in reply[0].resources[0][4]}
    await admin.close()

    assert "acme-receipts" in cluster.real("receipts")
    assert "receipts" == cluster.logical(cluster.real("receipts"))
    assert ("compact", "1048576") == tuple(
        found["holds"][name] for name in ("cleanup.policy", "max.message.bytes")
    )
    assert ("delete", str(28 * 86_400_000)) == tuple(
        found["receipts"][name] for name in ("cleanup.policy", "retention.ms")
    )


async def test_making_twice_is_once(cluster: Cluster) -> None:
    """If this breaks, `topics --create` fails on every cluster that has some topics already."""
    await cluster.create(["holds"], 3)
    await cluster.create(["holds", "orders"], 5)

    found = await cluster.describe(["holds", "orders"])
    assert (3, 5) == (found["holds"].partitions, found["orders"].partitions)


async def test_nobody_answers() -> None:
    """If this breaks, a wrong address gives a trace instead of a sentence."""
    cluster = Cluster(f"127.0.0.1:{free_port()}")

    with pytest.raises(EngineFault, match=r"Kafka at 127\.0\.0\.1:\d+ cannot be reached.*engine"):
        await cluster.start()


def test_a_commit_carries_stream_and_note() -> None:
    """If this breaks, a new machine does not find from where to rebuild its pending predictions."""
    at = Position("a1b2", 7, "oldest=3 of 5")

    assert at == position(7, note(at))
    assert Position("a1b2", 8) == position(8, note(Position("a1b2", 8)))
    assert Position("", 9) == position(9, None)


def test_topics_outside_the_list_are_plain() -> None:
    """If this breaks, a re-keying topic of a customer cannot be made."""
    assert {"max.message.bytes": "1048576", "cleanup.policy": "delete"} == topic_settings("mine")


@pytest.mark.parametrize(
    ("security", "expected"),
    [
        ({}, {"security_protocol": "PLAINTEXT"}),
        (
            {"sasl_plain_username": "u", "sasl_plain_password": Secret("p")},
            {
                "security_protocol": "SASL_SSL",
                "sasl_mechanism": "SCRAM-SHA-512",
                "sasl_plain_username": "u",
                "sasl_plain_password": "p",
            },
        ),
        ({"security_protocol": "SSL"}, {"security_protocol": "SSL"}),
    ],
)
def test_security_settings(security: dict[str, Any], expected: dict[str, Any]) -> None:
    """If this breaks, a password goes over the wire in clear because a default was weak."""
    settings = client_settings("broker:9092", security, "me")

    context = settings.pop("ssl_context", None)
    assert expected == {
        name: value
        for name, value in settings.items()
        if name not in ("bootstrap_servers", "client_id")
    }
    assert ("SSL" in expected["security_protocol"]) == (
        context is not None and context.check_hostname
    )


@pytest.mark.parametrize(
    ("security", "said"),
    [
        ({"passwort": "x"}, r"engine\.security\.passwort is unknown; known are cafile"),
        ({"cafile": "/nowhere/ca.pem"}, "/nowhere/ca.pem"),
        ({"cafile": "ca.pem", "security_protocol": "PLAINTEXT"}, "certificates, but"),
        ({"sasl_plain_username": "u", "security_protocol": "SSL"}, "SASL user, but"),
    ],
)
def test_wrong_security_is_refused(security: dict[str, Any], said: str) -> None:
    """If this breaks, a typing error in the settings means plain text."""
    with pytest.raises(EngineFault, match=said):
        client_settings("broker:9092", security, "me")


def test_no_secret_in_an_error(tmp_path: Path) -> None:
    """If this breaks, a password stands in the log of a failed start."""
    security = {"sasl_plain_password": Secret("hunter2"), "cafile": str(tmp_path / "no.pem")}

    with pytest.raises(EngineFault) as caught:
        client_settings("broker:9092", security, "me")
    assert "hunter2" not in str(caught.value)
