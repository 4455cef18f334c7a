"""A worker process for the tests of `each` and `lead`: `python -m … BOOTSTRAP PREFIX NAME`.

It prints `ready` when SIGTERM ends it well, `led NAME` whenever it acts as the leader, and
`acted NAME VALUE` for each command before it answers by a receipt.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from service.engine.base import Message, Record
from service.telemetry import configure_logs
from tests.service.engine.kafka_bench import Bench


async def work(bootstrap: str, prefix: str, name: str) -> None:
    """Run until SIGTERM."""
    bench = Bench(bootstrap)
    bench.prefix = prefix
    engine = bench.engine()

    async def lead() -> None:
        print("led", name, flush=True)

    async def act(record: Record) -> None:
        print("acted", name, record.value.decode(), flush=True)
        await engine.append("receipts", [Message(record.key, record.value)])

    engine.lead("poll", 0.2, lead)
    engine.each("commands", act, "act")
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    print("ready", flush=True)
    await engine.start()
    serving = asyncio.create_task(engine.run())
    stopped = asyncio.create_task(stopping.wait())
    await asyncio.wait([serving, stopped], return_when=asyncio.FIRST_COMPLETED)
    await engine.stop()
    await serving


if __name__ == "__main__":
    configure_logs(pretty=False)
    asyncio.run(work(*sys.argv[1:4]))
