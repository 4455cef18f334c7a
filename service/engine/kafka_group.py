"""One consumer group: joining, owning partitions, trying again. `bulk` and `keyed` stand on it.

Why. What must never go wrong is the same for both: nothing is handed over before the partition's
state is open and its position set; nothing is taken in while the partition is being given away; a
handler that fails keeps its partition, and the others go on.

How. One loop: fetch, let every share take in what came, commit, again. The commit overlaps with the
next fetch and is over before the next handling. aiokafka's assignment callback pauses and positions
the new partitions before their first fetch; the loop opens them, so that slow storage does not cost
the membership (no heartbeat goes out during that callback). A revocation waits until the turn is
over, then everything is given up: rebalancing is eager in aiokafka.

What aiokafka does not survive makes a new consumer, after a pause. A process that stood still
longer than its session (SIGSTOP, a sleeping machine) first lets the heartbeat find out whether it
is still a member. Streams (topic ids) are asked for at assignment, every `LOOK_EVERY_S`, and when
positions are out of range.

Refused here: knowing what messages mean; auto-commit; `auto_offset_reset`, which skips in silence.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import aiokafka.errors
import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from service.clock import Clock
from service.engine.base import Ends, EngineFault
from service.engine.kafka_assign import TogetherAssignor
from service.engine.kafka_client import DENIED, Cluster, Found, note
from service.engine.kafka_fetch import Fetching, OffTheLog
from service.engine.kafka_share import Share, Worker
from service.engine.owner import Fenced
from service.engine.retry import FIRST_PAUSE_S, LONGEST_PAUSE_S, Retry, Stopped
from service.telemetry import Metrics

log = structlog.get_logger(__name__)

FETCH_WAIT_MS = 100
"""Longest wait of a broker for messages, so also until a resumed partition is fetched, ms."""
FETCHER_STEPS = 5
"""Turns of the loop that aiokafka's fetcher takes from an emptied buffer to its next request."""
PARTITION_BYTES = 4 << 20
"""Most of one partition in one fetch; fewer and larger turns cost less per message."""
LOOK_EVERY_S = 5.0
"""How often the topics' ids are asked for, seconds."""
HEARTBEATS = 6
"""Heartbeats in a session. Members hear of a rebalance only by the answer to one, so a takeover
takes a session and one of these."""
STUCK_S = 120.0
"""Joining or fetching that takes longer gets a new consumer, seconds."""
COMMIT_S = 30.0
STOP_S = 10.0


class Plan(NamedTuple):
    """What a group reads and what serves it."""

    name: str
    topics: Sequence[str]
    worker: Worker


class Group:
    """This process's member of one group. `run` until `stop`."""

    def __init__(
        self, plan: Plan, cluster: Cluster, clock: Clock, metrics: Metrics, session_s: float
    ) -> None:
        self.name = plan.name
        self.shares: dict[int, Share] = {}
        self.joined = False
        self._plan = plan
        self._worker = plan.worker
        self._cluster = cluster
        self._clock = clock
        self._metrics = metrics
        self._session_s = session_s
        self._stopping = asyncio.Event()
        self.retry = Retry(plan.name, metrics.errors, self._stopping)
        self._turn = asyncio.Lock()
        self._consumer: Any = None
        self._fetching: Fetching
        self._committing: asyncio.Task[None] | None = None
        self._found: dict[str, Found] = {}
        self._looked_s = 0.0

    async def run(self) -> None:
        """Serve until `stop`.

        Raises
        ------
        EngineFault
            On what cannot go on: topics missing or partitioned unlike, no permission, a hole.
        """
        self._found = await self._describe()
        self._looked_s = self._clock.monotonic_s()
        while not self._stopping.is_set():
            try:
                await self._serve()
            except Stopped:
                return
            except DENIED as fault:
                raise EngineFault(
                    f"group {self._cluster.group(self.name)} may not read: {fault}; "
                    "grant Read on its topics and on the group"
                ) from fault
            except (aiokafka.errors.KafkaError, OSError, TimeoutError) as fault:
                try:
                    await self.retry.pause("consumer", fault)
                except Stopped:
                    return

    def stop(self) -> None:
        """Make `run` finish what was taken in, commit, close and return."""
        self._stopping.set()
        self._worker.interrupt(True)

    def health(self) -> dict[str, Any]:
        """Whether this member serves all it was given."""
        serving = sorted(share.partition for share in self.shares.values() if share.opened)
        return {
            "owned": self.joined and len(serving) == len(self.shares),
            "partitions": serving,
            "lag_s": self.lag_s(),
            "failing": [*self.retry.failing, *self._worker.failing],
        }

    def lag_s(self) -> float:
        """How old the last message is that was taken in, where more wait; seconds."""
        ages = [0.0]
        for share in self.shares.values():
            waits = any(self._waits(topic, share) for topic in share.topics)
            if waits and share.time_ms:
                ages.append((self._clock.now_ms() - share.time_ms) / 1000)
            elif waits or not share.opened:
                ages.append(self._clock.monotonic_s() - share.since_s)
        return max(ages)

    def _waits(self, topic: str, share: Share) -> bool:
        part = self._part(topic, share)
        if not share.opened or part not in self._consumer.assignment():
            return False
        return bool(share.kept) or (self._consumer.highwater(part) or 0) > share.next[topic]

    # -- the consumer ----------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._consumer = consumer = AIOKafkaConsumer(
            **self._cluster.settings,
            group_id=self._cluster.group(self.name),
            partition_assignment_strategy=(TogetherAssignor(),),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            session_timeout_ms=round(self._session_s * 1000),
            heartbeat_interval_ms=round(self._session_s * 1000 / HEARTBEATS),
            fetch_max_wait_ms=FETCH_WAIT_MS,
            fetch_max_bytes=16 << 20,
            max_partition_fetch_bytes=PARTITION_BYTES,
            # So long a topic that was made again, or has grown, may go unseen.
            metadata_max_age_ms=round(LOOK_EVERY_S * 1000),
        )
        self._fetching = Fetching(consumer, self._cluster, self.retry, self._metrics)
        names = [self._cluster.real(topic) for topic in self._plan.topics]
        consumer.subscribe(names, listener=_Listener(self))
        try:
            await self._or_stop(consumer.start(), "joining")
            while not self._stopping.is_set():
                await self._one_turn()
        finally:
            await self._leave()

    async def _or_stop(self, work: Coroutine[Any, Any, None], what: str) -> None:
        """Await `work`, but not beyond a stop, nor for ever: aiokafka waits in some places."""
        working = asyncio.ensure_future(work)
        stopped = asyncio.ensure_future(self._stopping.wait())
        try:
            await asyncio.wait(
                (working, stopped), timeout=STUCK_S, return_when=asyncio.FIRST_COMPLETED
            )
            if not working.done() and not stopped.done():
                raise TimeoutError(f"{what} took longer than {STUCK_S:g} s")
        finally:
            stopped.cancel()
            if not working.done():
                working.cancel()
            await asyncio.wait((working,))
        if not working.cancelled():
            working.result()

    async def _leave(self) -> None:
        await self.give_up()
        self.joined = False
        try:
            await asyncio.wait_for(self._consumer.stop(), STOP_S)
        except (aiokafka.errors.KafkaError, TimeoutError, OSError) as fault:
            log.warning("group not left in order", group=self.name, fault=str(fault))

    # -- one turn --------------------------------------------------------------------------------

    async def _one_turn(self) -> None:
        before_s = self._clock.monotonic_s()
        try:
            await self._or_stop(self._fetching.fetch(self.shares, self._wait_ms()), "fetching")
        except OffTheLog as fault:
            self.retry.failed("positions", fault)
            await self._open_again(
                share for share in self.shares.values() if share.partition in fault.partitions
            )
        if self._clock.monotonic_s() - before_s > self._session_s:
            log.warning("stood still longer than the session", group=self.name)
            await asyncio.sleep(2 * self._session_s / HEARTBEATS)
        looked = await self._look()
        await self._settle_commit()
        # Let the fetcher ask for more before the handlers keep the loop: the answer then comes
        # while they work.
        for _ in range(FETCHER_STEPS):
            await asyncio.sleep(0)
        async with self._turn:
            now_s = self._clock.monotonic_s()
            due = [
                share
                for share in self.shares.values()
                if share.due(now_s, self._worker.tick_s) and (looked or share.opened)
            ]
            done = await asyncio.gather(
                *(self._advance(share) for share in due), return_exceptions=True
            )
            self._commit()
        for result in done:
            if isinstance(result, BaseException):
                raise result
        self._metrics.lag_s.labels(stage=self.name).set(self.lag_s())

    def _wait_ms(self) -> int:
        soon = any(not share.opened for share in self.shares.values())
        return 10 if soon else min(round(self._worker.tick_s * 500), 100)

    async def _advance(self, share: Share) -> None:
        what = f"partition {share.partition}" if share.opened else f"opening {share.partition}"
        try:
            if not share.opened:
                await self._open(share)
            else:
                await self._take(share)
        except (Fenced, Stopped) as fault:
            await self._drop(share)
            if isinstance(fault, Fenced):
                # If the group still calls us the owner after everybody had time to notice, then
                # whoever fenced us is gone: claim it again.
                share.waits_until_s = self._clock.monotonic_s() + 2 * self._session_s
        except Exception as fault:
            if isinstance(fault, EngineFault) and not self._worker.keeps:
                raise
            failed = self.retry.failed(what, fault)
            pause_s = min(FIRST_PAUSE_S * 2 ** min(failed - 1, 10), LONGEST_PAUSE_S)
            share.waits_until_s = self._clock.monotonic_s() + pause_s
            share.failing = True
            if share.opened and not self._worker.keeps:
                await self._drop(share)
            self._set_pauses(share)
        else:
            if share.failing:
                share.failing = False
                self._set_pauses(share)

    async def _take(self, share: Share) -> None:
        if share.kept:
            newest_ms = max(messages[-1].timestamp for messages in share.kept.values())
            await self._worker.take(share, share.kept)
            share.kept, share.time_ms = {}, newest_ms
            self.retry.worked(f"partition {share.partition}")
        now_s = self._clock.monotonic_s()
        if share.tick_due(now_s, self._worker.tick_s):
            share.ticked_s = now_s
            await self._worker.take(share, {})
        if share.behind:
            await self._catch_up(share)

    # -- opening and closing ---------------------------------------------------------------------

    def assigned(self, parts: Iterable[TopicPartition]) -> None:
        """Take note of an assignment; nothing is fetched before its shares are open."""
        by_number: dict[int, set[str]] = {}
        for part in parts:
            self._consumer.seek(part, 0)  # any position, or aiokafka would ask for a reset
            self._consumer.pause(part)
            by_number.setdefault(part.partition, set()).add(self._cluster.logical(part.topic))
        now_s = self._clock.monotonic_s()
        self.shares = {
            number: Share(number, [t for t in self._plan.topics if t in topics], now_s)
            for number, topics in by_number.items()
        }
        self._worker.interrupt(self._stopping.is_set())
        self.joined = True
        log.info("assigned", group=self.name, partitions=sorted(by_number))

    async def give_up(self) -> None:
        """Close all shares, after what is being taken in is done, and commit."""
        self._worker.interrupt(True)
        async with self._turn:
            await self._settle_commit()
            for share in self.shares.values():
                await self._close(share, lost=False)
            self._commit()
            await self._settle_commit()
            self.shares = {}

    async def _open(self, share: Share) -> None:
        parts = {topic: self._part(topic, share) for topic in share.topics}
        await self._worker.claim(share)
        first = await self._consumer.beginning_offsets(list(parts.values()))
        ends = await self._consumer.end_offsets(list(parts.values()))
        share.ends = {
            topic: Ends(self._found[topic].stream, first[part], ends[part])
            for topic, part in parts.items()
        }
        wanted = await self._worker.open(share)
        for topic, part in parts.items():
            share.next[topic] = self._inside(share, topic, wanted.get(topic))
            self._consumer.seek(part, share.next[topic])
        share.opened = True
        share.ticked_s = self._clock.monotonic_s()
        share.behind = list(parts) if self._worker.one_after_the_other else []
        self._set_pauses(share)
        await self._catch_up(share)
        self.retry.worked("positions")
        self.retry.worked(f"opening {share.partition}")

    def _inside(self, share: Share, topic: str, wanted: int | None) -> int:
        ends = share.ends[topic]
        if wanted is None or ends.first <= wanted <= ends.next:
            return ends.first if wanted is None else wanted
        # Retention was faster than we, or the broker lost its tail: there is nothing to wait for.
        self._metrics.errors.labels(stage=self.name).inc()
        log.error(
            "messages are gone, going on at what is there",
            group=self.name,
            topic=topic,
            partition=share.partition,
            wanted=wanted,
            first=ends.first,
            next=ends.next,
        )
        return min(max(wanted, ends.first), ends.next)

    async def _close(self, share: Share, lost: bool) -> None:
        if not share.opened:
            return
        share.opened, share.kept, share.behind = False, {}, []
        try:
            await self._worker.close(share, lost)
        except Fenced:
            return  # it said so itself, and what it was to store is its successor's by now
        except Exception as fault:
            self.retry.failed(f"closing partition {share.partition}", fault)

    async def _drop(self, share: Share) -> None:
        await self._close(share, lost=True)
        share.commits.clear()
        self._set_pauses(share)

    async def _open_again(self, shares: Iterable[Share]) -> None:
        async with self._turn:
            for share in list(shares):
                await self._close(share, lost=False)
                self._set_pauses(share)
            self._commit()

    async def _catch_up(self, share: Share) -> None:
        while share.behind:
            topic = share.behind[0]
            at = await self._consumer.position(self._part(topic, share))
            if at < share.ends[topic].next or share.kept.get(topic):
                return
            share.behind.pop(0)
            self._set_pauses(share)

    def _set_pauses(self, share: Share) -> None:
        assigned, paused = self._consumer.assignment(), self._consumer.paused()
        for topic in share.topics:
            part = self._part(topic, share)
            its_turn = not share.behind or topic == share.behind[0]
            if part not in assigned:
                continue
            if share.opened and not share.failing and its_turn:
                if part in paused:
                    self._consumer.resume(part)
            else:
                self._consumer.pause(part)

    # -- committing, looking ---------------------------------------------------------------------

    def _commit(self) -> None:
        offsets = {}
        for share in self.shares.values():
            for topic, at in share.commits.items():
                offsets[self._part(topic, share)] = OffsetAndMetadata(at.offset, note(at))
            share.commits = {}
        if offsets:
            self._committing = asyncio.ensure_future(self._commit_now(offsets))

    async def _commit_now(self, offsets: Mapping[TopicPartition, OffsetAndMetadata]) -> None:
        try:
            await asyncio.wait_for(self._consumer.commit(offsets), COMMIT_S)
            self._worker.committed()
        except (aiokafka.errors.KafkaError, TimeoutError) as fault:
            # Given away meanwhile, or no coordinator: whoever comes next reads some again.
            log.warning("positions not committed", group=self.name, fault=str(fault))

    async def _settle_commit(self) -> None:
        committing, self._committing = self._committing, None
        if committing is not None:
            await committing

    async def _look(self) -> bool:
        """Ask for streams when it is time; open shares again whose topic was made again.

        False: they are unknown at the moment, so nothing may be opened.
        """
        now_s = self._clock.monotonic_s()
        opening = any(not s.opened and now_s >= s.waits_until_s for s in self.shares.values())
        if not opening and now_s - self._looked_s < LOOK_EVERY_S:
            return True
        try:
            self._found = await self._describe()
        except (aiokafka.errors.KafkaError, EngineFault, OSError, TimeoutError) as fault:
            # It ran before, so what is missing is being made again, or a broker is away.
            self.retry.failed("topics", fault)
            self._looked_s = self._clock.monotonic_s()
            return False
        self.retry.worked("topics")
        await self._open_again(s for s in self.shares.values() if s.opened and self._moved(s))
        self._looked_s = self._clock.monotonic_s()
        return True

    def _moved(self, share: Share) -> bool:
        return any(share.ends[t].stream != self._found[t].stream for t in share.topics)

    async def _describe(self) -> dict[str, Found]:
        found = await self._cluster.require(self._plan.topics)
        if len({about.partitions for about in found.values()}) > 1:
            counts = (f"{self._cluster.real(t)} has {a.partitions}" for t, a in found.items())
            raise EngineFault(
                f"{self.name} reads topics that are partitioned unlike: {', '.join(counts)}; "
                "their keys meet only in equal counts of partitions"
            )
        return found

    def _part(self, topic: str, share: Share) -> TopicPartition:
        return TopicPartition(self._cluster.real(topic), share.partition)


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc]
    # aiokafka logs what is raised here and goes on, so nothing may be.
    def __init__(self, group: Group) -> None:
        self._group = group

    async def on_partitions_revoked(self, revoked: Any) -> None:
        try:
            await self._group.give_up()
        except Exception as fault:
            self._group.retry.failed("revocation", fault)

    async def on_partitions_assigned(self, assigned: Any) -> None:
        self._group.assigned(assigned)
