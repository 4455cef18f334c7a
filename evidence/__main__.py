"""`python -m evidence [--quick] [--only S1,S4] [--keep] [--output FILE]`: measure, write, check.

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

from evidence.cells import Tally
from evidence.check import Verdict, verdicts
from evidence.kept import Kept, load, runs_of, save
from evidence.registry import SCENARIOS
from evidence.report import Measured, write
from evidence.run import play
from evidence.scenarios.base import Finding, Scenario

ROOT = Path(__file__).parents[1]
PARTIAL = ROOT / "build" / "evidence-quick.md"
"""A quick run, or a part, must not replace the document."""


def parsed(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m evidence", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few runs, two minutes")
    parser.add_argument("--only", default="", help="scenarios, as in S1,S4")
    parser.add_argument("--output", type=Path, help="the document to write")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="measure only what is new since")
    return parser.parse_args(arguments)


def measured(chosen: Sequence[Scenario], args: argparse.Namespace) -> Measured:
    """Run all cells and all measurements of these scenarios, and judge them."""
    kept = load() if args.keep and not args.quick else Kept()
    cells = [cell for scenario in chosen for cell in scenario.cells]
    found: dict[str, list[Finding]] = {}
    columns = (*Progress.get_default_columns(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        new = [cell for cell in cells if runs_of(kept, cell) is None]
        played = iter(play(new, quick=args.quick, workers=args.workers, progress=progress))
        tallies = [
            next(played) if (runs := runs_of(kept, cell)) is None else Tally(cell, tuple(runs))
            for cell in cells
        ]
        for scenario in chosen:
            if scenario.number in kept.findings:
                found[scenario.number] = kept.findings[scenario.number]
            elif scenario.measure is not None:
                bar = progress.add_task(f"{scenario.number} {scenario.title}", total=1)
                found[scenario.number] = scenario.measure(args.quick)
                progress.advance(bar)
    if args.keep and not args.quick:
        save(kept, tallies, found)
    timed = {scenario.number for scenario in chosen if scenario.timed}
    judged = verdicts(chosen, tallies, quick=args.quick) + [
        # Times differ from run to run; they stand in their own table only.
        Verdict(
            f"{number}, {f.row}, {f.column}",
            f.promise,
            "as told" if number in timed else f.text,
            bool(f.held),
        )
        for number, findings in found.items()
        for f in findings
        if f.held is not None
    ]
    return Measured(chosen, tallies, found, judged, args.quick)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write, check."""
    args = parsed(arguments)
    wanted = [name for name in args.only.upper().split(",") if name]
    known = [scenario.number for scenario in SCENARIOS]
    if unknown := [name for name in wanted if name not in known]:
        print(f"no scenario {unknown[0]}; known: {', '.join(known)}", file=sys.stderr)
        return 2
    began = time.perf_counter()
    result = measured([s for s in SCENARIOS if not wanted or s.number in wanted], args)
    output = args.output or (PARTIAL if args.quick or wanted else ROOT / "docs" / "evidence.md")
    write(result, output)
    broken = [verdict for verdict in result.verdicts if not verdict.held]
    for verdict in broken:
        print(f"out of its promised range: {verdict}", file=sys.stderr)
    print(f"{output}: {len(result.verdicts)} promises, {len(broken)} not held; "
          f"{time.perf_counter() - began:.0f} s")  # fmt: skip
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
