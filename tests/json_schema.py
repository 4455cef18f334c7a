"""A small JSON Schema validator: what our documents use of it, and a failure on anything else."""

from __future__ import annotations

import re
from typing import Any

_SAYS_NOTHING = frozenset({
    "title", "description", "default", "examples", "format", "contentEncoding", "writeOnly",
    "$schema", "$comment", "$defs",
})  # fmt: skip
_TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "boolean": bool, "null": type(None),
}  # fmt: skip


def faults(value: Any, schema: dict[str, Any], whole: dict[str, Any], path: str = "$") -> list[str]:
    """Say where `value` is not what `schema` wants; `whole` is the document it refers into."""
    found: list[str] = []
    for word, wanted in schema.items():
        if word in _SAYS_NOTHING:
            continue
        if word == "$ref":
            found += faults(value, resolve(wanted, whole), whole, path)
        elif word == "anyOf":
            if all(faults(value, each, whole, path) for each in wanted):
                found.append(f"{path}: fits none of anyOf")
        elif word == "allOf":
            found += [line for each in wanted for line in faults(value, each, whole, path)]
        elif word in ("properties", "additionalProperties", "items", "prefixItems"):
            found += _inside(word, value, schema, whole, path)
        elif not _holds(word, wanted, value):
            found.append(f"{path}: not {word} {wanted}")
    return found


def resolve(reference: str, whole: dict[str, Any]) -> dict[str, Any]:
    """Find what a `$ref` within the same document names; KeyError if it names nothing."""
    found: Any = whole
    for part in reference.removeprefix("#/").split("/"):
        found = found[part]
    return dict(found)


def _inside(
    word: str, value: Any, schema: dict[str, Any], whole: dict[str, Any], path: str
) -> list[str]:
    wanted, parts = schema[word], []
    if isinstance(value, dict) and word == "properties":
        parts = [(value[name], each, name) for name, each in wanted.items() if name in value]
    elif isinstance(value, dict) and word == "additionalProperties":
        more = [name for name in value if name not in schema.get("properties", {})]
        if isinstance(wanted, bool):
            return [] if wanted else [f"{path}.{name}: not permitted" for name in more]
        parts = [(value[name], wanted, name) for name in more]
    elif isinstance(value, list) and word == "items":
        parts = [(item, wanted, str(index)) for index, item in enumerate(value)]
    elif isinstance(value, list) and word == "prefixItems":
        parts = [(v, s, str(i)) for i, (v, s) in enumerate(zip(value, wanted, strict=False))]
    return [line for v, s, name in parts for line in faults(v, s, whole, f"{path}.{name}")]


def _holds(word: str, wanted: Any, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    match word:
        case "type" if wanted in ("number", "integer"):
            return number and (wanted == "number" or float(value).is_integer())
        case "type":
            return isinstance(value, _TYPES[wanted])
        case "const" | "enum":
            return bool(value == wanted) if word == "const" else value in wanted
        case "required":
            return not isinstance(value, dict) or set(wanted) <= set(value)
        case "minimum" | "maximum":
            return not number or (value >= wanted if word == "minimum" else value <= wanted)
        case "exclusiveMinimum":
            return not number or value > wanted
        case "minLength" | "maxLength":
            text = isinstance(value, str)
            return not text or (len(value) >= wanted) == (word == "minLength") or (
                len(value) == wanted
            )  # fmt: skip
        case "minItems":
            return not isinstance(value, list) or len(value) >= wanted
        case "maxProperties":
            return not isinstance(value, dict) or len(value) <= wanted
        case "pattern":
            return not isinstance(value, str) or re.search(wanted, value) is not None
    raise NotImplementedError(f"the keyword {word} is not checked by these tests")
