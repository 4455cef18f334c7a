"""`replay` as a person meets it: files, pipes, bytes, exit codes; and nothing is touched."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.service.cli.test_commands import run
from tests.service.replay.recordings import POLICY, packed, traffic


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A bad release as a file, and settings whose engine and storage nobody can reach."""
    monkeypatch.chdir(tmp_path)
    beyond = "engine: kafka://127.0.0.1:1\nstorage: postgresql://nobody@127.0.0.1:1/none\n"
    (tmp_path / "rollbackd.yaml").write_text(beyond + POLICY)
    (tmp_path / "bad.jsonl").write_bytes(b"".join(packed(traffic(canary_fails=0.4, seconds=60))))
    return tmp_path


def parsed(shown: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in shown.splitlines()]


def test_same_input_same_bytes_whatever_the_engine(home: Path) -> None:
    """If this breaks, replay needs a broker, leaves traces, or cannot be compared with itself."""
    first, again = run("replay", "bad.jsonl"), run("replay", "bad.jsonl")

    assert first == again
    assert 0 == first[0]
    lines = parsed(first[1])
    assert ["summary"] == list(lines[-1])
    assert {"verdict", "breach", "command"} == {line["kind"] for line in lines[:-1]}
    assert all({"kind", "at", "line", "model", "version"} <= line.keys() for line in lines[:-1])
    assert {"bad.jsonl", "rollbackd.yaml"} == {file.name for file in home.iterdir()}


def test_the_summary_has_the_fields_of_the_contract(home: Path) -> None:
    """If this breaks, scripts that read the summary fail."""
    summary = parsed(run("replay", "bad.jsonl")[1])[-1]["summary"]

    assert ["read", "accepted", "refused", "duplicates", "corrections", "models"] == list(summary)
    model = summary["models"]["credit-risk"]
    assert (["stable", "canary", "versions"], "v41", "v42") == (
        list(model), model["stable"], model["canary"],
    )  # fmt: skip
    assert ["predictions", "outcomes", "unlabelled", "coverage", "verdict", "first_breach_line",
            "commands"] == list(model["versions"]["v42"])  # fmt: skip
    assert 1 == model["versions"]["v42"]["commands"]


PROGRAM = [sys.executable, "-c", "from service.cli import main; main()", "replay"]


def piped(home: Path, data: bytes, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run the command in a process of its own with this on its standard input."""
    root = str(Path(__file__).parents[3])
    return subprocess.run(
        [*PROGRAM, *arguments], input=data, capture_output=True, check=False, cwd=home,
        env=dict(os.environ) | {"PYTHONPATH": root}, timeout=60,
    )  # fmt: skip


def test_packed_piped_and_slow_give_the_same(home: Path) -> None:
    """If this breaks, a recording has to be unpacked, or may not be piped."""
    data = (home / "bad.jsonl").read_bytes()
    (home / "bad.jsonl.gz").write_bytes(gzip.compress(data))
    expected = run("replay", "bad.jsonl")[1]

    assert expected == run("replay", "bad.jsonl.gz")[1]
    assert expected == run("replay", "bad.jsonl", "--speed", "4000")[1]
    for given in (data, gzip.compress(data)):
        done = piped(home, given, "-")
        assert (0, expected, b"") == (done.returncode, done.stdout.decode(), done.stderr)


def test_bad_lines_are_counted_and_told_on_standard_error(home: Path) -> None:
    """If this breaks, half a recording is ignored without a word."""
    done = piped(home, b"not json\n\n{}\nnot json\n", "-")

    [last] = parsed(done.stdout.decode())
    counts = [last["summary"][name] for name in ("read", "refused", "accepted")]
    assert (0, [3, 3, 0]) == (done.returncode, counts)
    assert b"Refused 3 of 3 events" in done.stderr
    assert b"2 times" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["none.jsonl"], 1, b"none.jsonl"),
        (["cut.gz"], 1, b"cut.gz cannot be unpacked"),
        (["bad.jsonl", "--speed", "0"], 2, b"--speed"),
        (["-", "-"], 2, b"only once"),
        (["bad.jsonl", "--config", "none.yaml"], 2, b"none.yaml"),
        (["bad.jsonl", "--policy", "wrong.yaml"], 2, b"policies[0].alpha"),
        (["bad.jsonl", "--policy", "unknown.yaml"], 2, b"policies[0].guards[0].detector"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    home: Path, arguments: list[str], code: int, words: bytes
) -> None:
    """If this breaks, a typo ends in a traceback."""
    (home / "cut.gz").write_bytes(gzip.compress((home / "bad.jsonl").read_bytes())[:2000])
    (home / "wrong.yaml").write_text("policies: [{model: m, alpha: 7}]")
    guard = "{signal: score, detector: crystal_ball}"
    (home / "unknown.yaml").write_text(f"policies: [{{model: m, guards: [{guard}]}}]")

    done = piped(home, b"", *arguments)

    assert (code, True, False) == (done.returncode, words in done.stderr, b"Trace" in done.stderr)


def test_policies_are_compared_on_one_history(home: Path) -> None:
    """If this breaks, nobody can see which of two policies would have been quicker."""
    (home / "loose.yaml").write_text(POLICY.replace("max: 0.05", "max: 0.9"))
    given = ("replay", "bad.jsonl", "--policy", "rollbackd.yaml", "--policy", "loose.yaml")

    found = json.loads(run(*given, "--json")[1])
    sides = {(side["policy"], side["version"]): side for side in found}

    strict, loose = sides["rollbackd.yaml", "v42"], sides["loose.yaml", "v42"]
    assert ("breach", "rollback (enforce)") == (strict["verdict"], strict["command"])
    assert strict["command_line"] == strict["breach_line"]
    assert (None, None) == (loose["breach_line"], loose["command"])
    assert "error_rate max=0.05" in run(*given)[1]


def test_a_comparison_says_who_is_sooner_and_what_was_withheld(home: Path) -> None:
    """If this breaks, the table shows times to subtract by hand, or hides why nothing is done."""
    (home / "slow.yaml").write_text(POLICY.replace("max: 0.05", "max: 0.3"))
    alarm = POLICY.replace("max: 0.05}", "max: 0.05, action: alert}")
    (home / "alarm.yaml").write_text(alarm)
    given = ("replay", "bad.jsonl", "--policy", "rollbackd.yaml", "--policy", "slow.yaml",
             "--policy", "alarm.yaml")  # fmt: skip

    found = [side for side in json.loads(run(*given, "--json")[1]) if side["version"] == "v42"]
    shown = run(*given)[1]

    now, slow, alarm_only = found
    assert ["rollbackd.yaml", "slow.yaml", "alarm.yaml"] == [side["policy"] for side in found]
    assert (None, None) == (now["sooner_s"], alarm_only["sooner_s"])
    assert (now["command_at"] - slow["command_at"]) / 1000 == slow["sooner_s"] < 0
    assert (["error_rate max=0.05"], 0) == (alarm_only["breached"], alarm_only["commands"])
    assert f"{-slow['sooner_s']:.1f} s later" in shown
    assert ("alert", None) == (alarm_only["withheld"], slow["withheld"])
    assert "nothing (alert)" in shown
    assert 1 == shown.count("v42")


def test_one_other_policy_replaces_the_settings(home: Path) -> None:
    """If this breaks, a draft cannot be tried without touching what is in force."""
    (home / "loose.yaml").write_text(POLICY.replace("max: 0.05", "max: 0.9"))

    lines = parsed(run("replay", "bad.jsonl", "--policy", "loose.yaml")[1])

    assert [] == [line for line in lines[:-1] if line["kind"] == "command"]
