"""Requests through the router, and what is told of them to rollbackd.

How. Some workers share a queue that is filled at a steady rate; each asks the router over a kept
connection and notes the prediction, and the outcome for later. Every tenth of a second everything
that is due is posted to `/v1/events`. What was not taken is posted again; an event that was refused
is counted, and shown at the end, because here none should be.

Refused here: catching up by a burst after a stall (the rate is a wish, no promise), and queues that
grow without end.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx2
import msgspec
import numpy as np

from service.clock import Clock
from service.demo import http1
from service.demo.events import Event, delay_s, outcome_event, prediction_event
from service.demo.model_server import Answer, Asked
from service.demo.people import Person
from service.demo.router import Router, read_weights

WORKERS = 8
POST_EVERY_S = 0.1
MOST_WAITING = 50_000
"""Events kept while rollbackd does not take them; beyond it requests pause."""
MOST_POSTED = 2000
"""Events in one body, far below its limit of 8 MiB."""


@dataclass
class Traffic:
    """One stream of seeded requests.

    Parameters
    ----------
    people : sequence
        Who is asked about, in turn, again from the first after the last.
    run_id : str
        Begins every prediction's id, so that two demonstrations never share one.
    rate : float
        Requests per second.
    """

    people: Sequence[Person]
    router: Router
    api: httpx2.AsyncClient
    clock: Clock
    run_id: str
    rate: float = 300.0
    seed: int = 7

    answered: Counter[str] = field(default_factory=Counter)
    """Answers by version."""
    failed: int = 0
    """Requests without an answer."""
    refused: int = 0
    """Events that rollbackd refused."""
    last_refusal: str = ""

    def __post_init__(self) -> None:
        """Start with nothing under way."""
        self._draws = np.random.default_rng(self.seed)
        self._asked: asyncio.Queue[int] = asyncio.Queue(maxsize=256)
        self._waiting: deque[Event] = deque()
        self._later: list[tuple[int, str, Person]] = []

    def tell(self, event: Event) -> None:
        """Post an event with the next ones, before all that are not yet on their way."""
        self._waiting.appendleft(event)

    def report(self) -> str:
        """Say what was asked, answered and refused, in one line."""
        counts = ", ".join(f"{name} {count:,}" for name, count in sorted(self.answered.items()))
        text = f"Answers: {counts or 'none'}; without an answer: {self.failed:,}."
        if self.refused:
            text += f" Refused events: {self.refused:,} ({self.last_refusal})."
        return text

    async def run(self) -> None:
        """Send requests until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._fill())
            group.create_task(self._post())
            for _ in range(WORKERS):
                group.create_task(self._work())

    async def _fill(self) -> None:
        number, due, last_s = 0, 0.0, self.clock.monotonic_s()
        while True:
            now_s = self.clock.monotonic_s()
            due = min(due + (now_s - last_s) * self.rate, 0.2 * self.rate)
            last_s = now_s
            while due >= 1 and len(self._waiting) < MOST_WAITING and not self._asked.full():
                self._asked.put_nowait(number)
                number, due = number + 1, due - 1
            await asyncio.sleep(0.01)

    async def _work(self) -> None:
        line = http1.Line(self.router.port)
        try:
            while True:
                await self._ask(line, await self._asked.get())
        finally:
            line.close()

    async def _ask(self, line: http1.Line, number: int) -> None:
        person = self.people[number % len(self.people)]
        body = msgspec.json.encode(Asked(person.features))
        try:
            reply = await line.ask("POST /predict", body)
            if reply.status != 200:
                raise http1.Broken(f"the router answered {reply.status}")
            answer = msgspec.json.decode(reply.body, type=Answer)
        except (OSError, msgspec.MsgspecError):
            self.failed += 1
            return
        self.answered[answer.version] += 1
        weights = read_weights(reply.headers.get("x-weights", f"{answer.version}=1"))
        name, now_ms = f"{self.run_id}-{number}", self.clock.now_ms()
        weight = weights.get(answer.version)
        self._waiting.append(prediction_event(name, person, answer, weight, now_ms))
        wait_s = delay_s(person.employed, self._draws)
        if wait_s is not None:
            heapq.heappush(self._later, (now_ms + round(1000 * wait_s), name, person))

    async def _post(self) -> None:
        while True:
            # More comes in while a body is on its way, so what is due is looked for each time.
            self._put_due()
            size = min(len(self._waiting), MOST_POSTED)
            batch = [self._waiting.popleft() for _ in range(size)]
            if batch and not await self._taken(batch):
                self._waiting.extendleft(reversed(batch))
            if len(self._waiting) < MOST_POSTED:
                await asyncio.sleep(POST_EVERY_S)

    def _put_due(self) -> None:
        now_ms = self.clock.now_ms()
        while self._later and self._later[0][0] <= now_ms:
            at_ms, name, person = heapq.heappop(self._later)
            self._waiting.append(outcome_event(name, person, at_ms))

    async def _taken(self, batch: list[Event]) -> bool:
        """Post a batch; False when it has to be posted again."""
        body = b"\n".join(msgspec.json.encode(event) for event in batch)
        headers = {"content-type": "application/x-ndjson"}
        with contextlib.suppress(httpx2.HTTPError):
            reply = await self.api.post("/v1/events", content=body, headers=headers)
            if reply.status_code not in (202, 400):
                await asyncio.sleep(float(reply.headers.get("retry-after", "0.2")))
                return False
            answer = reply.json()
            self.refused += answer["refused"]
            for error in answer["errors"][:1]:
                self.last_refusal = error["reason"]
            return True
        return False
