"""From the text of `rollbackd.yaml` to plain values: YAML, the environment, and files of secrets.

Refused: a key that comes twice, and aliases that make more values than any settings need.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from service.faults import shown


class UnreadableYaml(ValueError):
    """The text is not YAML, or more than plain values; one sentence says why."""


_MOST_VALUES = 100_000


class _Yaml(yaml.SafeLoader):
    """YAML in which no value is lost in silence."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        """Refuse a key that comes twice; the first value would be forgotten."""
        seen: set[str] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in seen:
                problem = f"found the key {shown(key.value)} twice"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def read_yaml(text: str) -> Any:
    """Read plain values.

    Raises
    ------
    UnreadableYaml
        With one sentence.
    """
    try:
        data = yaml.load(text, _Yaml)  # noqa: S506  a SafeLoader
        if not _is_huge(data):
            return data
        where, problem = "", f"found over {_MOST_VALUES} values, or an alias within itself"
    except yaml.YAMLError as fault:
        mark = getattr(fault, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        problem = getattr(fault, "problem", None) or "found characters that YAML refuses"
    except RecursionError:
        where, problem = "", "found lists or mappings nested too deeply"
    except ValueError as fault:
        # Such as the date 2026-02-31; the text says which.
        where, problem = "", str(fault)
    raise UnreadableYaml(f"the file: {where}{problem}, expected plain YAML")


def _is_huge(data: Any) -> bool:
    """Whether aliases (or a hand) make more of the file than any settings need."""
    waiting, seen = [data], 0
    while waiting and seen <= _MOST_VALUES:
        value = waiting.pop()
        seen += 1
        if isinstance(value, (dict, list)):
            waiting += value.values() if isinstance(value, dict) else value
    return seen > _MOST_VALUES


_VARIABLE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_PATHS = frozenset({"anchor_file", "kill_switch_file", "key_file", "ca_file"})
"""Settings that name a file because the file is wanted, not its text."""


def complete(
    value: Any, path: str, folder: Path, environment: Mapping[str, str], lines: list[str]
) -> Any:
    """Put in the environment's values and the contents of `*_file` secrets."""
    if isinstance(value, str):
        for name in _VARIABLE.findall(value):
            if name not in environment:
                lines.append(
                    f"{path}: found ${{{name}}}, expected that variable in the environment"
                )
        return _VARIABLE.sub(lambda found: environment.get(found.group(1), ""), value)
    if isinstance(value, list):
        return [
            complete(item, f"{path}[{i}]", folder, environment, lines)
            for i, item in enumerate(value)
        ]
    if not isinstance(value, dict):
        return value
    whole = {
        key: complete(item, f"{path}.{key}" if path else str(key), folder, environment, lines)
        for key, item in value.items()
    }
    for key in [k for k in whole if isinstance(k, str) and k.endswith("_file")]:
        if key in _PATHS or not isinstance(whole[key], str):
            continue
        name = key.removesuffix("_file")
        at = f"{path}.{key}" if path else key
        if name in whole:
            lines.append(f"{at}: found both {name} and {key}, expected one of them")
        try:
            whole[name] = (folder / whole.pop(key)).read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as fault:
            reason = getattr(fault, "strerror", None) or "it is not a text"
            lines.append(f"{at}: cannot be read ({reason}), expected a file that holds the secret")
            whole[name] = ""
    return whole
