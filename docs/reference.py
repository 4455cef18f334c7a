"""Write docs/policies.md and docs/metrics.md from the field strings and the metric list.

python docs/reference.py            write both
python docs/reference.py --check    fail when what is written is not what the code says
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import schemas.policies
import service.config
from schemas.policies import HIGHER_IS_BETTER, NEEDS_LABELS, NEEDS_POSITIVE, RATES, SIGNALS
from service.telemetry import Metrics

DOCS = Path(__file__).parent

POLICIES_HEAD = """\
# Policies and settings

Made from the field strings of `schemas/policies.py` and `service/config.py` by `docs/reference.py`.
`rollbackd check` finds every fault of a file at once, a line each: path, what was found, what was expected.

A **policy** says what is promised and permitted for one model, or for all that a glob names; the first that
matches holds. A **guard** is one signal with one limit:

| limit | meaning | judged by |
|---|---|---|
| `max`, `min` on a rate | the share of all rows ever may not lie beyond it | spending Shiryaev-Roberts test (`rate`), stable and canary alike |
| `max` with `quantile` | that quantile of a value may not lie above it | the same test on exceedances (`quantile`) |
| `max_increase` on a rate | the canary's rate may be at most so much above the concurrent stable's, relative | conditional test (`canary`) |
| `max_decrease` on `traffic_share` | the canary's share may lie at most so far below its weight, relative | conditional test, arms exchanged |
| `max_increase` with `quantile` | the canary's quantile may be at most so much above the concurrent stable's | `quantile_canary` |
| `detector` | a river detector: a drift warning, without a false-alarm guarantee | that detector |
| `query` with `max` or `min` | the polled value, now; no evidence, no guarantee | comparison |

`alpha` is shared evenly by the guards that can act: the chance that a version which keeps every limit is *ever* rolled
back is at most `alpha`, however long it lives and however often one looks.

**Labels.** With `labels: matured` (the default) a prediction enters label guards when it is as old as the horizon. A
prediction whose label never came counts as *not bad* for a rollback and not at all for a pass; below `min_coverage` the
signal is unknown. `optimistic` lets limits against a number count bad labels on arrival, everything else counting as good so
far; a pass still needs matured labels. `conditional` lets limits against the stable count labels on arrival, with half of
their alpha, while the delays of both versions are found equal; the matured form runs beside it with the other half. Promotion
proofs always count matured labels. `check` names the guards for which a mode changes nothing.

**Slices.** A guard with `segment` watches all rows and each value of the segment apart. Half of its alpha stays with all rows,
the other half is shared evenly among `slices` places; values take places in the order of their first rows, and those that find
none count only with all rows, which the verdict says. A verdict lists the eight worst slices.

**Votes.** With `votes: unit` the predictions of one unit are one vote, their mean loss: rates are then judged by `mean`, latency
by the share of each unit's requests above the limit, limits against the stable by `unit_canary`. With `votes: pair` (shadow
traffic) limits against the stable count requests whose two answers differ.

**Promotion.** With a `promote` block a canary passes only when, besides keeping every limit, it is *proven* on each signal
with a limit that is a share of bad predictions (`error_rate`, `error`, `accuracy`, `false_positive_rate`,
`false_negative_rate`, `recall`, `precision`, `fp_per_prediction`) to be less than 1 + `margin` times as bad as the
concurrent stable. Each proof errs with chance at most .05 and takes no alpha; it needs the canary's share of traffic (a
rollout event, or `weight` on predictions), bad predictions to compare, and labels of 90 % of both arms at their horizon,
whatever `labels` says. Until then the verdict is `inconclusive` with the reason `promotion_pending` and names what is
open, and about how much longer it takes; `rollbackd plan` says so beforehand. A canary that passes and has had its weight
for `bake` gets the next of `steps` by a `shift` command, and after the last one a `promote` command makes it stable: in mode
`enforce` at once, in `propose` when a person approves. Each step is confirmed from traffic before the next. `bake` covers
one cycle of traffic, whatever was proven sooner. An open incident, a hold, an ill stable or a quarantined canary stop it.

**After a promotion** the version keeps its own limits, and each `max_increase` limit on a rate becomes a limit against what
the version before it had (1 + `max_increase` times the upper Clopper-Pearson bound of its rate). That supposes a world that
stands still: unlike a concurrent stable, the past cannot tell a change of the world from a change of the version. A stable
that breaches goes back to the newest version that is known good (`good_after`); without one a person is paged.

## Signals

| signal | kind | labels | positive class |
|---|---|---|---|
"""


def fields_of(module: ModuleType, name: str) -> Iterator[tuple[str, str, str, str]]:
    """Field, type, default and meaning of a struct, read from its source."""
    tree = ast.parse(inspect.getsource(module))
    struct = next(n for n in tree.body if isinstance(n, ast.ClassDef) and n.name == name)
    for node, after in zip(struct.body, [*struct.body[1:], None], strict=False):
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        meaning = ""
        if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
            meaning = " ".join(str(after.value.value).split())
        default = ast.unparse(node.value) if node.value is not None else "required"
        yield node.target.id, ast.unparse(node.annotation), shown(default), meaning


def shown(default: str) -> str:
    """A default as a person writes it."""
    if default.startswith("field(default_factory="):
        inner = default.removeprefix("field(default_factory=").removesuffix(")")
        return inner.removeprefix("lambda: ") if inner.startswith("lambda") else "see below"
    if default.startswith("Duration("):
        return f"{default[9:-1]} s"
    return default


def table(module: ModuleType, name: str, title: str) -> str:
    """One struct as a table."""
    lines = [f"## {title}", "", "| field | type | default | meaning |", "|---|---|---|---|"]
    for field, kind, default, meaning in fields_of(module, name):
        cells = [f"`{field}`", f"`{kind}`", f"`{default}`", meaning]
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def policies() -> str:
    """The text of docs/policies.md."""
    rows = [
        f"| `{signal}` | {'rate' if signal in RATES else 'value'}"
        f"{', more is better' if signal in HIGHER_IS_BETTER else ''} | "
        f"{'yes' if signal in NEEDS_LABELS else 'no'} | "
        f"{'yes' if signal in NEEDS_POSITIVE else 'no'} |"
        for signal in SIGNALS
    ]
    rows.append("| `feature:NAME` | value | no | no |")
    parts = [POLICIES_HEAD + "\n".join(rows) + "\n"]
    parts += [
        table(schemas.policies, name, title)
        for name, title in (
            ("Policy", "`policies[]`"),
            ("GuardSpec", "`policies[].guards[]`"),
            ("Promote", "`policies[].promote`"),
        )
    ]
    parts += [
        table(service.config, name, title)
        for name, title in (
            ("Config", "The file"),
            ("AuditSettings", "`audit`"),
            ("EngineSettings", "`engine`"),
            ("FleetSettings", "`fleet`"),
            ("HeartbeatSettings", "`heartbeat`"),
            ("HttpSettings", "`http`"),
            ("Token", "`http.tokens[]`"),
            ("IngestSettings", "`ingest`"),
            ("PrometheusSettings", "`prometheus`"),
            ("SigningSettings", "`signing`"),
        )
    ]
    return "\n".join(parts)


def metrics() -> str:
    """The text of docs/metrics.md."""
    lines = [
        "# Metrics",
        "",
        "Made from the list in `service/telemetry.py` by `docs/reference.py`;",
        "every process serves them at `/metrics`.",
        "",
        "| metric | type | meaning |",
        "|---|---|---|",
    ]
    for family in sorted(Metrics().registry.collect(), key=lambda f: f.name):
        name = family.name + ("_total" if family.type == "counter" else "")
        lines.append(f"| `{name}` | {family.type} | {family.documentation} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write, or check, both files."""
    stale = 0
    for name, text in (("policies.md", policies()), ("metrics.md", metrics())):
        file = DOCS / name
        if "--check" in sys.argv:
            if not file.exists() or file.read_text(encoding="utf-8") != text:
                print(f"docs/{name} is not what the code says; run python docs/reference.py")
                stale = 1
        else:
            file.write_text(text, encoding="utf-8")
    return stale


if __name__ == "__main__":
    sys.exit(main())
