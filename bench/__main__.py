"""`python -m bench [NAME …]`: the figures of docs/performance.md, one `name: value` a line."""

from __future__ import annotations

import importlib
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

NAMES = ("detectors", "watch", "local", "latency", "ingest", "rivals")


def figures(name: str, kafka: str | None, folder: Path) -> Iterator[tuple[str, str]]:
    """Run one bench."""
    module: Any = importlib.import_module(f"bench.{name}")
    given: dict[str, list[Any]] = {
        "detectors": [], "watch": [], "local": [folder], "latency": [kafka, folder],
        "ingest": [kafka, folder], "rivals": [kafka, folder],
    }  # fmt: skip
    yield from module.figures(*given[name])


def main() -> int:
    """Run the named benches, or all."""
    wanted = sys.argv[1:] or list(NAMES)
    if unknown := [name for name in wanted if name not in NAMES]:
        print(f"no bench {unknown[0]}; known: {', '.join(NAMES)}", file=sys.stderr)
        return 2
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="rollbackd-bench-")))
        kafka = None
        if {"latency", "ingest", "rivals"} & set(wanted):
            from tests.broker import run_broker

            kafka = stack.enter_context(run_broker()).bootstrap
        for name in wanted:
            print(f"running {name} …", file=sys.stderr)
            for figure, value in figures(name, kafka, folder):
                print(f"{figure}: {value}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
