"""Check plain data against a settings type and find every fault at once, with its path.

msgspec stops at the first fault; a person who fixes a file wants all of them. So the data is walked
along the type: unknown and missing keys are found here, and only leaves are converted by msgspec.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Iterator, Mapping
from typing import Any, Union

import msgspec
from msgspec import NODEFAULT, Struct
from msgspec.structs import fields as fields_of

from schemas.durations import Duration, parse_duration
from schemas.secrets import Secret


def read_custom(kind: type[Any], value: Any) -> Any:
    """Convert our own leaf types; msgspec calls this for what it does not know."""
    if kind is Duration:
        return parse_duration(value)
    if kind is Secret:
        if not isinstance(value, str):
            raise ValueError("expected a text")
        return Secret(value)
    raise NotImplementedError(kind)


def faults_of(kind: Any, value: Any, path: str = "") -> Iterator[str]:
    """Yield a line for every fault of `value` as a `kind`: path, found, expected."""
    struct = _struct_in(kind)
    origin = typing.get_origin(kind)
    if value is None and _allows_none(kind):
        return
    if struct is not None:
        yield from _faults_of_struct(struct, value, path)
    elif origin is list and isinstance(value, list):
        for index, item in enumerate(value):
            yield from faults_of(typing.get_args(kind)[0], item, f"{path}[{index}]")
    elif origin is dict and isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str):
                yield f"{_join(path, str(key))}: found {shown(key)} as a key, expected a text"
            yield from faults_of(typing.get_args(kind)[1], item, _join(path, str(key)))
    else:
        try:
            msgspec.convert(value, kind, dec_hook=read_custom)
        except (msgspec.ValidationError, ValueError) as fault:
            found = sort_of(value) if _is_hidden(kind, path) else shown(value)
            yield f"{path or 'the file'}: found {found}, {_expected(kind, fault)}"


def shown(value: Any) -> str:
    """Show a found value briefly. Not for what may be a secret: see `sort_of`."""
    if value is None or isinstance(value, (Mapping, list)):
        return sort_of(value)
    text = repr(value) if not isinstance(value, bool) else str(value).lower()
    return text if len(text) <= 60 else text[:57] + "..."


def sort_of(value: Any) -> str:
    """Say what sort of value was found, and nothing of the value."""
    if value is None:
        return "nothing"
    names = {bool: "true or false", int: "a number", float: "a number", str: "a text"}
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list) else names.get(type(value), "something else")


_SECRET = re.compile("secret|token|passw|url|key|credential|authoriz", re.IGNORECASE)


def names_secret(name: str) -> bool:
    """Whether a field's name says that its value may be a secret; addresses are, mostly."""
    return _SECRET.search(name) is not None


_WORDS = {
    "array": "a list", "object": "a mapping", "str": "a text", "int": "a whole number",
    "float": "a number", "bool": "true or false", "null": "nothing",
}  # fmt: skip
_TYPE = re.compile(rf"\b({'|'.join(_WORDS)})\b")


def _is_hidden(kind: Any, path: str) -> bool:
    """Whether a value must not be shown: it is, or might be meant to be, a secret."""
    within = typing.get_origin(kind) in (list, dict)
    return within or Secret in (kind, *typing.get_args(kind)) or names_secret(path.split(".")[-1])


def _faults_of_struct(struct: type[Struct], value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield f"{path or 'the file'}: found {sort_of(value)}, expected a mapping"
        return
    known = {field.encode_name: field for field in fields_of(struct)}
    for key in value:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1)
            hint = f"expected {near[0]}?" if near else f"expected one of {', '.join(known)}"
            yield f"{_join(path, str(key))}: found an unknown key, {hint}"
    for name, field in known.items():
        if name in value:
            yield from faults_of(field.type, value[name], _join(path, name))
        elif field.default is NODEFAULT and field.default_factory is NODEFAULT:
            yield f"{_join(path, name)}: found nothing, expected a value (it is required)"


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _struct_in(kind: Any) -> type[Struct] | None:
    options = typing.get_args(kind) if _is_union(kind) else (kind,)
    return next((o for o in options if isinstance(o, type) and issubclass(o, Struct)), None)


def _is_union(kind: Any) -> bool:
    return typing.get_origin(kind) in (Union, types.UnionType)


def _allows_none(kind: Any) -> bool:
    return _is_union(kind) and type(None) in typing.get_args(kind)


def _expected(kind: Any, fault: Exception) -> str:
    options = [
        o
        for part in (typing.get_args(kind) if _is_union(kind) else (kind,))
        if typing.get_origin(part) is typing.Literal
        for o in typing.get_args(part)
    ]
    if options:
        return f"expected one of {', '.join(map(str, options))}"
    text = str(fault).replace("`", "").split(" - at ")[0]
    text = text[:1].lower() + text[1:]
    if text.startswith("expected"):
        text = _TYPE.sub(lambda found: _WORDS[found.group()], text.split(", got ")[0])
    return text if text.startswith("expected") else f"expected another value: {text}"
