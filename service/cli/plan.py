"""`plan`: how long harm stays unseen under a policy, and how long a healthy canary waits.

It reads the settings and connects to nothing. The figures come from `service/watch/forecast.py`;
here they are put into a table, JSON or a picture, with what they assume in words.
"""

from __future__ import annotations

from math import isfinite
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from rich import box
from rich.markup import escape
from rich.table import Table

from schemas.policies import Policy, policy_for
from service.app import detectors_known, plugins_of
from service.cli.base import DEFAULT_CONFIG, AsJson, ConfigFile, Failure, app, out, print_json
from service.cli.base import settings as settings_of
from service.cli.chart import Axis, Line, draw
from service.watch.forecast import Forecast, Traffic, forecast
from service.watch.prove import PROVE_COVERAGE

WORSE = [2.0, 3.0, 5.0]
SIZES = [float(x) for x in np.geomspace(1.05, 10, 40)]
"""Sizes of regression along a picture."""


@app.command()
def plan(
    model: Annotated[str | None, typer.Argument(help="Only this model's policy.")] = None,
    per_s: Annotated[float | None, typer.Option(help="Requests a second of the model.")] = None,
    share: Annotated[float, typer.Option(help="The canary's share of them.")] = 0.1,
    base_rate: Annotated[float, typer.Option(help="Bad share of a healthy version.")] = 0.02,
    worse: Annotated[list[float], typer.Option(help="Sizes of regression, times.")] = WORSE,
    plot: Annotated[Path | None, typer.Option(help="Write a picture: FILE.svg.")] = None,
    as_json: AsJson = False,
    config: ConfigFile = DEFAULT_CONFIG,
) -> None:
    """Tell how long until each guard catches a regression, and until a promotion is proven."""
    traffic = _traffic(per_s, share, base_rate)
    if unfit := [w for w in worse if not (isfinite(w) and w > 1)]:
        raise typer.BadParameter(f"--worse {unfit[0]:g}: expected how many times as bad, above 1")
    if plot is not None and plot.suffix.lower() != ".svg":
        raise typer.BadParameter(f"--plot {plot}: only SVG is drawn; name a file that ends in .svg")
    settings = settings_of(config)
    plugins_of(settings)
    registry, policies = detectors_known(), _policies(settings.policies, model)
    told = [(p, forecast(p, registry, traffic, sorted(set(worse)))) for p in policies]
    if plot is not None:
        if len(policies) > 1:
            raise typer.BadParameter(f"--plot {plot}: draws one policy; name its model as well")
        _plot(plot, policies[0], forecast(policies[0], registry, traffic, SIZES), traffic)
    if as_json:
        print_json({"traffic": traffic, "policies": [
            {"model": p.model, "alpha": p.alpha, "gated": p.promote is not None, "guards": lines}
            for p, lines in told
        ]})  # fmt: skip
        return
    for policy, lines in told:
        _show(policy, lines, traffic)
    if plot is not None:
        out.print(f"Wrote {plot}.", markup=False, highlight=False)


def _traffic(per_s: float | None, share: float, base_rate: float) -> Traffic:
    for name, value in (("--share", share), ("--base-rate", base_rate)):
        if not 0 < value < 1:
            raise typer.BadParameter(f"{name} {value:g}: expected a share above 0 and below 1")
    if per_s is not None and not (isfinite(per_s) and per_s > 0):
        raise typer.BadParameter(f"--per-s {per_s:g}: expected requests a second, above 0")
    return Traffic(share=share, base_rate=base_rate, per_s=per_s)


def _policies(policies: list[Policy], model: str | None) -> list[Policy]:
    if model is None:
        return policies
    found = policy_for(policies, model)
    if found is None:
        raise Failure(f"no policy names {model}; add one to the settings, or look for a typo.")
    return [found]


def _show(policy: Policy, lines: list[Forecast], traffic: Traffic) -> None:
    rate = f", {traffic.per_s:g} requests/s" if traffic.per_s is not None else ""
    out.print(
        f"[bold]{escape(policy.model)}[/bold]: canary has {traffic.share:.0%}{rate}, "
        f"{traffic.base_rate:.2%} bad when healthy", highlight=False,
    )  # fmt: skip
    table = Table(
        "guard", "regression", "caught after", "of them canary's", "in", box=box.SIMPLE_HEAD
    )
    for line in lines:
        for size in line.sizes:
            caught = (
                "never: within or near its limit"
                if size.requests is None
                else _count(size.requests)
            )
            table.add_row(
                escape(line.guard), f"{size.worse:g}×", caught, _count(size.canary_requests),
                _time(size.time_s),
            )  # fmt: skip
    out.print(table)
    proofs = Table("promotion", "margin", "bad requests", "proven after", "in", box=box.SIMPLE_HEAD)
    for line in lines:
        if (proof := line.proof) is not None:
            proofs.add_row(
                escape(line.signal), f"{proof.margin:.0%}", _count(proof.bad),
                _count(proof.requests), _time(proof.time_s),
            )  # fmt: skip
    if proofs.row_count:
        out.print(proofs)
    for sentence in _sentences(policy, lines, traffic):
        out.print(f"- {sentence}", markup=False, highlight=False)


def _sentences(policy: Policy, lines: list[Forecast], traffic: Traffic) -> list[str]:
    """What the figures assume, and what they do not say."""
    said = [
        "Caught: about half of the runs are sooner; counted from a canary that is bad from its "
        "first request. After a long healthy life it takes two to three times as many.",
        "Regression: how many times the base rate of bad requests; for a quantile, how many times "
        "as often as permitted it is exceeded; for a mean, how many times its limit.",
    ]
    kinds = {line.kind for line in lines}
    sliced = any("slice" in line.rows_of for line in lines)
    if "mean" in kinds:
        said.append("Means: losses are taken to be spread like waiting times; steadier ones are "
                    "caught sooner, rare huge ones later.")  # fmt: skip
    for line in lines:
        if sliced and line.alpha is not None:
            own = f"{line.alpha:.3g}"
            said.append(f"{line.guard} has alpha {own} of the policy's {policy.alpha:g}.")
        if line.rows_of != "requests" and line.proof is None:
            said.append(f"{line.guard} counts only {line.rows_of}; all requests are taken to be "
                        "such, so divide by their share.")  # fmt: skip
        if line.note:
            said.append(f"{line.guard}: {line.note}.")
    if any(line.wait_s for line in lines) and traffic.per_s is not None:
        said.append(f"Guards on labels count a request once it is {_time(policy.horizon)} old "
                    "(the horizon); their times include that wait.")  # fmt: skip
    if any(line.proof for line in lines):
        said.append("Proven: half of the equally good canaries need 0.5 to 0.75 of it, nine in ten "
                    "at most about twice.")  # fmt: skip
        if any(line.proof and line.wait_s for line in lines):
            said.append(f"A proof on labels needs them for {PROVE_COVERAGE:.0%} of requests.")
        if policy.promote is None:
            said.append("This policy has no promote block, so nothing has to be proven; the margin "
                        "is the default.")  # fmt: skip
    if traffic.per_s is None:
        said.append("Give --per-s to see times.")
    return said


def _count(number: float | None) -> str:
    """Two digits that count: more would pretend to know.

    >>> _count(13045.2), _count(7.4), _count(None)
    ('13,000', '8', '-')
    """
    if number is None:
        return "-"
    if number < 100:
        return f"{int(np.ceil(number))}"
    return f"{float(f'{number:.2g}'):,.0f}"


def _time(seconds: float | None) -> str:
    """Say a length of time in its largest fitting unit.

    >>> _time(42), _time(5400), _time(200000)
    ('42 s', '1.5 h', '2.3 d')
    """
    if seconds is None:
        return "-"
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{float(f'{seconds / size:.2g}'):,.10g} {unit}"
    return f"{max(1, round(seconds))} s"


def _plot(file: Path, policy: Policy, lines: list[Forecast], traffic: Traffic) -> None:
    drawn = [
        Line(line.guard, [(s.worse, s.requests) for s in line.sizes if s.requests is not None])
        for line in lines
    ]
    # Margin and base rate are the policy's, so that all gates wait equally long.
    if proof := next((line.proof for line in lines if line.proof is not None), None):
        ends = [(x, proof.requests) for x in (1.0, SIZES[-1])]
        drawn.append(Line(f"proven fit for promotion ({proof.margin:.0%})", ends, dashed=True))
    heights = [y for line in drawn for _, y in line.points]
    if not heights:
        raise Failure(f"no guard of {policy.model} can be planned, so there is nothing to draw.")
    title = (
        f"{policy.model}: requests until a regression is caught (canary has {traffic.share:.0%})"
    )
    picture = draw(
        title, Axis("size of the regression, times", 1, SIZES[-1]),
        Axis("requests, both versions", min(heights) / 1.5, max(heights) * 1.5), drawn,
    )  # fmt: skip
    file.write_text(picture, encoding="utf-8")
