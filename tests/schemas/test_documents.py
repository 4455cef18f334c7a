"""The written documents speak of the messages that are really sent."""

from __future__ import annotations

import json
import re
from typing import Any

import msgspec
import pytest

from schemas.chain import Anchor
from schemas.commands import Order
from schemas.documents import MESSAGE_ON, MESSAGES, TAKEN_IN, asyncapi, message_schemas, notes_of
from schemas.facts import DeadLetter
from schemas.incidents import fold
from schemas.observations import Block, Observations
from schemas.policies import GuardSpec
from schemas.topics import TOPICS
from schemas.verdicts import Verdict
from tests.builders import (
    NOW,
    a_breach,
    a_command,
    a_guard_verdict,
    a_hold,
    a_progress,
    a_proposal,
    a_receipt,
    an_entry,
)
from tests.json_schema import faults, resolve
from tests.schemas.test_wire import EVENTS, WRONG

SENT: list[tuple[str, Any]] = [
    *EVENTS.items(),
    *((name, EVENTS[name] | {"type": name, "zzz": 1}) for name in EVENTS),
    ("hold", a_hold(until=NOW)),
    ("hold", a_hold()),
    ("verdict", Verdict("m", "v42", "r1", "breach", "guard_alarmed", "…", [a_guard_verdict()],
                        "declared", NOW, {"topic": "outcomes", "offset": 1})),
    ("breach", a_breach(guards=[a_guard_verdict()])),
    ("command", a_command()),
    ("receipt", a_receipt(detail={"reason": "x", "more": [1]})),
    ("progress", a_progress()),
    ("progress", a_proposal()),
    ("order", Order(order_id="o", kind="approve", model="m", actor="ann", reason="fine", at=NOW)),
    ("anchor", Anchor(size=3, head="ab", at=NOW, log="cd")),
    ("dead-letter", DeadLetter(reason="x", topic="predictions", partition=0, offset=1, at=NOW,
                               key=b"\xff", value=b"\x00")),
    ("entry", an_entry()),
    ("incident", fold([an_entry()])),
    ("observations", Observations("m", 0, {"predictions": "s"}, NOW, ["v41"], [],
                                  [Block("served", "predictions", 1, {"offset": b"\0" * 8})], {})),
]  # fmt: skip


@pytest.mark.parametrize(("name", "message"), SENT)
def test_a_message_fits_its_schema(name: str, message: Any) -> None:
    """If this breaks, an adapter that checks by our schema refuses our own commands."""
    schema = message_schemas()[name]

    assert [] == faults(json.loads(msgspec.json.encode(message)), schema, schema)


def test_every_message_has_a_schema_and_a_message_that_fits_it() -> None:
    """If this breaks, a new message has no document."""
    assert set(MESSAGES) == set(message_schemas()) == {name for name, _ in SENT}


NOT_SAID_BY_TYPES = ("", "yesterday", "soon", "now", "then", "2026-01-01T00:00:00", "1767225600",
                     "2026-02-30T00:00:00Z", 1e300)  # fmt: skip
"""Times of the right type (`format` is no promise) that are none."""


@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        (name, field, value)
        for name, fields in WRONG.items()
        for field, values in fields.items()
        for value in values
        if not (field.endswith("at") and value in NOT_SAID_BY_TYPES)
    ],
)
def test_what_the_reader_refuses_the_schema_refuses(name: str, field: str, value: Any) -> None:
    """If this breaks, a producer that checks its events first finds them in dead-letters."""
    schema = message_schemas()[name]

    assert faults(EVENTS[name] | {field: value}, schema, schema)


CONTRACT = {
    "command": "command_id action model rollout_id from_version to_version weight expected "
    "incident_id issued_at expires_at fence mode reason adapter",
    "breach": "breach_id incident_id model version rollout_id guard signal action reason text "
    "evidence stable roles decided_at position config_digest",
    "receipt": "command_id status before after detail adapter started_at finished_at attempts",
    "verdict": "model version rollout_id verdict reason text guards roles decided_at position",
    "prediction": "prediction_id model version served_at prediction score latency_ms error "
    "features segments unit weight arrived_at type",
    "outcome": "prediction_id observed_at label model cost arrived_at type",
    "rollout": "model stable canary weight at rollout_id source type",
}


@pytest.mark.parametrize("name", CONTRACT)
def test_the_schema_has_every_field_of_the_contract(name: str) -> None:
    """If this breaks, a field that others rely on was renamed."""
    schema = message_schemas()[name]

    assert set(CONTRACT[name].split()) <= set(resolve(schema["$ref"], schema)["properties"])


def test_asyncapi_names_every_topic_with_its_message_and_direction() -> None:
    """If this breaks, a topic is missing from the one document that lists them."""
    document = asyncapi("1.2.3", prefix="x.")

    assert ("3.0.0", "1.2.3") == (document["asyncapi"], document["info"]["version"])
    assert set(TOPICS) == set(MESSAGE_ON) == set(document["channels"])
    assert {f"x.{topic}" for topic in TOPICS} == {
        channel["address"] for channel in document["channels"].values()
    }
    directions = {
        operation["channel"]["$ref"].removeprefix("#/channels/"): operation["action"]
        for operation in document["operations"].values()
    }
    assert {t: "receive" if t in TAKEN_IN else "send" for t in TOPICS} == directions
    assert ["compact"] == document["channels"]["verdicts"]["bindings"]["kafka"][
        "topicConfiguration"]["cleanup.policy"]  # fmt: skip


def test_asyncapi_refers_to_nothing_that_is_missing() -> None:
    """If this breaks, no tool can read the document."""
    document = asyncapi("1")
    references = set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document)))

    assert len(references) > 30
    assert all(resolve(reference, document) for reference in references)


@pytest.mark.parametrize(("name", "message"), [each for each in SENT if each[0] != "entry"])
def test_a_message_fits_its_payload_in_asyncapi(name: str, message: Any) -> None:
    """If this breaks, code made from the document cannot read the topic."""
    document = asyncapi("1")
    if name not in MESSAGE_ON.values():
        return
    payload = document["components"]["messages"][name]["payload"]
    plain = json.loads(msgspec.json.encode(message))

    assert [] == faults(plain, payload, document)
    if name in EVENTS:
        envelope = {"specversion": "1.0", "type": f"com.example.{name}", "data": plain}
        assert [] == faults(envelope, payload, document)
        assert faults(envelope | {"type": "com.example.other"}, payload, document)


def test_fields_carry_what_their_text_says() -> None:
    """If this breaks, the documents have names and types but no meaning."""
    assert (
        "PromQL, for the signal `prometheus`; must give exactly one series."
        == notes_of(GuardSpec)["query"]
    )
    expires = message_schemas()["command"]["$defs"]["Command"]["properties"]["expires_at"]
    assert (
        "Epoch ms of wall time; an expired command is dropped and said to be."
        == expires["description"]
    )
