"""`each` and `lead` on Faust: agents for single messages, and what one process alone does.

Why. Commands and receipts are a few an hour; what counts is that each is handled before it is
acknowledged, in order, and again after a crash. Faust's agents and leader give that with public
parts. Its tables and its throughput are not used (docs/decisions, 0014).

How. One Faust app per group, inside this process's loop, made anew when it crashes and when it does
not take part any more (`faust_stuck.py`). An agent calls the handler until it returns, and only
then acknowledges; when the partition is given away or the engine stops meanwhile, nothing more is
acknowledged, so the message comes again. Offsets must follow each other, and the first of each
generation what the cluster says was committed (compacted topics apart): around a rebalance Faust
may drop what it fetched, and commits past what it believes to be a gap; so at a gap the app is made
anew, from what was committed. It is never made anew in the middle of a handler's call.

Refused here: interrupting a handler that works for long; skipping a message.
"""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from functools import partial
from typing import Any

from aiokafka import TopicPartition
from prometheus_client import Gauge

from service.clock import Clock
from service.engine.base import TOPICS, Action, Each, Record
from service.engine.faust_app import (
    LEADER_TOPIC,
    add_agent,
    assignment,
    build_app,
    member_id,
    stop_app,
)
from service.engine.faust_stuck import Doubts, Seen, Stuck, goes_on, members, waiting
from service.engine.kafka_client import Cluster
from service.engine.retry import Retry, Stopped
from service.telemetry import Metrics

START_S, LOOK_S = 60.0, 0.1
ASK_EVERY_SESSIONS = 0.5
"""How often the cluster is asked what it knows of the group, in sessions."""


class Gap(RuntimeError):
    """Faust delivered offsets that do not follow each other."""


class FaustHost:
    """All Faust apps of one engine."""

    def __init__(
        self,
        cluster: Cluster,
        clock: Clock,
        metrics: Metrics,
        session_s: float,
        stopping: asyncio.Event,
    ) -> None:
        self._cluster = cluster
        self._clock = clock
        self._metrics = metrics
        self._session_s = session_s
        self._stopping = stopping
        self._served: dict[str, Served] = {}

    def each(self, topic: str, handler: Each, group: str) -> None:
        """Register a handler of single messages."""
        self._group(group).handlers[topic] = handler

    def lead(self, name: str, every_s: float, action: Action) -> None:
        """Register what the leader of `name` does every so often."""
        self._group(f"lead-{name}").leads.append((name, every_s, action))

    async def run(self) -> None:
        """Serve until the engine stops."""
        with tempfile.TemporaryDirectory(prefix="rollbackd-faust-") as folder:
            await asyncio.gather(*(served.run(folder) for served in self._served.values()))

    def health(self) -> dict[str, dict[str, Any]]:
        """Whether each group takes part, and how far it is behind."""
        return {group: served.health() for group, served in self._served.items()}

    def _group(self, group: str) -> Served:
        if group not in self._served:
            retry = Retry(group, self._metrics.errors, self._stopping)
            lag = self._metrics.lag_s.labels(stage=group)
            self._served[group] = Served(
                group, self._cluster, self._clock, lag, retry, self._stopping, self._session_s
            )
        return self._served[group]


class Served:
    """One group: its handlers, and the app that calls them at the moment."""

    def __init__(
        self,
        group: str,
        cluster: Cluster,
        clock: Clock,
        lag: Gauge,
        retry: Retry,
        stopping: asyncio.Event,
        session_s: float,
    ) -> None:
        self.handlers: dict[str, Each] = {}
        self.leads: list[tuple[str, float, Action]] = []
        self._group = group
        self._cluster = cluster
        self._clock = clock
        self._lag = lag
        self._retry = retry
        self._stopping = stopping
        self._session_s = session_s
        self._app: Any = None
        self._anew: Exception | None = None
        """Why the app is to be made anew."""
        self._doubts = Doubts(session_s)
        self._said = Seen(assigned=False)
        """What the cluster last said; its own words of the app are added at each look."""
        self._at_work: Counter[str] = Counter()
        """Handlers at work, by topic."""
        self._worked: set[str] = set()
        """Real names of topics that a handler worked on since the last look."""
        self._next: dict[Any, tuple[int, int]] = {}
        """Generation and next offset of each topic partition that delivered something."""
        self._since_s = clock.monotonic_s()
        self._time_ms = 0

    async def run(self, folder: str) -> None:
        """Keep an app running until the engine stops."""
        await self._cluster.require([*self.handlers, *([LEADER_TOPIC] if self.leads else [])])
        while not self._stopping.is_set():
            try:
                await self._serve(folder)
            except Exception as fault:
                try:
                    await self._retry.pause("app", fault)
                except Stopped:
                    return

    async def _serve(self, folder: str) -> None:
        self._anew, self._next, self._since_s = None, {}, self._clock.monotonic_s()
        self._said = Seen(assigned=False)
        self._doubts.begin()
        app = self._app = self._build(folder)
        asking = asyncio.ensure_future(self._ask(app))
        try:
            await asyncio.wait_for(app.start(), START_S)
            self._retry.worked("app")
            while not self._stopping.is_set():
                if app.crashed:
                    raise app.crash_reason or RuntimeError("Faust crashed without a reason")
                self._look()
                self._lag.set(self._lag_s(assignment(app)))
                await asyncio.sleep(LOOK_S)
        finally:
            self._app = None
            asking.cancel()
            await asyncio.wait((asking,))
            await stop_app(app, self._group)

    def _build(self, folder: str) -> Any:
        app = build_app(self._cluster, self._group, folder, self._session_s, bool(self.leads))
        for topic, handler in self.handlers.items():
            add_agent(app, self._cluster, topic, partial(self._handle, app, handler))
        if self.leads:
            add_agent(app, self._cluster, LEADER_TOPIC, _ignore)
        for name, every_s, action in self.leads:
            app.timer(every_s, on_leader=True, name=name)(partial(self._lead, name, action))
        return app

    # -- whether it takes part -------------------------------------------------------------------

    def _look(self) -> None:
        """Raise what makes the app be made anew, once no handler is at work."""
        busy = self._worked | {self._cluster.real(t) for t, n in self._at_work.items() if n}
        self._worked = set()
        seen = self._said._replace(assigned=assignment(self._app) is not None, busy=frozenset(busy))
        wrong = self._doubts.look(seen, self._clock.monotonic_s(), self._clock.now_ms() / 1000)
        if wrong and not self._anew:
            self._anew = Stuck(f"group {self._group}: {wrong}; its Faust app is made anew")
        if self._anew and not self._at_work.total():
            raise self._anew

    async def _ask(self, app: Any) -> None:
        """Keep asking the cluster what it knows of the group."""
        while True:
            await asyncio.sleep(ASK_EVERY_SESSIONS * self._session_s)
            try:
                self._said = await self._ask_once(app)
            except Exception as fault:
                self._said = Seen(assigned=False)
                self._retry.failed("asking the cluster", fault)
            else:
                self._retry.worked("asking the cluster")

    async def _ask_once(self, app: Any) -> Seen:
        parts = assignment(app)
        if parts is None:
            return Seen(assigned=False)
        found = await members(self._cluster, self._group)
        member = None if found is None else member_id(app) in found
        handled = list(parts) if self.handlers else []
        left = await waiting(self._cluster, self._group, handled)
        return Seen(assigned=True, member=member, waiting=left)

    # -- handling --------------------------------------------------------------------------------

    async def _handle(self, app: Any, handler: Each, topic: str, event: Any) -> bool:
        """Call the handler until it returns; False when the message is not ours any more."""
        message = event.message
        try:
            if self._anew or await self._is_gap(topic, message):
                return False
        except Stopped:
            return False
        record = Record(
            topic,
            message.partition,
            message.offset,
            round((message.timestamp or 0) * 1000),
            message.key or b"",
            message.value or b"",
            tuple(message.headers or ()),
        )
        self._at_work[topic] += 1
        try:
            return await self._insist(app, handler, record, message)
        finally:
            self._at_work[topic] -= 1
            self._worked.add(message.topic)

    async def _insist(self, app: Any, handler: Each, record: Record, message: Any) -> bool:
        while message.generation_id == app.consumer_generation_id and not self._anew:
            if self._stopping.is_set() or app.should_stop:
                break
            try:
                await handler(record)
            except Exception as fault:
                try:
                    await self._retry.pause("handle", fault)
                except Stopped:
                    break
            else:
                self._retry.worked("handle")
                self._next[message.tp] = (message.generation_id, message.offset + 1)
                self._time_ms = record.time_ms
                return bool(message.generation_id == app.consumer_generation_id)
        return False

    async def _is_gap(self, topic: str, message: Any) -> bool:
        """Whether messages before this one were not delivered; then the app is to be made anew.

        Raises
        ------
        Stopped
            When the cluster does not say where to begin, and the engine is stopping.
        """
        if TOPICS.get(topic, {}).get("cleanup") == "compact":
            return False
        generation, expected = self._next.get(message.tp, (None, 0))
        if generation == message.generation_id:
            fits = message.offset == expected
        else:
            part = TopicPartition(*message.tp)
            found = await self._retry.insist(
                "asking where to begin", lambda: goes_on(self._cluster, self._group, [part])
            )
            expected = found[part]
            fits = message.offset <= expected
        if not fits:
            said = f"{message.tp}: expected offset {expected}, got {message.offset}"
            self._anew = self._anew or Gap(said)
        return not fits

    async def _lead(self, name: str, action: Action) -> None:
        if self._stopping.is_set():
            return
        try:
            await action()
        except Exception as fault:
            self._retry.failed(name, fault)
        else:
            self._retry.worked(name)

    # -- health ----------------------------------------------------------------------------------

    def health(self) -> dict[str, Any]:
        """Whether this process takes part, and how far it is behind."""
        parts = assignment(self._app)
        return {
            "owned": parts is not None,
            "partitions": sorted({part.partition for part in parts or ()}),
            "lag_s": self._lag_s(parts),
            "failing": self._retry.failing,
        }

    def _lag_s(self, parts: Any) -> float:
        if parts is None:
            return self._clock.monotonic_s() - self._since_s
        if not self.handlers or not any(self._waits(part) for part in parts):
            return 0.0
        if not self._time_ms:
            return self._clock.monotonic_s() - self._since_s
        return (self._clock.now_ms() - self._time_ms) / 1000

    def _waits(self, part: Any) -> bool:
        end = self._app.consumer.highwater(part) or 0
        _, next_ = self._next.get(part, (None, None))
        committed = self._app.consumer._committed_offset.get(part) or 0
        return bool(end > (committed if next_ is None else next_))


async def _ignore(topic: str, event: Any) -> bool:
    return True
