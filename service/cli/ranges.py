"""A range of a Kafka cluster's topics as `replay` reads it: `--from`, `--to`, and the messages.

Nothing is committed, and no group is joined: whoever consumes the topics is not disturbed.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import re
from collections.abc import Iterator
from typing import NamedTuple

from schemas.events import TOPIC_OF
from schemas.times import to_ms
from service.cli.base import Failure
from service.config import EngineSettings
from service.engine.base import EngineFault, Record
from service.engine.kafka_client import Cluster
from service.engine.kafka_range import Edge, KafkaRange, Part, Span

SCHEME = "kafka://"
ORDER = [TOPIC_OF[word] for word in ("rollout", "prediction", "outcome")]
"""Of messages that the log took in the same millisecond: a cause comes before what it causes."""


class Wanted(NamedTuple):
    """Which messages to read."""

    url: str
    begin: Edge
    end: Edge
    prefix: str | None = None
    """Before each topic's name; None: as the settings say."""


def edge_of(option: str, text: str | None) -> Edge:
    """Read `--from` or `--to`.

    Examples
    --------
    >>> edge_of("--from", "1200").offset, dict(edge_of("--to", "outcomes/3=77").offsets)
    (1200, {('outcomes', 3): 77})

    Raises
    ------
    Failure
        When it is neither a time nor offsets.
    """
    if text is None:
        return Edge()
    if re.fullmatch(r"\d+", text):
        return Edge(offset=int(text))
    if "=" in text:
        found = [re.fullmatch(r"(\w+)/(\d+)=(\d+)", each.strip()) for each in text.split(",")]
        named = {(m[1], int(m[2])): int(m[3]) for m in found if m and m[1] in ORDER}
        if len(named) == len(found):
            return Edge(offsets=named)
    else:
        try:
            at = dt.datetime.fromisoformat(text)
        except ValueError:
            at = None
        if at is not None and at.tzinfo is not None:
            return Edge(time_ms=to_ms(at))
    raise Failure(
        f"{option}: found {text!r}; give a time with its zone (2026-11-24T09:00:00Z), an offset, "
        f"or offsets of partitions (predictions/0=1200,outcomes/0=800) of {', '.join(ORDER)}"
    )


class Ranged:
    """The messages of a range, read from a loop of its own."""

    def __init__(self, wanted: Wanted, engine: EngineSettings) -> None:
        prefix = engine.prefix if wanted.prefix is None else wanted.prefix
        names = engine.topics if wanted.prefix is None else {}
        cluster = Cluster(
            wanted.url.removeprefix(SCHEME), prefix, names, engine.security, "rollbackd-replay"
        )
        self._range = KafkaRange(cluster, ORDER, wanted.begin, wanted.end)
        self.spans: dict[Part, Span] = {}
        """What is read, known once reading began."""

    def chunks(self, most: int) -> Iterator[tuple[int, list[Record]]]:
        """Give messages in order of arrival, at most so many at once, numbered from 1.

        Raises
        ------
        Failure
            When the cluster cannot be read.
        """
        with asyncio.Runner() as runner:
            try:
                self.spans = runner.run(self._range.spans())
                records = self._range.records(self.spans)
                number, held = 1, list[Record]()
                while True:
                    more = runner.run(anext(records, None))
                    held += more or []
                    while len(held) >= most or (held and more is None):
                        yield number, held[:most]
                        number += len(held[:most])
                        held = held[most:]
                    if more is None:
                        return
            except EngineFault as fault:
                raise Failure(str(fault)) from None
            finally:
                runner.run(self._range.stop())

    def edges(self) -> str:
        """The range in offsets, as options that give the very same messages again."""
        begin = ",".join(f"{topic}/{n}={span.begin}" for (topic, n), span in self.spans.items())
        end = ",".join(f"{topic}/{n}={span.end}" for (topic, n), span in self.spans.items())
        return f"--from {begin} --to {end}"
