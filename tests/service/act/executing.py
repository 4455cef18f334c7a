"""Execute commands in tests: a clock that is set, pauses that only move it, a real store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from schemas.commands import Command
from schemas.facts import Receipt
from service.act.adapters.base import Adapter
from service.act.admit import Refuse
from service.act.execute import Execution, Tools
from service.clock import SetClock
from service.storage.database import open_database
from service.storage.receipts import ReceiptStore
from tests.builders import NOW


class Bed:
    """What an execution needs besides its platform."""

    def __init__(self, home: Path) -> None:
        self.clock = SetClock(NOW + 1000)
        self.database = open_database(f"sqlite:///{home / 'act.db'}")
        self.receipts = ReceiptStore(self.database)
        self.pauses: list[float] = []
        self.refuse: Callable[[], Refuse | None] = lambda: None
        """Asked right before each write."""
        self.on_pause: Callable[[], None] = lambda: None

    def tools(self) -> Tools:
        async def standing(_: Command) -> Refuse | None:
            return self.refuse()

        return Tools(self.clock, self.receipts, standing, self.sleep, lambda: 1.0)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.clock.move(seconds)
        self.on_pause()

    async def execute(
        self, adapter: Adapter, command: Command, mark: dict[str, Any] | None = None
    ) -> Receipt:
        return await Execution(self.tools(), adapter, command, mark).run()
