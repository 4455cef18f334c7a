"""The same events through other engines: a stock Faust agent, and quixstreams doing the same join.

Both run in a process of their own, on the topics that the bare loop reads in this one: two
partitions each of predictions and outcomes, JSON, keyed by prediction id. The Faust agent only
decodes and counts, as its table would cost more still; quixstreams keeps each prediction in its
state store until the outcome comes. Reported as a share of the bare loop's rate, so above 1 is
faster than `getmany` with decoding in one Python process.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from bench.ingest import outcome, prediction

EVENTS = 60_000
"""Predictions, and as many outcomes."""

TOPICS = ("rivals-predictions", "rivals-outcomes")
ROOT = Path(__file__).parents[1]
QUIX_PYTHON = ROOT / ".venv-bench" / "bin" / "python"

FAUST = """
import sys, time, json, faust
kafka, events, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
app = faust.App("rivals-faust", broker="kafka://" + kafka, web_enabled=False, datadir=folder,
                topic_disable_leader=True, topic_allow_declare=False, stream_wait_empty=False,
                consumer_auto_offset_reset="earliest", broker_session_timeout=10)
seen, began = 0, 0.0
@app.agent(app.topic("rivals-predictions", "rivals-outcomes", value_type=bytes,
                     value_serializer="raw", key_serializer="raw"))
async def take(stream):
    global seen, began
    async for value in stream:
        json.loads(value)
        if seen == 0:
            began = time.perf_counter()
        seen += 1
        if seen == 2 * events:
            rate = (seen - 1) / (time.perf_counter() - began)
            # Faust takes standard output for its log.
            sys.__stdout__.write(f"\\nRATE {rate}\\n"); sys.__stdout__.flush()
            import os; os._exit(0)
sys.argv = ["faust", "worker", "-l", "error", "--without-web"]
app.main()
"""

QUIX = """
import sys, time
from quixstreams import Application
kafka, events, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
app = Application(broker_address=kafka, consumer_group="rivals-quix", state_dir=folder,
                  auto_offset_reset="earliest", use_changelog_topics=False, loglevel="ERROR",
                  auto_create_topics=False)
seen, began = 0, 0.0
def join(value, state):
    global seen, began
    if seen == 0:
        began = time.perf_counter()
    seen += 1
    if "label" in value:
        if state.get("p") is not None:
            state.delete("p")
    else:
        state.set("p", [value["served_at"], value["score"], value["prediction"], value["version"]])
    if seen == 2 * events:
        print("RATE", (seen - 1) / (time.perf_counter() - began), flush=True)
        import os; os._exit(0)
first = app.dataframe(app.topic("rivals-predictions", value_deserializer="json"))
both = first.concat(app.dataframe(app.topic("rivals-outcomes", value_deserializer="json")))
both = both.apply(join, stateful=True)
app.run()
"""


def figures(kafka: str, folder: Path) -> Iterator[tuple[str, str]]:
    """Measure the bare loop and both rivals."""
    asyncio.run(_fill(kafka))
    bare = asyncio.run(_bare(kafka))
    yield "rivals.bare_loop_events_per_s", f"{bare:.0f}"
    for name, python, program in (("faust_agent", Path(sys.executable), FAUST),
                                  ("quixstreams_join", QUIX_PYTHON, QUIX)):  # fmt: skip
        if not python.exists():
            yield f"rivals.{name}", "not measured: make bench installs it"
            continue
        rate = _rate(python, program, kafka, folder / name)
        if rate is None:
            yield f"rivals.{name}", "not measured: it did not finish"
            continue
        yield f"rivals.{name}_events_per_s", f"{rate:.0f}"
        yield f"rivals.{name}_against_bare", f"{rate / bare:.3f}"


def _rate(python: Path, program: str, kafka: str, folder: Path) -> float | None:
    folder.mkdir(parents=True, exist_ok=True)
    command = [str(python), "-c", program, kafka, str(EVENTS), str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=180, cwd=folder,
                              check=False)  # fmt: skip
    except subprocess.TimeoutExpired:
        return None
    line = next((line for line in done.stdout.splitlines() if line.startswith("RATE")), None)
    if line is None:
        print(done.stdout[-500:], done.stderr[-1500:], file=sys.stderr)
        return None
    return float(line.split()[1])


async def _fill(kafka: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 2, 1) for topic in TOPICS])
    await admin.close()
    producer = AIOKafkaProducer(bootstrap_servers=kafka, linger_ms=20, max_batch_size=256 * 1024)
    await producer.start()
    for topic, make in zip(TOPICS, (prediction, lambda at: outcome(at, at)), strict=True):
        for at in range(EVENTS):
            value = make(at)
            name = json.loads(value)["prediction_id"].encode()
            await producer.send(topic, value, key=name)
    await producer.flush()
    await producer.stop()


async def _bare(kafka: str) -> float:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka, auto_offset_reset="earliest")
    await consumer.start()
    consumer.assign([TopicPartition(topic, at) for topic in TOPICS for at in (0, 1)])
    await consumer.seek_to_beginning()
    decode, seen, began = msgspec.json.Decoder().decode, 0, time.perf_counter()
    while seen < 2 * EVENTS:
        for records in (await consumer.getmany(timeout_ms=500, max_records=5000)).values():
            for record in records:
                decode(record.value)
            seen += len(records)
    elapsed_s = time.perf_counter() - began
    await consumer.stop()
    return seen / elapsed_s
