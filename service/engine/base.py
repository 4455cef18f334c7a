"""The engine port: three verbs, `append`, and what one leader does.

Why. Roles must not know whether a broker or a file carries their messages. What they need is small:
whole batches in partition order (`bulk`), one owner per key with state that survives (`keyed`), and
one message after the other, at least once (`each`). Both engines pass one contract suite
(tests/contracts/test_every_engine.py), faults included.

Topics are named here without prefix (`predictions`); the engine maps them to real names.

Promises
--------
- Order per partition; all messages of one key are in one partition.
- At least once: a message is delivered again until its handler has returned and its position is
  committed. Handlers make repeats harmless (rows have names, ids are derived).
- `append` returns when the messages are durable.
- A handler that raises is called again with the same messages after a pause, never skipped; what it
  must not see again it has to refuse itself (`dead-letters`).
- `keyed`: one owner per partition; states, cursor and the owner's epoch are one database
  transaction; an owner whose epoch is no longer the highest is *fenced*: it drops the partition.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from schemas.topics import TOPICS as TOPICS

Headers = Sequence[tuple[str, bytes]]


class Message(NamedTuple):
    """What is appended."""

    key: bytes
    value: bytes
    partition: int | None = None
    """None: chosen by the key (murmur2, as Java clients do)."""
    headers: Headers = ()


class Record(NamedTuple):
    """One message as it is read."""

    topic: str
    partition: int
    offset: int
    time_ms: int
    """When the broker or the log took it, epoch ms."""
    key: bytes
    value: bytes
    headers: Headers = ()


class Batch(NamedTuple):
    """Messages of one topic partition in order, as columns of equal length (never empty)."""

    topic: str
    partition: int
    stream: str
    """Stream epoch: the topic's id; a topic that was deleted and made again has another."""
    offsets: Sequence[int]
    times_ms: Sequence[int]
    keys: Sequence[bytes]
    values: Sequence[bytes]


class Position(NamedTuple):
    """How far a topic partition has been taken in."""

    stream: str
    offset: int
    """Next offset to read."""
    note: str = ""
    """What the reader wants to find again beside it (at most 1 kB)."""


class Ends(NamedTuple):
    """Where a topic partition begins and ends at the moment of assignment."""

    stream: str
    first: int
    next: int


class Bulk(Protocol):
    """The handler of `bulk`: owns what it keeps per partition.

    On assignment, the topics are read in the order they were named up to their present end, one
    after the other (first all predictions, then outcomes); after that together. A reader that was
    killed thus makes the same pairs again.
    """

    async def assign(
        self, partition: int, committed: Mapping[str, Position], ends: Mapping[str, Ends]
    ) -> Mapping[str, int]:
        """Open the partition's state; return the next offset to read of each topic."""
        ...

    async def handle(self, partition: int, batches: Sequence[Batch]) -> Mapping[str, Position]:
        """Take in batches; what it said is durable on return. Return the positions to commit.

        With no batches it is the tick of a partition, about once a second.
        """
        ...

    async def revoke(self, partition: int) -> None:
        """Close the partition's state: another worker may own it now."""
        ...


class Effect(NamedTuple):
    """What `process` wants: messages in order, and which keys' states changed."""

    messages: Sequence[tuple[str, Message]] = ()
    """(topic, message); those of one topic are acknowledged before the next topic's are sent."""
    changed: frozenset[str] | set[str] = frozenset()
    urgent: bool = False
    """Checkpoint at once instead of within a second: a decision was made."""


class Snapshot(NamedTuple):
    """One key's state to be stored, and what readers may see of it."""

    state: bytes
    view: bytes | None = None
    """A JSON document for status, API and pages; kept in the same transaction."""


class Keyed(Protocol):
    """The handler of `keyed`: one owner per partition; `""` is the partition's own key."""

    async def open(self, partition: int, epoch: int, states: Mapping[str, bytes]) -> None:
        """Take over a partition with the states of its keys. `epoch` only grows."""
        ...

    async def process(
        self, partition: int, records: Sequence[Record], streams: Mapping[str, str]
    ) -> Effect:
        """Take in records of the keyed topics, oldest first per topic.

        With no records it is the tick of a partition, about four times a second.
        """
        ...

    def snapshot(self, partition: int, key: str) -> Snapshot:
        """Give one changed key's state, for the checkpoint."""
        ...

    async def close(self, partition: int) -> None:
        """Forget the partition: it is revoked, or this owner was fenced."""
        ...


Each = Callable[[Record], Awaitable[None]]
Action = Callable[[], Awaitable[None]]


class Claim(NamedTuple):
    """What a new owner of a partition finds."""

    epoch: int
    cursor: Mapping[str, Position]
    states: Mapping[str, bytes]


class Checkpoints(Protocol):
    """Where `keyed` keeps states, cursor and epoch (`service/storage`); called in threads."""

    def claim(self, stage: str, partition: int) -> Claim:
        """Raise the epoch of a partition and read what the last owner stored."""
        ...

    def save(
        self,
        stage: str,
        partition: int,
        epoch: int,
        cursor: Mapping[str, Position],
        states: Mapping[str, Snapshot],
    ) -> bool:
        """Store changed states and the cursor in one transaction; False: fenced, nothing stored."""
        ...


class TopicState(NamedTuple):
    """One topic as it is found."""

    topic: str
    name: str
    """The real name, with prefix."""
    partitions: int
    """0: it does not exist."""
    wanted: int


class EngineFault(RuntimeError):
    """Something about the engine that a person must mend; the text says what and how."""


class Engine(Protocol):
    """The port. Register handlers, then `run`; close by `stop`."""

    def bulk(self, topics: Sequence[str], handler: Bulk, group: str) -> None:
        """Register a handler of whole batches; the topics must be partitioned alike."""
        ...

    def keyed(self, topics: Sequence[str], handler: Keyed, group: str) -> None:
        """Register the owner of keys over topics that are partitioned alike."""
        ...

    def each(self, topic: str, handler: Each, group: str) -> None:
        """Register a handler of single messages."""
        ...

    def lead(self, name: str, every_s: float, action: Action) -> None:
        """Register what only one worker of the whole installation may do, every so often."""
        ...

    async def append(self, topic: str, messages: Sequence[Message]) -> None:
        """Write messages; durable on return. Works without `run`."""
        ...

    async def start(self) -> None:
        """Connect, so that `append`, `topics` and `read` work. Raises EngineFault."""
        ...

    async def run(self) -> None:
        """Serve the registered handlers until `stop`. Raises EngineFault on what cannot go on."""
        ...

    async def stop(self) -> None:
        """Finish what was taken in, commit, checkpoint, close."""
        ...

    async def topics(self, create: bool = False) -> Sequence[TopicState]:
        """Show all topics, or make those that are missing."""
        ...

    async def read(self, topic: str, limit: int | None = None) -> Sequence[Record]:
        """Read a topic from its beginning to its present end, for people and tests."""
        ...

    async def partitions(self, topic: str) -> int:
        """How many partitions a topic has."""
        ...

    def health(self) -> Mapping[str, Any]:
        """`{"ready": bool, "lag_s": float, "detail": {...}}` of this process's handlers."""
        ...
