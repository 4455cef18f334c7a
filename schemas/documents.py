"""Documents made from the code: a JSON Schema of every message, and one AsyncAPI of all topics.

Why. Producers, adapters and dashboards are written by others, in other languages; what they read
must not lag behind what is spoken here. So nothing is written down twice: types, bounds and
defaults come from the messages, and what a field means from the text that follows it.

How. msgspec makes JSON Schema (2020-12) of its own types. It does not know ours (durations,
secrets), so a type is first translated into one of plain parts.

Refused here: writing files (`service/documents.py`).
"""

from __future__ import annotations

import ast
import inspect
import sys
import typing
from itertools import pairwise
from types import UnionType
from typing import Annotated, Any, Union

import msgspec
from msgspec import NODEFAULT, Meta, Struct

from schemas.chain import Anchor
from schemas.commands import Command, Hold, Order
from schemas.durations import Duration
from schemas.events import EVENTS, Outcome, Prediction, Rollout
from schemas.facts import Breach, DeadLetter, Progress, Receipt
from schemas.incidents import Entry, Incident
from schemas.observations import Observations, describe
from schemas.secrets import Secret
from schemas.topics import TOPICS
from schemas.verdicts import Verdict

DIALECT = "https://json-schema.org/draft/2020-12/schema"

MESSAGES: dict[str, type[Struct]] = {
    "prediction": Prediction,
    "outcome": Outcome,
    "rollout": Rollout,
    "hold": Hold,
    "observations": Observations,
    "verdict": Verdict,
    "breach": Breach,
    "command": Command,
    "receipt": Receipt,
    "progress": Progress,
    "order": Order,
    "anchor": Anchor,
    "dead-letter": DeadLetter,
    "entry": Entry,
    "incident": Incident,
}
"""Every message by its name; `entry` and `incident` are read over HTTP and have no topic."""

MESSAGE_ON = {
    "predictions": "prediction", "outcomes": "outcome", "rollouts": "rollout", "holds": "hold",
    "observations": "observations", "verdicts": "verdict", "breaches": "breach",
    "commands": "command", "receipts": "receipt", "progress": "progress", "orders": "order",
    "anchors": "anchor", "dead-letters": "dead-letter",
}  # fmt: skip

TAKEN_IN = frozenset({"predictions", "outcomes", "rollouts"})
"""Topics that others write; the rest rollbackd writes."""

DURATION = Annotated[
    Annotated[str, Meta(pattern=r"^\s*([0-9]+(\.[0-9]+)?\s*(ms|s|m|h|d|w)\s*)+$")]
    | Annotated[float, Meta(ge=0)],
    Meta(examples=["500ms", "30s", "10m", "24h", "7d", 1.5]),
]
SECRET = Annotated[str, Meta(extra_json_schema={"writeOnly": True})]


def schema_of(kind: type[Struct]) -> dict[str, Any]:
    """Give the JSON Schema of one type, with all it refers to in `$defs`."""
    return {"$schema": DIALECT} | msgspec.json.schema(_Plain().kind(kind))


def message_schemas() -> dict[str, dict[str, Any]]:
    """Give the JSON Schema of every message by its name."""
    schemas = {name: schema_of(kind) for name, kind in MESSAGES.items()}
    for name in EVENTS:
        schemas[name]["$defs"][MESSAGES[name].__name__]["properties"]["type"] = _type_of(name)
    schemas["observations"]["$comment"] = f"MessagePack on its topic. {describe()}"
    return schemas


def asyncapi(version: str, prefix: str = "rollbackd.") -> dict[str, Any]:
    """Give one AsyncAPI 3.0 document of all topics.

    Parameters
    ----------
    version : str
        Version of rollbackd.
    prefix : str
        Before each topic's name; it is a setting.
    """
    plain = _Plain()
    kinds = [plain.kind(MESSAGES[name]) for name in MESSAGE_ON.values()]
    _, schemas = msgspec.json.schema_components(kinds, ref_template="#/components/schemas/{name}")
    for name in EVENTS:
        schemas[MESSAGES[name].__name__]["properties"]["type"] = _type_of(name)
        schemas[f"{MESSAGES[name].__name__}CloudEvent"] = _envelope(name)
    return {
        "asyncapi": "3.0.0",
        "info": {
            "title": "rollbackd",
            "version": version,
            "description": "Topics of rollbackd. Events may come bare or as CloudEvents 1.0.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": {topic: _channel(topic, prefix) for topic in TOPICS},
        "operations": {
            f"{'receive' if topic in TAKEN_IN else 'send'}-{topic}": _operation(topic)
            for topic in TOPICS
        },
        "components": {
            "messages": {name: _message(topic, name) for topic, name in MESSAGE_ON.items()},
            "schemas": schemas,
        },
    }


def _type_of(name: str) -> dict[str, Any]:
    text = "Required in recordings and over HTTP, where events of all types come together."
    return {"const": name, "description": text}


def _envelope(name: str) -> dict[str, Any]:
    return {
        "title": f"{MESSAGES[name].__name__}CloudEvent",
        "description": f"A CloudEvents 1.0 event that carries one {name}.",
        "type": "object",
        "properties": {
            "specversion": {"type": "string", "pattern": r"^1\."},
            "type": {"type": "string", "pattern": f"{name}$"},
            "data": {"$ref": f"#/components/schemas/{MESSAGES[name].__name__}"},
        },
        "required": ["specversion", "type", "data"],
    }


def _channel(topic: str, prefix: str) -> dict[str, Any]:
    wanted, name = TOPICS[topic], MESSAGE_ON[topic]
    settings: dict[str, Any] = {"cleanup.policy": [wanted["cleanup"]]}
    if "retention_s" in wanted:
        settings["retention.ms"] = wanted["retention_s"] * 1000
    return {
        "address": prefix + topic,
        "description": f"Keyed by {wanted['keyed_by']}.",
        "messages": {name: {"$ref": f"#/components/messages/{name}"}},
        "bindings": {"kafka": {"topicConfiguration": settings}},
    }


def _operation(topic: str) -> dict[str, Any]:
    return {
        "action": "receive" if topic in TAKEN_IN else "send",
        "channel": {"$ref": f"#/channels/{topic}"},
        "messages": [{"$ref": f"#/channels/{topic}/messages/{MESSAGE_ON[topic]}"}],
    }


def _message(topic: str, name: str) -> dict[str, Any]:
    kind = MESSAGES[name]
    payload: dict[str, Any] = {"$ref": f"#/components/schemas/{kind.__name__}"}
    if name in EVENTS:
        payload = {"anyOf": [payload, {"$ref": f"{payload['$ref']}CloudEvent"}]}
    message = {
        "name": name,
        "title": kind.__name__,
        "summary": (inspect.getdoc(kind) or "").split("\n")[0],
        "contentType": "application/msgpack" if kind is Observations else "application/json",
        "payload": payload,
        "bindings": {
            "kafka": {"key": {"type": "string", "description": TOPICS[topic]["keyed_by"]}}
        },
    }
    if name == "command":
        keys = ("rollbackd-key", "rollbackd-signature")
        message["headers"] = {
            "type": "object",
            "properties": {key: {"type": "string"} for key in keys},
            "description": "Id of the key, and its Ed25519 signature over the bytes of the value.",
        }
    return message


def notes_of(kind: type[Struct]) -> dict[str, str]:
    """Give the text that follows each field of a class in its source, by the field's name."""
    try:
        tree = ast.parse(inspect.getsource(sys.modules[kind.__module__]))
    except (OSError, TypeError):
        return {}
    body = next(
        (n.body for n in tree.body if isinstance(n, ast.ClassDef) and n.name == kind.__name__), []
    )
    notes = {}
    for field, after in pairwise(body):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            match after:
                case ast.Expr(value=ast.Constant(value=str(text))):
                    notes[field.target.id] = inspect.cleandoc(text).replace("\n", " ")
    return notes


class _Plain:
    """Translates types into ones that msgspec can describe, each class once."""

    def __init__(self) -> None:
        self._made: dict[type[Struct], Any] = {}

    def kind(self, kind: Any) -> Any:
        """Give the same type of plain parts."""
        if kind is Duration:
            return DURATION
        if kind is Secret:
            return SECRET
        if isinstance(kind, type) and issubclass(kind, Struct):
            if kind not in self._made:
                self._made[kind] = self._struct(kind)
            return self._made[kind]
        origin, parts = typing.get_origin(kind), typing.get_args(kind)
        if origin is Annotated:
            return Annotated[(self.kind(parts[0]), *parts[1:])]
        if origin in (Union, UnionType):
            return Union[tuple(self.kind(part) for part in parts)]  # noqa: UP007
        if origin in (list, dict):
            return origin[tuple(self.kind(part) for part in parts)]
        return kind

    def _struct(self, kind: type[Struct]) -> Any:
        notes, config = notes_of(kind), kind.__struct_config__
        fields: list[Any] = []
        for field in msgspec.structs.fields(kind):
            of = self.kind(field.type)
            if field.name in notes:
                of = Annotated[of, Meta(description=notes[field.name])]
            if config.array_like:
                of = Annotated[of, Meta(title=field.name)]
            default = field.default if field.default_factory is NODEFAULT else NODEFAULT
            if isinstance(default, Duration):
                default = float(default)
            if field.default_factory is not NODEFAULT:
                default = msgspec.field(default_factory=field.default_factory)
            fields.append((field.name, of) if default is NODEFAULT else (field.name, of, default))
        return msgspec.defstruct(
            kind.__name__, fields, namespace={"__doc__": inspect.getdoc(kind)},
            forbid_unknown_fields=config.forbid_unknown_fields, array_like=config.array_like,
            kw_only=not config.array_like, module=kind.__module__,
        )  # fmt: skip
