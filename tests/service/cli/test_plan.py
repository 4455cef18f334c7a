"""`plan` as a person meets it: table, JSON, picture, refusals."""

from __future__ import annotations

import doctest
import json
import xml.etree.ElementTree as ET
from itertools import pairwise
from pathlib import Path

import pytest

import service.cli.plan
from service.cli.chart import Axis, Line, draw
from tests.service.cli.test_commands import run

SETTINGS = """\
policies:
  - model: fraud
    positive: 1
    horizon: 1h
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: false_positive_rate, max_increase: 0.15}
      - {signal: score, detector: adwin}
    promote: {margin: 0.5}
  - model: "*"
    guards: [{signal: error_rate, max: 0.01}]
"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollbackd.yaml").write_text(SETTINGS)
    return tmp_path


def test_json_has_each_guard_and_gate_of_the_models_policy() -> None:
    """If this breaks, a pipeline cannot ask how long a canary must bake."""
    code, shown = run("plan", "fraud", "--per-s", "50", "--share", "0.5", "--worse", "3", "--json")

    answer = json.loads(shown)
    (policy,) = answer["policies"]
    guards = {guard["guard"]: guard for guard in policy["guards"]}
    assert (0, "fraud", True, 50.0) == (
        code, policy["model"], policy["gated"], answer["traffic"]["per_s"],
    )  # fmt: skip
    assert {
        "error_rate max=0.05", "false_positive_rate max_increase=0.15", "score adwin",
        "promote error_rate", "promote false_positive_rate",
    } == set(guards)  # fmt: skip
    (size,) = guards["false_positive_rate max_increase=0.15"]["sizes"]
    assert size["requests"] / 50 + 3600 == pytest.approx(size["time_s"])
    assert 206 == round(guards["promote error_rate"]["proof"]["bad"])


def test_a_split_of_alpha_over_slices_is_shown_by_plan_and_check(home: Path) -> None:
    """If this breaks, nobody sees that watching slices makes each of them slower."""
    (home / "rollbackd.yaml").write_text(
        "policies:\n- model: m\n  guards: [{signal: error_rate, max: 0.05, segment: country}]\n"
    )

    _, planned = run("plan", "m")
    _, checked = run("check", "--json")

    told = " ".join(planned.split())
    assert "error_rate max=0.05 [country] has alpha 0.005 of the policy's 0.01." in told
    assert "error_rate max=0.05 [country=…] has alpha 0.000313 of the policy's 0.01." in told
    note = next(n for n in json.loads(checked)["notes"] if "[country]" in n)
    assert note.endswith(
        "all rows together have alpha 0.005, each of the first 16 values of country 0.0003125; "
        "together 0.01"
    )


def test_words_say_what_the_figures_assume() -> None:
    """If this breaks, a figure is believed for traffic that it does not speak of."""
    code, shown = run("plan", "--per-s", "50")

    assert 0 == code
    for words in (
        "fraud: canary has 10%, 50 requests/s", "never: within or near its limit",
        "requests whose label is negative", "1 h old (the horizon); their times include that wait",
        "adwin does not bound", "This policy has no promote block",
        "A proof on labels needs them for 90% of requests.",
    ):  # fmt: skip
        assert words in shown


def test_a_picture_is_an_svg_with_every_planned_guard(home: Path) -> None:
    """If this breaks, the picture cannot be opened, or a guard is missing from it."""
    assert 0 == run("plan", "fraud", "--plot", "plan.svg")[0]

    root = ET.fromstring((home / "plan.svg").read_text())  # noqa: S314  our own
    texts = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert 3 == len(list(root.iter("{http://www.w3.org/2000/svg}polyline")))
    assert {"error_rate max=0.05", "false_positive_rate max_increase=0.15"} <= set(texts)


@pytest.mark.parametrize(
    "arguments",
    [
        ("--plot", "plan.png"), ("--share", "1"), ("--base-rate", "0"), ("--per-s", "0"),
        ("--worse", "1"), ("--worse", "nan"), ("--plot", "plan.svg"),
    ],
)  # fmt: skip
def test_bad_usage_ends_with_2_and_writes_nothing(home: Path, arguments: tuple[str, ...]) -> None:
    """If this breaks, a typing error gives figures for something else."""
    assert 2 == run("plan", *arguments)[0]
    assert ["rollbackd.yaml"] == [file.name for file in home.iterdir()]


def test_figures_are_said_with_two_digits_and_in_a_fitting_unit() -> None:
    """If this breaks, the table pretends to know more than it does."""
    results = doctest.testmod(service.cli.plan)

    assert (0, True) == (results.failed, results.attempted > 0)


def test_names_in_a_picture_never_lie_on_each_other_and_are_escaped() -> None:
    """If this breaks, a picture cannot be read, or a guard's name breaks it."""
    lines = [Line(f"<guard> & {n}", [(1, 100 + n), (10, 50 + n / 100)]) for n in range(9)]

    root = ET.fromstring(draw("t", Axis("x", 1, 10), Axis("y", 10, 1000), lines))  # noqa: S314  our own

    names = [
        e for e in root.iter("{http://www.w3.org/2000/svg}text") if "<guard>" in (e.text or "")
    ]
    heights = sorted(float(e.get("y", "0")) for e in names)
    assert 9 == len(heights)
    assert all(b - a >= 15.9 for a, b in pairwise(heights))
    with pytest.raises(ValueError, match="nothing to draw"):
        draw("t", Axis("x", 1, 10), Axis("y", 10, 1000), [])
