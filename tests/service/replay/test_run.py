"""A whole recording: the same bytes however it is read, the line that decided, the summary."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import pytest

from tests.service.replay.recordings import (
    POLICY,
    START_MS,
    Result,
    a_prediction,
    a_rollout,
    an_outcome,
    packed,
    replayed,
    restless,
    traffic,
)

OTHER = POLICY.replace("  - model: credit-risk", "  - model: '*'")


@cache
def a_bad_release() -> tuple[bytes, ...]:
    """Two models, a canary that errs, silence, a promotion plan, odd lines."""
    lines = traffic(canary_wrong=0.5, seconds=60)
    other = [{**line, "model": "fraud"} if "model" in line else line for line in traffic(seed=8)]
    for line in other:
        if "prediction_id" in line:
            line["prediction_id"] += "-fraud"
    mixed = [line for pair in zip(lines, other, strict=False) for line in pair]
    mixed += [
        a_rollout(70.0, canary=None, weight=None),
        a_rollout(200.0, canary="v43", weight=0.1),
        a_prediction("late", 100.0, "v41"),
        *(a_prediction(f"x{n}", 201.0 + n, "v43", error="boom") for n in range(300)),
    ]
    return (*packed(mixed), b"\n", b"not json\n", *packed(lines[:50]))


def as_bytes(result: Result) -> bytes:
    return b"\n".join(msgspec.json.encode(line) for line in [*result.lines, result.summary])


@pytest.mark.parametrize("window", [1, 7, 1000])
def test_how_a_recording_is_cut_changes_nothing(window: int) -> None:
    """If this breaks, a replay says something else from a pipe than from a file."""
    lines = list(a_bad_release())
    expected = replayed(lines, OTHER)

    assert {"verdict", "breach", "command"} == {line["kind"] for line in expected.lines}
    assert as_bytes(expected) == as_bytes(replayed(lines, OTHER, window))


RESTLESS = """\
policies:
  - model: "m*"
    mode: enforce
    positive: 1
    horizon: 5s
    max_silence: 3s
    cooldown: 4s
    min_rows: 5
    guards:
      - {signal: error_rate, max: 0.05}
      - {signal: latency_ms, quantile: 0.9, max: 300}
      - {signal: accuracy, min: 0.90}
      - {signal: absolute_error, max: 0.5, cap: 2}
      - {signal: false_positive_rate, max_increase: 0.15}
      - {signal: "feature:x", detector: page_hinkley, action: alert}
  - model: "n*"
    mode: propose
    guards: [{signal: error_rate, max: 0.2}]
"""


@pytest.mark.parametrize("seed", range(6))
def test_nor_does_it_where_everything_happens_at_once(seed: int) -> None:
    """If this breaks, an odd recording gives another result when it is read in other pieces."""
    lines = packed(restless(seed))
    expected = replayed(lines, RESTLESS)

    for window in (2, 50):
        assert as_bytes(expected) == as_bytes(replayed(lines, RESTLESS, window))


def test_thousands_that_mature_on_one_line_are_decided_by_it() -> None:
    """If this breaks, a jump of time ends the replay, or a breach names no line."""
    lines = [a_rollout()]
    for number in range(12_000):
        lines.append(
            a_prediction(f"w{number}", number / 1e4, "v42", prediction=int(number % 4 > 0))
        )
        lines.append(an_outcome(f"w{number}", 2.0, 1))
    lines.append(a_prediction("jump", 60.0))

    [breach] = replayed(packed(lines)).of("breach")

    assert (len(lines), len(lines)) == (breach["line"], breach["position"]["offset"])


def test_lines_come_in_order_and_the_summary_agrees_with_them() -> None:
    """If this breaks, scripts that read the result line by line miss the first breach."""
    result = replayed(list(a_bad_release()), OTHER)

    numbers = [line["line"] for line in result.lines]
    assert sorted(numbers) == numbers
    for model, found in result.summary["models"].items():
        for version, counts in found["versions"].items():
            own = [line for line in result.lines
                   if (line["model"], line["version"]) == (model, version)]  # fmt: skip
            breaches = [line["line"] for line in own if line["kind"] == "breach"]
            commands = [line for line in own if line["kind"] == "command"]
            assert (min(breaches, default=None), len(commands)) == (
                counts["first_breach_line"], counts["commands"],
            )  # fmt: skip


def test_the_sum_of_what_was_read_holds() -> None:
    """If this breaks, lines of a recording vanish from the account."""
    events = [
        a_prediction("a", 0), a_prediction("a", 1), a_prediction("b", 2),
        an_outcome("a", 3, 1), an_outcome("a", 4, 1), an_outcome("a", 5, 0),
        an_outcome("c", 5, 0), an_outcome("c", 5, 0), an_outcome("c", 6, 1), a_prediction("c", 6),
        a_prediction("old", -10**9), {"type": "prediction"},
    ]  # fmt: skip
    lines = [*packed(events), b"\n", b"{}\n", b"[1]\n", b"   \n"]

    summary = replayed(lines).summary

    assert (14, 7, 4, 3, 2) == tuple(
        summary[name] for name in ("read", "accepted", "refused", "duplicates", "corrections")
    )
    counts = summary["models"]["credit-risk"]["versions"]["v41"]
    assert (3, 2) == (counts["predictions"], counts["outcomes"])


def a_run_of_wrong(extra: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Wrong predictions with labels, all within a second, then what moves time."""
    lines = [a_rollout()]
    for number in range(60):
        key = f"w{number}"
        lines.append(a_prediction(key, number / 100, "v42", prediction=0))
        lines.append(an_outcome(key, 0.9, 1))
    return [*lines, a_prediction("s", 1.0, "v41", prediction=1), *extra]


def test_a_matured_breach_names_the_line_that_moved_the_watermark() -> None:
    """If this breaks, nobody finds the event by which labels came of age."""
    before = a_run_of_wrong([])
    lines = [*before, a_prediction("t1", 29.9, "v41"), a_prediction("t2", 30.7, "v41")]

    [breach] = replayed(packed(lines)).of("breach")

    assert (len(lines), START_MS + 30_700, "accuracy min=0.9") == (
        breach["line"], breach["at"], breach["guard"],
    )  # fmt: skip
    assert {"topic": "recording", "partition": 0, "offset": len(lines)} == breach["position"]


def test_at_the_end_of_a_recording_time_stands_still() -> None:
    """If this breaks, labels count that had not their time, and a young version is accused."""
    result = replayed(packed(a_run_of_wrong([])))

    assert [] == result.of("breach")
    counts = result.summary["models"]["credit-risk"]["versions"]["v42"]
    assert (60, 60, 0, 1.0) == tuple(
        counts[name] for name in ("predictions", "outcomes", "unlabelled", "coverage")
    )


def test_the_deciding_line_is_the_one_whose_prefix_first_decides() -> None:
    """If this breaks, the line of a breach or a verdict is one of many near it."""
    lines = packed(traffic(canary_fails=0.4, seconds=40))
    whole = replayed(lines)
    breach = whole.of("breach")[0]
    passed = next(line for line in whole.of("verdict") if line["verdict"] == "pass")

    for found in (breach, passed):
        kind, value, at = found["kind"], found.get("verdict"), found["line"]
        same = [replayed(lines[:end]) for end in (at - 1, at)]
        assert [False, True] == [
            any((line["kind"], line.get("verdict"), line["version"], line["line"])
                == (kind, value, found["version"], at) for line in one.lines)
            for one in same
        ]  # fmt: skip


def test_when_stable_gets_worse_too_nothing_is_ordered() -> None:
    """If this breaks, an upstream fault makes replay promise rollbacks that live refuses."""
    lines = packed(traffic(stable_fails=0.5, canary_fails=0.5, seconds=60))

    result = replayed(lines)

    assert "both_moved" in {breach["reason"] for breach in result.of("breach")}
    assert [] == [c for c in result.of("command") if c["from_version"] == "v42"]


@pytest.mark.parametrize("mode", ["observe", "propose", "enforce"])
def test_a_command_is_shown_in_every_mode_and_says_which(mode: str) -> None:
    """If this breaks, a team that only observes cannot see what enforcing would have done."""
    lines = packed(traffic(canary_fails=0.5, seconds=60))

    [command] = replayed(lines, POLICY.replace("enforce", mode)).of("command")

    assert (mode, "rollback", "v42", "v41") == (
        command["mode"], command["action"], command["from_version"], command["to_version"],
    )  # fmt: skip


def test_a_second_bad_canary_waits_for_the_cool_down() -> None:
    """If this breaks, replay orders rollbacks that live would withhold."""
    first = [a_rollout(), *(a_prediction(f"a{n}", n / 10, "v42", error="boom") for n in range(30))]
    second = [
        a_rollout(4.0, canary="v43"),
        *(a_prediction(f"b{n}", 4 + n / 10, "v43", error="boom") for n in range(200)),
    ]
    stable = a_prediction("s", 0.0)

    commands = replayed(packed([stable, *first, *second])).of("command")

    assert ["v42", "v43"] == [command["from_version"] for command in commands]
    assert 10_000 <= commands[1]["at"] - commands[0]["at"] < 10_200


def test_a_rollout_waits_for_its_time() -> None:
    """If this breaks, a plan that was announced early judges yesterday's traffic."""
    lines = [
        a_rollout(canary=None, weight=None), a_prediction("a", 1.0), a_rollout(10.0),
        a_prediction("b", 5.0), a_prediction("c", 10.0), a_prediction("d", 11.0, "v42"),
    ]  # fmt: skip

    canary = [line for line in replayed(packed(lines)).lines if line["version"] == "v42"]

    assert (5, START_MS + 10_000) == (canary[0]["line"], canary[0]["at"])


def test_silence_is_found_on_the_line_that_reveals_it() -> None:
    """If this breaks, a canary that stopped looks well until somebody happens to look."""
    lines = [a_rollout(), a_prediction("a", 0.0), a_prediction("b", 0.5, "v42")]
    lines += [a_prediction(f"s{n}", 1.0 + n) for n in range(30)]
    lines += [a_prediction("back", 32.0, "v42")]

    said = [line for line in replayed(packed(lines)).of("verdict") if line["version"] == "v42"]

    # Line 24 carries second 21, the first more than 20 s after second 0.5.
    assert [("no_data", 1), ("too_few", 3), ("stale", 24), ("too_few", 34)] == [
        (line["reason"], line["line"]) for line in said
    ]


def test_without_a_rollout_event_roles_are_inferred_and_nothing_is_ordered() -> None:
    """If this breaks, replay acts on a guess that live does not act on."""
    lines = packed([line for line in traffic(canary_fails=0.5) if line["type"] != "rollout"])

    result = replayed(lines)

    assert ("v41", "v42") == tuple(result.summary["models"]["credit-risk"][r]
                                   for r in ("stable", "canary"))  # fmt: skip
    assert ({"inferred"}, []) == ({b["roles"] for b in result.of("breach")}, result.of("command"))


def test_a_model_without_policy_is_counted_and_not_judged() -> None:
    """If this breaks, a typo in a policy's model makes traffic disappear."""
    lines = packed([a_prediction("a", 0.0) | {"model": "other"}])

    summary = replayed(lines).summary

    assert (1, "inconclusive") == tuple(
        summary["models"]["other"]["versions"]["v41"][name] for name in ("predictions", "verdict")
    )


def test_a_step_of_a_promotion_is_told_at_the_line_that_ended_its_bake() -> None:
    """If this breaks, a backtest shows rollbacks only, or steps at lines that decided nothing."""
    promote = "    promote: {steps: [0.2, 0.5], margin: 1.0, bake: 90s}\n"
    policy = "policies:\n  - model: credit-risk\n    guards: [{signal: error_rate, max: 0.5}]\n"
    lines = traffic(seconds=120, stable_fails=0.2, canary_fails=0.2)

    result = replayed(packed(lines), policy + promote)

    (command,) = result.of("command")
    assert ("shift", 0.5, "v42", "v41") == (
        command["action"], command["weight"], command["from_version"], command["to_version"],
    )  # fmt: skip
    baked_ms = START_MS + 90_000
    first = next(number for number, line in enumerate(lines, 1)
                 if line.get("served_at", line.get("observed_at", 0)) >= baked_ms)  # fmt: skip
    assert first == command["line"]
