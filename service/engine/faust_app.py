"""One Faust app as this engine wants it: settings, its leader, and an end that always comes.

The leader of a name is whoever owns partition 0 of `LEADER_TOPIC` in that name's group. Faust's own
leader topic would have to be made at run time, which needs rights that nobody should have.

Refused here: Faust's web server, tables, transactions, topic creation, signals and logging setup.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import aiokafka.errors
import faust
import structlog
from faust.assignor.leader_assignor import LeaderAssignor
from faust.auth import SASLCredentials, SSLCredentials
from faust.exceptions import ConsumerNotStarted
from faust.types import TP

from service.crash import crash_point
from service.engine.kafka_client import Cluster

log = structlog.get_logger(__name__)

LEADER_TOPIC = "holds"
"""Exists in every installation, is small, and everybody may read it."""
STOP_S = 10.0
COMMIT_EVERY_S = 0.5


def build_app(cluster: Cluster, group: str, folder: str, session_s: float, leads: bool) -> Any:
    """Make the app of a group, without agents.

    Parameters
    ----------
    folder : str
        Where Faust may keep files; it keeps none.
    leads : bool
        Whether it finds a leader; then only what comes from now on is read.
    """
    leading: dict[str, Any] = {"LeaderAssignor": _leader_of(cluster.real(LEADER_TOPIC))}
    return faust.App(
        cluster.group(group),
        **_broker_settings(cluster),
        **(leading if leads else {}),
        datadir=folder,
        store="memory://",
        loop=asyncio.get_running_loop(),
        autodiscover=False,
        web_enabled=False,
        topic_allow_declare=False,
        topic_disable_leader=True,
        stream_wait_empty=False,
        producer_acks=-1,
        consumer_auto_offset_reset="latest" if leads else "earliest",
        broker_session_timeout=session_s,
        broker_heartbeat_interval=session_s / 3,
        broker_rebalance_timeout=session_s,
        broker_commit_interval=COMMIT_EVERY_S,
        # A handler may try again for hours; its partition stays with it all the same.
        broker_max_poll_interval=86_400.0,
        stream_processing_timeout=86_400.0,
    )


def add_agent(app: Any, cluster: Cluster, topic: str, take: Callable[..., Any]) -> None:
    """Let `take(topic, event)` see each message, and acknowledge those for which it is true."""
    raw = {"key_type": bytes, "value_type": bytes,
           "key_serializer": "raw", "value_serializer": "raw"}  # fmt: skip
    channel = app.topic(cluster.real(topic), allow_empty=True, **raw)

    async def agent(stream: Any) -> None:
        async for event in stream.noack().events():
            if await take(topic, event):
                event.ack()
                crash_point("K11")

    app.agent(channel, concurrency=1, name=topic)(agent)


async def stop_app(app: Any, group: str) -> None:
    """Stop an app. One that does not stop in time is made to leave its group all the same.

    Else its consumer, which has a thread of its own, would keep the partitions and handle nothing.
    """
    stopping = asyncio.ensure_future(app.stop())
    # Faust swallows a cancellation, so there is no use in one.
    await asyncio.wait((stopping,), timeout=STOP_S)
    if stopping.done():
        if fault := stopping.exception():
            log.warning("Faust did not stop in order", group=group, fault=repr(fault))
        return
    log.error("Faust does not stop, its consumer is cut off", group=group, after_s=STOP_S)
    stopping.add_done_callback(lambda late: late.cancelled() or late.exception())
    thread = getattr(app._consumer, "_thread", None)
    consumer = getattr(thread, "_consumer", None)
    if thread is not None and consumer is not None and thread.thread_loop.is_running():
        cutting = asyncio.run_coroutine_threadsafe(_cut_off(consumer), thread.thread_loop)
        try:
            await asyncio.wait_for(asyncio.wrap_future(cutting), STOP_S)
        except (TimeoutError, aiokafka.errors.KafkaError) as fault:
            log.error("Faust's consumer was not cut off", group=group, fault=repr(fault))


async def _cut_off(consumer: Any) -> None:
    coordinator = consumer._coordinator
    for task in (coordinator._coordination_task, coordinator._heartbeat_task):
        if task is not None:
            task.cancel()
    await coordinator._maybe_leave_group()
    await consumer._client.close()


def assignment(app: Any) -> Any:
    """Topic partitions that the app says are its share; None while it does not take part."""
    if app is None or not app.started or app.rebalancing or app.unassigned is None:
        return None
    try:
        return app.consumer.assignment()
    except ConsumerNotStarted:
        return None


def member_id(app: Any) -> str:
    """The id that the group gave the app's consumer; empty when it has none."""
    consumer = getattr(getattr(app.consumer, "_thread", None), "_consumer", None)
    return str(consumer._coordinator.member_id) if consumer is not None else ""


def _leader_of(topic: str) -> type:
    class OwnerOfPartition0(LeaderAssignor):
        async def on_start(self) -> None:
            """Nothing to make: the agent's topic is what members share."""

        def is_leader(self) -> bool:
            try:
                return TP(topic, 0) in self.app.consumer.assignment()
            except ConsumerNotStarted:
                return False

    return OwnerOfPartition0


def _broker_settings(cluster: Cluster) -> Mapping[str, Any]:
    settings = cluster.settings
    context = settings.get("ssl_context")
    made: dict[str, Any] = {
        "broker": [f"kafka://{host.strip()}" for host in cluster.bootstrap.split(",")],
        "broker_client_id": settings["client_id"],
    }
    if settings["security_protocol"].startswith("SASL_"):
        made["broker_credentials"] = SASLCredentials(
            mechanism=settings["sasl_mechanism"],
            username=settings.get("sasl_plain_username"),
            password=settings.get("sasl_plain_password"),
            ssl_context=context,
        )
    elif context is not None:
        made["broker_credentials"] = SSLCredentials(context)
    return made
