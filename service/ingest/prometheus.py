"""Poll Prometheus for guards of signal `prometheus`; each value becomes an observation.

Why. The query is a network call that may hang, drip, lie or answer in part, and nothing else may
wait for it: queries run in a few threads, under a deadline of their own, and a late answer is
dropped. What is not one finite, fresh value is not passed on: `watch` then says *unknown* after
four polls. It is logged and counted with its reason.

How. prometheus-api-client asks, with what it does by itself switched off: it has no time-out (here
every call has what is left of the deadline), tries three times more, follows redirects and uses the
environment's proxies. It also drops warnings and kinds of results, so the raw answer is taken from
it before it looks at it, which ends its work by an exception of ours.

Only one worker of an installation polls (`lead`). A thread that hangs beyond its deadline is left
alone; until it ends its guard is not asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import requests
import structlog
import urllib3
from prometheus_api_client import PrometheusConnect

from schemas.observations import DTYPES, Block, Observations, pack
from schemas.policies import GuardSpec, Policy, policy_for
from schemas.queries import selectors_of
from service.clock import Clock
from service.config import PrometheusSettings
from service.engine.base import Engine, Message
from service.ingest.promql import Answer, Polled, Unusable, polled
from service.telemetry import Metrics

STAGE = "prometheus"
THREADS = 4
MOST_BYTES = 1_000_000
"""A longer answer is no single value."""

Answers = tuple[Answer, list[Answer]] | Unusable
log = structlog.get_logger()


class PrometheusPoller:
    """Asks every query of every policy at its own pace and appends what it learnt."""

    def __init__(
        self, engine: Engine, clock: Clock, metrics: Metrics, settings: PrometheusSettings,
        policies: list[Policy],
    ) -> None:  # fmt: skip
        self._engine, self._clock, self._metrics = engine, clock, metrics
        self._settings = settings
        self._asked = [
            (policy.model, guard)
            for policy in policies
            for guard in policy.guards
            if guard.signal == "prometheus" and policy_for(policies, policy.model) is policy
        ]
        self._due_s: dict[tuple[str, str], float] = {}
        self._under_way: dict[tuple[str, str], Future[Answers]] = {}
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix=STAGE)

    def register(self) -> None:
        """Take part in the engine, if any policy has a query."""
        if self._asked:
            every_s = min(float(guard.every) for _, guard in self._asked)
            self._engine.lead(STAGE, every_s, self.poll)

    async def poll(self) -> None:
        """Ask what is due, all at once; append the values."""
        now_s = self._clock.monotonic_s()
        due = [each for each in self._asked if self._is_due(*each, now_s)]
        found = await asyncio.gather(*(self._poll_one(*each) for each in due))
        if messages := [message for message in found if message is not None]:
            await self._engine.append("observations", messages)
            self._metrics.sent.labels(STAGE).inc(len(messages))

    def _is_due(self, model: str, guard: GuardSpec, now_s: float) -> bool:
        key = (model, guard.label)
        # A poll that comes a little early must not wait for a whole round more.
        if now_s < self._due_s.get(key, now_s) - guard.every / 10:
            return False
        self._due_s[key] = now_s + guard.every
        return True

    async def _poll_one(self, model: str, guard: GuardSpec) -> Message | None:
        answers = await self._ask((model, guard.label), guard.query or "")
        now_ms = self._clock.now_ms()
        self._metrics.received.labels(STAGE).inc()
        found: Polled | Unusable
        if isinstance(answers, Unusable):
            found = answers
        else:
            found = polled(*answers, now_ms, self._settings.max_age.ms)
        if isinstance(found, Unusable):
            self._metrics.rejected.labels(STAGE, found.reason).inc()
            log.warning("prometheus_unusable", model=model, guard=guard.label,
                        reason=found.reason, text=found.text)  # fmt: skip
            return None
        return message_of(model, guard.label, found, now_ms)

    async def _ask(self, key: tuple[str, str], query: str) -> Answers:
        last = self._under_way.get(key)
        if last is not None and not last.done():
            return Unusable("source_down", "the last query has not ended yet")
        deadline_s = float(self._settings.deadline)
        stop_s = self._clock.monotonic_s() + deadline_s
        future = self._threads.submit(self._answers, query, stop_s)
        self._under_way[key] = future
        try:
            async with asyncio.timeout(deadline_s):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            return Unusable("source_down", f"no answer within {deadline_s:g} s")

    def _answers(self, query: str, stop_s: float) -> Answers:
        """Ask for the value and for the age of what it is made of; runs in a thread."""
        try:
            value = self._query(query, stop_s)
            if value.status != 200:
                return value, []
            ages = [
                self._query(f"max(timestamp({selector}))", stop_s)
                for selector in selectors_of(query)
            ]
            return value, ages
        except (OSError, requests.RequestException, urllib3.exceptions.HTTPError, Late) as fault:
            return Unusable("source_down", f"{type(fault).__name__}: {fault}"[:200])

    def _query(self, query: str, stop_s: float) -> Answer:
        left_s = stop_s - self._clock.monotonic_s()
        if left_s <= 0:
            raise Late("no time is left for all queries")
        with requests.Session() as session:
            session.trust_env = False
            session.max_redirects = 0
            session.hooks = {"response": [_taking(stop_s, self._clock)]}
            client = PrometheusConnect(
                self._settings.url.rstrip("/"), headers=self._headers(), session=session,
                retry=urllib3.Retry(total=0),
            )  # fmt: skip
            try:
                client.custom_query(
                    query,
                    params={"timeout": f"{max(1, round(800 * left_s))}ms"},
                    timeout=left_s,
                )
            except _Taken as taken:
                return taken.answer
        raise Late("the client gave no answer")

    def _headers(self) -> dict[str, str]:
        headers = {"Accept-Encoding": "identity"}
        if self._settings.token is not None:
            headers["Authorization"] = f"Bearer {self._settings.token.reveal()}"
        return headers


class Late(Exception):
    """The deadline passed, or an answer has no end."""


class _Taken(Exception):
    """Ends the client's work once the raw answer is ours."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def _taking(stop_s: float, clock: Clock) -> Callable[..., None]:
    """Make the hook that reads an answer piece by piece, so that a drip meets the deadline too."""

    def take(reply: requests.Response, *_: Any, **__: Any) -> None:
        body = bytearray()
        while piece := reply.raw.read1(65_536, decode_content=True):
            body += piece
            if len(body) > MOST_BYTES or clock.monotonic_s() > stop_s:
                reply.close()
                raise Late("the answer has no end" if len(body) > MOST_BYTES else "too slow")
        raise _Taken(Answer(reply.status_code, bytes(body)))

    return take


def message_of(model: str, guard: str, found: Polled, now_ms: int) -> Message:
    """Pack one value, named by the time of its poll, as an observation of a model."""
    row = {"offset": now_ms, "value": found.value, "observed_ms": found.observed_ms}
    columns = {name: np.array([cell], DTYPES[name]).tobytes() for name, cell in row.items()}
    observation = Observations(
        model=model, partition=-1, streams={}, watermark_ms=0, versions=[], classes=[],
        blocks=[Block("metric", guard, 1, columns)], counts={},
    )  # fmt: skip
    return Message(model.encode(), pack(observation))
