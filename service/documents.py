"""Write the documents that others need: `rollbackd schema --out DIR`.

The shape of `rollbackd.yaml` differs a little from the settings that are made of it: the engine may
be a plain address, a secret `x` may be given as `x_file`, and the digest is computed.
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from schemas.documents import asyncapi, message_schemas, schema_of
from service.config import Config
from service.faults import names_secret

SETTINGS = "rollbackd.yaml"
MAY_HOLD_SECRETS = ("storage",)
"""Settings whose names do not say so."""


def settings_schema() -> dict[str, Any]:
    """Give the JSON Schema of `rollbackd.yaml`."""
    schema = schema_of(Config)
    properties = schema["$defs"]["Config"]["properties"]
    del properties["digest"]
    properties["engine"] = {
        "description": properties["engine"].get("description", "Where messages travel."),
        "anyOf": [{"type": "string"}, {"$ref": "#/$defs/EngineSettings"}],
    }
    for definition in schema["$defs"].values():
        if definition.get("type") == "object":
            _permit_files(definition)
    return schema


def _permit_files(definition: dict[str, Any]) -> None:
    """Let every secret `x` be given as `x_file`."""
    properties: dict[str, Any] = definition["properties"]
    either = []
    secrets = [name for name in properties if names_secret(name) or name in MAY_HOLD_SECRETS]
    for name in secrets:
        if not _is_text(properties[name]) or name.endswith("_file"):
            continue
        text = f"A file that holds `{name}`, relative to the settings file."
        properties[f"{name}_file"] = {"type": "string", "description": text}
        if name in definition.get("required", []):
            definition["required"].remove(name)
            either.append({"anyOf": [{"required": [name]}, {"required": [f"{name}_file"]}]})
    if either:
        definition["allOf"] = either


def _is_text(of: dict[str, Any]) -> bool:
    kinds = [of, *of.get("anyOf", [])]
    return any(kind.get("type") == "string" for kind in kinds)


def write(folder: Path) -> list[Path]:
    """Write all documents into a folder, which is made if need be; return what was written."""
    folder.mkdir(parents=True, exist_ok=True)
    documents = {
        f"{name}.schema.json": schema
        for name, schema in (message_schemas() | {SETTINGS: settings_schema()}).items()
    }
    documents["asyncapi.json"] = asyncapi(_version())
    written = []
    for name, document in documents.items():
        path = folder / name
        path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        written.append(path)
    return written


def _version() -> str:
    try:
        return version("rollbackd")
    except PackageNotFoundError:
        return "0"
