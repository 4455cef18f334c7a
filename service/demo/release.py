"""The release of `v42`: who serves, when its share goes up, and what the daemon then says."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field
from typing import Any

import httpx2

from service.clock import Clock
from service.demo.events import MODEL, rollout_event
from service.demo.router import Router
from service.demo.screen import Screen
from service.demo.traffic import Traffic

HEALTHY_S = 3.0
"""How long stable serves alone at first."""

STABLE, CANARY = "v41", "v42"
SHARES = {STABLE: 80, CANARY: 20}
"""What the release gives the canary, percent."""

LOOK_EVERY_S = 0.25


@dataclass
class Release:
    """The pipeline, and its look at the daemon."""

    screen: Screen
    router: Router
    api: httpx2.AsyncClient
    clock: Clock
    traffic: Traffic
    _counted: dict[str, int] = field(default_factory=dict)

    async def play(self) -> None:
        """Release the canary, then wait until its rollback is verified."""
        while not await self._ready():
            await asyncio.sleep(LOOK_EVERY_S)
        await self._shift({STABLE: 100, CANARY: 0}, "serving")
        await asyncio.sleep(HEALTHY_S)
        await self._shift(SHARES, "canary")
        while not self.screen.story.verified:
            await asyncio.sleep(LOOK_EVERY_S)

    async def follow_daemon(self) -> None:
        """Ask the daemon what it knows, again and again until cancelled."""
        while True:
            await self._look()
            await asyncio.sleep(LOOK_EVERY_S)

    async def follow_router(self) -> None:
        """Keep the shares of about the last second up to date until cancelled."""
        while True:
            with contextlib.suppress(OSError):  # the router is what we watch; it may be gone
                now = {v: n for v, n in (await self.router.served()).items() if v in SHARES}
                new = {v: n - self._counted.get(v, 0) for v, n in now.items()}
                if self._counted and (total := sum(new.values())):
                    self.screen.shares = {v: n / total for v, n in new.items()}
                self._counted = now
            await asyncio.sleep(1)

    async def _shift(self, shares: dict[str, int], step: str) -> None:
        await self.router.shift(shares)
        now_ms = self.clock.now_ms()
        self.traffic.tell(rollout_event(STABLE, shares, now_ms))
        self._reached(step, now_ms)

    async def _look(self) -> None:
        """Ask the daemon what it knows; what cannot be asked now is asked again."""
        story = self.screen.story
        story.model = await self._get(f"/v1/models/{MODEL}") or story.model
        self.screen.answered = dict(self.traffic.answered)
        listed = (await self._get(f"/v1/incidents?model={MODEL}") or {}).get("incidents", [])
        found = next((i["incident_id"] for i in listed if i["version"] == CANARY), None)
        if found is None:
            return
        incident = await self._get(f"/v1/incidents/{found}")
        if incident is not None:
            before = set(story.marks)
            story.learn(incident)
            for step in [step for step in story.marks if step not in before]:
                self.screen.reached(step)

    async def _get(self, path: str) -> dict[str, Any] | None:
        with contextlib.suppress(httpx2.HTTPError, ValueError):
            reply = await self.api.get(path)
            if reply.status_code == 200:
                answer: dict[str, Any] = reply.json()
                return answer
        return None

    async def _ready(self) -> bool:
        with contextlib.suppress(httpx2.HTTPError):
            return (await self.api.get("/readyz")).status_code == 200
        return False

    def _reached(self, step: str, now_ms: int) -> None:
        self.screen.story.mark(step, now_ms)
        self.screen.reached(step)
