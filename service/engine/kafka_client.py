"""A Kafka cluster as this process reaches it: settings, names, and which topics are there.

Why. Every client of the engine needs the same settings, and they differ from aiokafka's defaults
where those lose or invent messages (docs/operations.md). A topic is asked for by a request that
never creates it: clients ask for creation with every look-up, and a broker that allows it would
make a misspelt topic in silence.

How. A topic's id is its *stream epoch*: a topic that was deleted and made again has another
(`kafka_metadata.py`). A broker that gives topics no id gives the cluster's instead; a topic made
again is then seen only when offsets fall out of range.

Refused here: creating anything but by `create`, and connecting without host name check.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka.errors
from aiokafka import AIOKafkaClient, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.helpers import create_ssl_context

from service.engine.base import TOPICS, EngineFault, Position, TopicState
from service.engine.kafka_metadata import TopicIds

MAX_MESSAGE_BYTES = 1 << 20
"""Largest message (and compressed batch) of a topic; consumers can be held to no smaller one."""

ANSWER_S, RETRY_S = 30.0, 0.2
"""How long, and after which pauses, a question to the cluster is asked again; seconds."""

REQUEST_MS = 10_000
"""Time limit of one question, milliseconds."""

DENIED = (
    aiokafka.errors.TopicAuthorizationFailedError,
    aiokafka.errors.GroupAuthorizationFailedError,
    aiokafka.errors.ClusterAuthorizationFailedError,
    aiokafka.errors.SaslAuthenticationFailed,
)
"""What no further attempt mends."""

SECURITY = {
    "security_protocol",
    "sasl_mechanism",
    "sasl_plain_username",
    "sasl_plain_password",
    "cafile",
    "certfile",
    "keyfile",
}


class Found(NamedTuple):
    """A topic as the cluster describes it."""

    stream: str
    partitions: int
    """0: it does not exist."""


class Cluster:
    """One cluster, the names of our topics in it, and a connection of its own.

    Parameters
    ----------
    bootstrap : str
        `host:port`, comma-separated.
    security : Mapping
        See `SECURITY`; empty is plain text, for a broker on this machine or a trusted network.

    Raises
    ------
    EngineFault
        On construction, when a security setting is unknown, contradictory or unreadable.
    """

    def __init__(
        self,
        bootstrap: str,
        prefix: str = "rollbackd.",
        names: Mapping[str, str] | None = None,
        security: Mapping[str, Any] | None = None,
        instance: str | None = None,
    ) -> None:
        self.bootstrap = bootstrap
        self.prefix = prefix
        self.settings = client_settings(bootstrap, security or {}, instance or "rollbackd")
        self._names = dict(names or {})
        self._logical = {real: topic for topic, real in self._names.items()}
        self._client: Any = None
        self._admin: Any = None

    def real(self, topic: str) -> str:
        """The name of a topic in the cluster."""
        return self._names.get(topic) or f"{self.prefix}{topic}"

    def logical(self, name: str) -> str:
        """Our name of a topic of the cluster."""
        return self._logical.get(name) or name.removeprefix(self.prefix)

    def group(self, group: str) -> str:
        """The name of a consumer group in the cluster: prefixed, as topics are, for ACLs."""
        return f"{self.prefix}{group}"

    async def start(self) -> None:
        """Connect.

        Raises
        ------
        EngineFault
            When no broker answers, or it refuses us.
        """
        self._client = AIOKafkaClient(**self.settings, request_timeout_ms=REQUEST_MS)
        self._admin = AIOKafkaAdminClient(**self.settings, request_timeout_ms=REQUEST_MS)
        try:
            await self._client.bootstrap()
            await self._admin.start()
        except aiokafka.errors.KafkaError as fault:
            await self.stop()
            raise EngineFault(
                f"Kafka at {self.bootstrap} cannot be reached: {_said(fault)}; "
                "check engine.url and engine.security"
            ) from fault

    async def stop(self) -> None:
        """Disconnect; twice is once."""
        client, admin, self._client, self._admin = self._client, self._admin, None, None
        if admin is not None:
            await admin.close()
        if client is not None:
            await client.close()

    async def describe(self, topics: Iterable[str]) -> dict[str, Found]:
        """Describe topics, by our names; a missing one has 0 partitions. Creates nothing."""
        wanted = list(topics)
        by_name = {self.real(topic): topic for topic in wanted}
        reply = await self._ask(TopicIds(list(by_name)))
        found = dict.fromkeys(wanted, Found("", 0))
        for error, name, topic_id, _internal, partitions, _operations, _tags in reply.topics:
            if error:
                kind = aiokafka.errors.for_code(error)
                if kind is not aiokafka.errors.UnknownTopicOrPartitionError:
                    raise EngineFault(f"topic {name} cannot be described: {_said(kind())}")
                continue
            known = topic_id != bytes(16)
            stream = uuid.UUID(bytes=topic_id).hex if known else f"cluster-{reply.cluster_id}"
            found[by_name[name]] = Found(stream, len(partitions))
        return found

    async def require(self, topics: Sequence[str]) -> dict[str, Found]:
        """Describe topics that must exist.

        Raises
        ------
        EngineFault
            Names those that are missing and how to make them.
        """
        found = await self.describe(topics)
        missing = [self.real(topic) for topic in topics if not found[topic].partitions]
        if missing:
            raise EngineFault(
                f"Kafka at {self.bootstrap} lacks {', '.join(missing)}: "
                "make them by `rollbackd topics --create`, or name them under engine.topics"
            )
        return found

    async def create(self, missing: Sequence[str], partitions: int) -> None:
        """Make topics with the retention of `TOPICS` and the cluster's own replication."""
        made = [
            # No assignments, and -1: the broker's default.replication.factor.
            NewTopic(self.real(topic), partitions, -1, {}, topic_configs=topic_settings(topic))
            for topic in missing
        ]
        reply = await self._retry(lambda: self._admin.create_topics(made))
        for name, code, text, *_ in reply.topic_errors:
            kind = aiokafka.errors.for_code(code)
            if code and kind is not aiokafka.errors.TopicAlreadyExistsError:
                raise EngineFault(f"topic {name} cannot be made: {text or kind.__name__}")
        try:
            async with asyncio.timeout(ANSWER_S):  # brokers hear of it one after the other
                while not all(f.partitions for f in (await self.describe(missing)).values()):
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise EngineFault(f"topics {', '.join(missing)} were made, but do not show") from None

    async def states(self, wanted: int) -> list[TopicState]:
        """All topics of `TOPICS` as they are."""
        found = await self.describe(TOPICS)
        return [TopicState(topic, self.real(topic), found[topic].partitions, wanted)
                for topic in TOPICS]  # fmt: skip

    async def committed(self, group: str, parts: Sequence[Any]) -> dict[TopicPartition, Position]:
        """What a group committed for topic partitions, notes included."""
        offsets = await self._retry(
            lambda: self._admin.list_consumer_group_offsets(self.group(group), partitions=parts)
        )
        return {
            part: position(at.offset, at.metadata) for part, at in offsets.items() if at.offset >= 0
        }

    async def group_members(self, group: str) -> Sequence[Any]:
        """Ask the coordinator to describe a group: aiokafka's own replies.

        One group only: aiokafka reads an answer about several as if it were of an older version.
        """
        replies: Sequence[Any] = await self._retry(
            lambda: self._admin.describe_consumer_groups([self.group(group)])
        )
        return replies

    async def ask_leader(self, part: TopicPartition, request: Any) -> Any:
        """Send a request to the broker that leads a topic partition."""
        await self._client.add_topic(part.topic)

        async def ask() -> Any:
            leader = self._client.cluster.leader_for_partition(part)
            if leader is None or leader == -1:
                raise aiokafka.errors.LeaderNotAvailableError(part)
            return await self._client.send(leader, request)

        return await self._retry(ask)

    async def _ask(self, request: Any) -> Any:
        return await self._retry(lambda: self._client.send(self._client.get_random_node(), request))

    async def _retry(self, call: Callable[[], Awaitable[Any]]) -> Any:
        # A cluster that has just started answers "no coordinator" until it made its offsets topic.
        fault: Exception | None = None
        try:
            async with asyncio.timeout(ANSWER_S):
                while self._client is not None:
                    try:
                        return await call()
                    except aiokafka.errors.KafkaError as raised:
                        if not raised.retriable:
                            raise
                        fault = raised
                    await asyncio.sleep(RETRY_S)
                    await self._client.force_metadata_update()
        except TimeoutError:
            said = f": {_said(fault)}" if fault else ""
            raise EngineFault(
                f"Kafka at {self.bootstrap} gave no answer in {ANSWER_S:g} s{said}"
            ) from fault
        raise EngineFault("the Kafka engine is not started, or stopped already")


def client_settings(bootstrap: str, security: Mapping[str, Any], instance: str) -> dict[str, Any]:
    """Settings that consumers, producers and administration share."""
    if unknown := sorted(set(security) - SECURITY):
        raise EngineFault(
            f"engine.security.{unknown[0]} is unknown; known are {', '.join(sorted(SECURITY))}"
        )
    settings: dict[str, Any] = {"bootstrap_servers": bootstrap, "client_id": instance}
    files = {name: security[name] for name in ("cafile", "certfile", "keyfile") if name in security}
    sasl = {name: _open(value) for name, value in security.items() if name.startswith("sasl_")}
    default = ("SASL_" if sasl else "") + ("SSL" if files or sasl else "PLAINTEXT")
    protocol = settings["security_protocol"] = security.get("security_protocol", default)
    if "SSL" in protocol.split("_"):
        try:
            settings["ssl_context"] = create_ssl_context(**files)
        except OSError as fault:
            raise EngineFault(f"engine.security: {', '.join(files.values())}: {fault}") from None
    elif files:
        raise EngineFault(f"engine.security has certificates, but its protocol is {protocol}")
    if protocol.startswith("SASL_"):
        settings |= {"sasl_mechanism": "SCRAM-SHA-512", **sasl}
    elif sasl:
        raise EngineFault(f"engine.security has a SASL user, but its protocol is {protocol}")
    return settings


def topic_settings(topic: str) -> dict[str, str]:
    """Kafka's own settings of a topic, from `TOPICS`; a topic of another name is plain."""
    known = TOPICS.get(topic, {})
    made = {"max.message.bytes": str(MAX_MESSAGE_BYTES)}
    made["cleanup.policy"] = known.get("cleanup", "delete")
    if "retention_s" in known:
        made["retention.ms"] = str(known["retention_s"] * 1000)
    return made


def note(at: Position) -> str:
    """A position's stream and note as a commit's metadata.

    Examples
    --------
    >>> position(7, note(Position("a1", 7, "oldest=3")))
    Position(stream='a1', offset=7, note='oldest=3')
    """
    return f"{at.stream} {at.note}" if at.note else at.stream


def position(offset: int, metadata: str | None) -> Position:
    """Read back what `note` wrote."""
    stream, _, text = (metadata or "").partition(" ")
    return Position(stream, offset, text)


def _open(value: Any) -> Any:
    return value.reveal() if hasattr(value, "reveal") else value


def _said(fault: BaseException) -> str:
    return f"{type(fault).__name__}: {fault}" if str(fault) else type(fault).__name__
