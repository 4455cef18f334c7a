"""The alert role with a real receiver and real databases; only time is set."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
import sqlalchemy as sa

from schemas.secrets import Secret
from service.alert.audience import Audience, Quiet
from service.alert.deliver import LEASE_MS, Deliverer
from service.alert.notifiers.base import Letter, Notifier, Payload
from service.alert.notifiers.log import Log
from service.alert.notifiers.slack import Slack
from service.alert.notifiers.webhook import Webhook
from service.alert.route import Notice
from service.alert.worker import GRACE_MS, AlertWorker
from service.clock import SetClock
from service.record.ledger import entry_of_breach, entry_of_progress
from service.storage.deliveries import DeliveryStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from tests.builders import NOW, a_breach, a_progress, an_entry
from tests.real import wait_until_async
from tests.receiver import Answer, Receiver, receiving

OPENED = entry_of_breach(a_breach(), None, NOW)
WITHHELD = entry_of_progress(a_progress(kind="withheld", text="mode observe"), "v42", NOW)
VERIFIED = entry_of_progress(a_progress(), "v42", NOW)


class Scene:
    """One daemon's alert role over a store, with its time in hand."""

    def __init__(
        self,
        store: sa.Engine,
        notifiers: Mapping[str, Notifier],
        audiences: Mapping[str, Sequence[Audience]] | None = None,
    ) -> None:
        self.clock = SetClock(NOW)
        self.log = IncidentLog(store)
        self.outbox = DeliveryStore(store)
        self.metrics = Metrics()
        self.notifiers = notifiers
        self.worker = AlertWorker(
            self.clock, self.metrics, self.log, self.outbox, notifiers, audiences=audiences
        )
        self.deliverer = Deliverer(
            self.clock, self.metrics, self.outbox, notifiers, audiences=audiences
        )

    def tell(self) -> None:
        while self.worker.tell():
            pass

    async def send_all(self) -> int:
        sent = 0
        for name in self.notifiers:
            while await self.deliverer.send_next(name):
                sent += 1
        return sent


def titles(receiver: Receiver) -> list[str]:
    return [json.loads(got.body)["data"]["title"] for got in receiver.got]


def a_webhook(receiver: Receiver) -> Webhook:
    return Webhook(Secret(f"{receiver.url}/t0ken"))


async def test_what_happens_at_once_is_one_message(store: sa.Engine) -> None:
    """If this breaks, on-call gets two messages for one thing, or none."""
    async with receiving() as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)})
        scene.log.add([OPENED])
        scene.tell()
        assert 0 == await scene.send_all(), "an opening waits a moment for what follows"
        scene.log.add([WITHHELD])
        scene.tell()
        scene.clock.move(GRACE_MS / 1000)
        assert 1 == await scene.send_all()

    assert ["credit-risk: v42 fails error_rate; nothing was done (share)"] == titles(receiver)
    assert "0.081" in json.loads(receiver.got[0].body)["data"]["why"]


async def test_an_opening_that_nothing_follows_is_told_by_itself(store: sa.Engine) -> None:
    """If this breaks, a daemon that cannot decide stays silent about a breach."""
    async with receiving() as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)})
        scene.log.add([OPENED])
        scene.tell()
        scene.clock.move(GRACE_MS / 1000)
        await scene.send_all()
        scene.log.add([VERIFIED])
        scene.tell()
        await scene.send_all()

    assert [
        "credit-risk: v42 fails error_rate",
        "credit-risk: v42 rolled back to v41, confirmed by traffic",
    ] == titles(receiver)


async def test_two_daemons_tell_everything_once(store: sa.Engine) -> None:
    """If this breaks, running two daemons for safety doubles every page."""
    async with receiving() as receiver:
        scenes = [Scene(store, {"hook-1": a_webhook(receiver)}) for _ in range(2)]
        scenes[0].log.add([an_entry(kind="paged", text=f"p{n}") for n in range(30)])
        await asyncio.gather(*(asyncio.to_thread(scene.tell) for scene in scenes))
        sent = await asyncio.gather(*(scene.send_all() for scene in scenes))
        # One of the two may have lost a race for a row and stopped early.
        sent += [await scenes[0].send_all()]

    assert 30 == sum(sent) == len(receiver.got)
    assert 30 == len({got.headers["webhook-id"] for got in receiver.got})


async def test_a_restart_goes_on_where_it_stopped(store: sa.Engine) -> None:
    """If this breaks, a restart repeats the night's messages, or swallows one."""
    async with receiving(Answer(500), Answer()) as receiver:
        before = Scene(store, {"hook-1": a_webhook(receiver)})
        before.log.add([VERIFIED])
        before.tell()
        await before.send_all()

        after = Scene(store, {"hook-1": a_webhook(receiver)})
        after.clock.move(60)
        after.tell()
        assert 1 == await after.send_all()
        assert 0 == await after.send_all()

    first, second = receiver.got
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.body == second.body
    assert {("hook-1", "sent"): 1} == after.outbox.counts()


async def test_a_sender_killed_before_the_answer_sends_the_same_again(store: sa.Engine) -> None:
    """If this breaks, a kill in the middle loses a page."""
    async with receiving(Answer(after_s=30), Answer()) as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)})
        scene.log.add([VERIFIED])
        scene.tell()
        sending = asyncio.create_task(scene.deliverer.send_next("hook-1"))
        await wait_until_async(lambda: receiver.got, 10)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        assert 0 == await scene.send_all()
        scene.clock.move(LEASE_MS / 1000)
        assert 1 == await scene.send_all()

    assert 1 == len({got.headers["webhook-id"] for got in receiver.got})


async def test_throttling_holds_the_whole_endpoint_back(store: sa.Engine) -> None:
    """If this breaks, a 429 is answered with the rest of the queue."""
    async with receiving(Answer(429, {"retry-after": "20"}), Answer()) as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)})
        scene.log.add([an_entry(kind="paged", text=f"p{n}") for n in range(3)])
        scene.tell()
        assert 1 == await scene.send_all()
        scene.clock.move(19)
        assert 0 == await scene.send_all()
        scene.clock.move(1)
        assert 3 == await scene.send_all()

    assert {("hook-1", "sent"): 3} == scene.outbox.counts()


async def test_a_dead_channel_is_told_to_the_others_once(store: sa.Engine) -> None:
    """If this breaks, nobody learns that pages go nowhere."""
    async with receiving(Answer(404)) as dead, receiving() as living:
        scene = Scene(
            store, {"slack-1": Slack(Secret(f"{dead.url}/t0ken")), "hook-1": a_webhook(living)}
        )
        scene.log.add([an_entry(kind="paged", text=f"p{n}") for n in range(3)])
        scene.tell()
        await scene.send_all()

    told = [title for title in titles(living) if "slack-1" in title]
    assert ["Notifications to slack-1 fail"] == told
    assert 3 == len(dead.got)
    assert {"slack answered 404"} == {d.reason for d in scene.outbox.dead()}


async def test_an_endpoint_that_is_gone_gets_nothing_more(store: sa.Engine) -> None:
    """If this breaks, a removed webhook is called for days, or its pages vanish untold."""
    async with receiving(Answer(410)) as gone, receiving() as living:
        notifiers: dict[str, Notifier] = {"old-1": a_webhook(gone), "new-1": a_webhook(living)}
        scene = Scene(store, notifiers)
        scene.log.add([an_entry(kind="paged", text=f"p{n}") for n in range(3)])
        scene.tell()
        await scene.send_all()
        scene.clock.move(90_000)
        await scene.send_all()

    assert 1 == len(gone.got)
    assert 3 == len([d for d in scene.outbox.dead() if d.endpoint == "old-1"])
    assert ["Notifications to old-1 fail"] == [t for t in titles(living) if "old-1" in t]


async def test_after_three_days_of_failures_it_is_given_up(store: sa.Engine) -> None:
    """If this breaks, an endpoint that is down is tried too rarely, or for ever."""
    async with receiving(Answer(500)) as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)})
        scene.log.add([VERIFIED])
        scene.tell()
        for _ in range(130):
            await scene.send_all()
            scene.clock.move(3600)

    assert 10 == len(receiver.got)
    assert {("hook-1", "dead"): 1} == scene.outbox.counts()


async def test_a_notice_goes_only_to_its_endpoints(store: sa.Engine) -> None:
    """If this breaks, every team hears of every model, and mutes the channel."""
    async with receiving() as fraud, receiving() as credit, receiving() as pager:
        notifiers: dict[str, Notifier] = {
            "fraud-1": a_webhook(fraud), "credit-1": a_webhook(credit), "pager-1": a_webhook(pager),
        }  # fmt: skip
        audiences = {
            "fraud-1": [Audience(models=["fraud-*"])],
            "credit-1": [Audience(models=["credit-*"])],
            "pager-1": [Audience(severity=["person"])],
        }
        scene = Scene(store, notifiers, audiences)
        scene.log.add([VERIFIED, an_entry(kind="paged", text="come")])
        scene.tell()
        assert 3 == await scene.send_all()

    assert [] == fraud.got
    assert {
        "credit-risk: v42 rolled back, confirmed by traffic",
        "credit-risk: v42 needs a person now",
    } == set(titles(credit))
    assert ["credit-risk: v42 needs a person now"] == titles(pager)


async def test_a_dead_channel_is_told_to_those_who_want_to_be_called(store: sa.Engine) -> None:
    """If this breaks, the channel of good news is told that pages go nowhere, and the pager not."""
    async with receiving(Answer(404)) as dead, receiving() as pager, receiving() as good:
        slack = Slack(Secret(f"{dead.url}/t0ken"))
        notifiers: dict[str, Notifier] = {
            "slack-1": slack, "p-1": a_webhook(pager), "g-1": a_webhook(good),
        }  # fmt: skip
        audiences = {"p-1": [Audience(severity=["person"])], "g-1": [Audience(severity=["good"])]}
        scene = Scene(store, notifiers, audiences)
        scene.log.add([an_entry(kind="proposed", text="may it?")])
        scene.tell()
        await scene.send_all()
        assert ["Notifications to slack-1 fail"] == titles(pager)
        assert [] == good.got

        # Nobody is left who wants to be called: then the others are told all the same.
        alone = Scene(store, {"slack-1": slack, "g-1": a_webhook(good)}, audiences)
        alone.clock.move(86_400)
        alone.log.add([an_entry(kind="proposed", text="and now?")])
        alone.tell()
        await alone.send_all()
    assert ["Notifications to slack-1 fail"] == titles(good)


async def test_in_quiet_hours_what_was_handled_waits_and_becomes_one_message(
    store: sa.Engine,
) -> None:
    """If this breaks, a rollback that went well wakes people, or is told as three messages."""
    quiet = Quiet(begins="00:00", ends="07:00")  # NOW is midnight in UTC
    async with receiving() as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)}, {"hook-1": [Audience(quiet=quiet)]})
        for entry in (OPENED, WITHHELD, VERIFIED):
            scene.log.add([entry])
            scene.tell()
            scene.clock.move(60)
            assert 0 == await scene.send_all()
        scene.clock.move(7 * 3600)
        assert 1 == await scene.send_all()

    assert ["credit-risk: v42 rolled back to v41, confirmed by traffic"] == titles(receiver)
    assert "0.081" in json.loads(receiver.got[0].body)["data"]["why"]


async def test_in_quiet_hours_a_call_for_help_leaves_at_once(store: sa.Engine) -> None:
    """If this breaks, the one notice that mattered is read at breakfast."""
    quiet = Quiet(begins="00:00", ends="07:00")
    async with receiving() as receiver:
        scene = Scene(store, {"hook-1": a_webhook(receiver)}, {"hook-1": [Audience(quiet=quiet)]})
        scene.log.add([OPENED, WITHHELD, an_entry(kind="paged", text="come")])
        scene.tell()
        assert 1 == await scene.send_all()
        scene.clock.move(8 * 3600)
        assert 0 == await scene.send_all(), "what waited was part of the call"

    assert ["credit-risk: v42 needs a person now"] == titles(receiver)


class Clumsy:
    """A plugin with mistakes in it."""

    pause_s = 0.0
    reach = Log().reach

    def __init__(self, renders: bool) -> None:
        self._renders = renders

    def render(self, notice: Notice) -> Payload:
        if not self._renders:
            raise KeyError("https://hooks.example/s3cret")
        return {}

    async def send(self, letter: Letter, http: object) -> None:
        raise RuntimeError("https://hooks.example/s3cret")


async def test_one_plugin_with_mistakes_stops_nobody_else(sqlite_store: sa.Engine) -> None:
    """If this breaks, a faulty plugin silences chat, or prints its address."""
    async with receiving() as receiver:
        scene = Scene(
            sqlite_store,
            {"bad-1": Clumsy(False), "bad-2": Clumsy(True), "hook-1": a_webhook(receiver)},
        )
        scene.log.add([VERIFIED])
        scene.tell()
        await scene.send_all()

    assert 1 == len(receiver.got)
    with sqlite_store.connect() as connection:
        reasons = connection.execute(sa.text("SELECT last_reason FROM deliveries")).scalars().all()
    assert "it failed (RuntimeError)" in reasons
    assert "s3cret" not in "".join(reasons)


async def test_old_history_is_not_news_on_the_first_start(sqlite_store: sa.Engine) -> None:
    """If this breaks, switching alerts on floods the channel with last year."""
    async with receiving() as receiver:
        scene = Scene(sqlite_store, {"hook-1": a_webhook(receiver)})
        scene.log.add([an_entry(kind="paged", text="old", recorded_at=NOW - 3_600_001)])
        scene.log.add([VERIFIED])
        scene.tell()
        await scene.send_all()

    assert 1 == len(receiver.got)
    assert 2 == scene.outbox.position()


@contextlib.asynccontextmanager
async def running(worker: AlertWorker) -> AsyncIterator[None]:
    stop = asyncio.Event()
    task = asyncio.create_task(worker.run(stop))
    try:
        yield
    finally:
        stop.set()
        await asyncio.wait_for(task, 5)


@pytest.mark.parametrize("status", [500, 404])
async def test_the_running_role_tells_in_a_moment_beside_a_dead_endpoint(
    sqlite_store: sa.Engine, status: int
) -> None:
    """If this breaks, one dead endpoint delays the pages of all."""
    async with receiving(Answer(status, after_s=3)) as dead, receiving() as living:
        scene = Scene(sqlite_store, {"dead-1": a_webhook(dead), "hook-1": a_webhook(living)})
        async with running(scene.worker):
            scene.log.add([an_entry(kind="paged", text=f"p{n}") for n in range(3)])
            await wait_until_async(lambda: len(living.got) == 3, 2.5)
