"""`python -m evidence [--quick] [--only S1,S4] [--output docs/evidence.md]`: measure, write, check.

Exit 1 when a figure left its promised range, with a sentence for each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from evidence.check import Verdict, verdicts
from evidence.registry import SCENARIOS
from evidence.report import Measured, write
from evidence.run import play
from evidence.scenarios.base import Finding

ROOT = Path(__file__).parents[1]
QUICK = ROOT / "build" / "evidence-quick.md"
"""A quick run must not replace the document, whose figures have many more runs."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs, two minutes")
    parser.add_argument("--only", default="", help="scenarios, as in S1,S4")
    parser.add_argument("--output", type=Path, help="the document to write")
    parser.add_argument("--workers", type=int, default=2)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, check."""
    args = parsed(arguments)
    wanted = [name for name in args.only.upper().split(",") if name]
    known = [scenario.number for scenario in SCENARIOS]
    if unknown := [name for name in wanted if name not in known]:
        print(f"no scenario {unknown[0]}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    chosen = [s for s in SCENARIOS if not wanted or s.number in wanted]
    began = time.perf_counter()
    screen = Progress(*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn(),
                      console=Console(stderr=True))  # fmt: skip
    with screen as progress:
        cells = [cell for scenario in chosen for cell in scenario.cells]
        tallies = play(cells, quick=args.quick, workers=args.workers, progress=progress)
        found: dict[str, list[Finding]] = {}
        for scenario in chosen:
            if scenario.measure is not None:
                bar = progress.add_task(f"{scenario.number} {scenario.title}", total=1)
                found[scenario.number] = scenario.measure(args.quick)
                progress.advance(bar)
    judged = verdicts(chosen, tallies, quick=args.quick) + [
        Verdict(f"{number}, {f.row}, {f.column}", f.promise, f.text, f.held)
        for number, findings in found.items()
        for f in findings
        if f.held is not None
    ]
    output = args.output or (QUICK if args.quick or wanted else ROOT / "docs" / "evidence.md")
    write(Measured(chosen, tallies, found, judged, args.quick), output)
    broken = [verdict for verdict in judged if not verdict.held]
    for verdict in broken:
        print(f"out of its promised range: {verdict}", file=sys.stderr)
    print(f"{output}: {len(judged)} promises, {len(broken)} not held; "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
