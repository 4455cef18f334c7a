"""Traffic posts what it saw, whatever the receiver does meanwhile."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2
import msgspec

from service.clock import WallClock
from service.demo import http1, small_router
from service.demo.model_server import serve_model
from service.demo.models import Model
from service.demo.people import Person
from service.demo.traffic import Traffic
from tests.real import wait_until_async

CLOCK = WallClock()
PEOPLE = [Person({"AGEP": age, "SCHL": 21}, age % 2) for age in range(50)]
SLOW_S = 0.05


@dataclass
class Receiver:
    """Stands for `POST /v1/events`: slow, and out of service for its first bodies."""

    down: int = 0
    events: list[dict[str, Any]] = field(default_factory=list)

    async def handle(self, message: http1.Message) -> http1.Reply:
        await asyncio.sleep(SLOW_S)
        if self.down > 0:
            self.down -= 1
            return 503, {"retry-after": "0"}, b"{}"
        found = [msgspec.json.decode(line) for line in message.body.splitlines()]
        self.events += found
        answer = {"accepted": len(found), "refused": 0, "errors": []}
        return 202, {}, msgspec.json.encode(answer)

    def ids(self, kind: str) -> Counter[str]:
        """Ids of what was taken."""
        return Counter(e["prediction_id"] for e in self.events if e["type"] == kind)


@asynccontextmanager
async def traffic_to(receiver: Receiver) -> AsyncIterator[Traffic]:
    """Traffic over a small router and two models, posted to a receiver."""
    model = Model("v41", 0.0, {"AGEP": {4: 1.0}}, 10, {"AGEP": 42}, {})
    listener = http1.listen()
    address = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = await http1.serve(receiver.handle, listener)
    async with contextlib.AsyncExitStack() as opened:
        port = await opened.enter_async_context(serve_model(model, CLOCK))
        router = await opened.enter_async_context(
            small_router.run({"v41": port, "v42": port}, CLOCK)
        )
        api = await opened.enter_async_context(
            httpx2.AsyncClient(base_url=address, trust_env=False)
        )
        traffic = Traffic(PEOPLE, router, api, CLOCK, "run", rate=200)
        running = asyncio.create_task(traffic.run())
        try:
            yield traffic
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            server.close()


async def test_labels_arrive_while_predictions_never_stop() -> None:
    """If this breaks, steady traffic keeps every label back and no guard can judge."""
    receiver = Receiver()
    async with traffic_to(receiver):
        await wait_until_async(lambda: len(receiver.ids("outcome")) > 100, 10)

    labels = {e["label"] for e in receiver.events if e["type"] == "outcome"}
    assert {0, 1} == labels
    assert receiver.ids("outcome").keys() <= receiver.ids("prediction").keys()


async def test_what_was_not_taken_is_posted_again_and_only_that() -> None:
    """If this breaks, a short outage of the daemon costs or doubles events."""
    receiver = Receiver(down=3)
    async with traffic_to(receiver) as traffic:
        await wait_until_async(lambda: len(receiver.ids("prediction")) > 200, 10)

    counts = receiver.ids("prediction")
    assert {1} == set(counts.values())
    assert {f"run-{n}" for n in range(150)} <= counts.keys()
    assert 0 == traffic.refused == traffic.failed
