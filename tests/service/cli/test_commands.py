"""The command line as a person meets it: words, JSON and exit codes, on a real embedded engine."""

from __future__ import annotations

import asyncio
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from service.app import plugins_of
from service.cli import main
from service.cli.base import app
from service.cli.templates import TEMPLATES
from service.clock import WallClock
from service.config import ConfigFaults, load, parse
from service.engine.local import LocalEngine
from service.storage.checkpoints import CheckpointStore
from service.storage.database import open_database
from service.storage.holds import HoldStore
from service.storage.incident_log import IncidentLog
from service.telemetry import Metrics
from tests.builders import an_entry
from tests.receiver import Answer, receiving

LINES = [
    {"type": "rollout", "model": "m", "stable": "a", "canary": None, "at": 1767225600000},
    {"type": "prediction", "prediction_id": "p1", "model": "m", "version": "a",
     "served_at": 1767225600000},
    {"type": "outcome", "prediction_id": "p1", "observed_at": 1767225601000, "label": 1},
]  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "rollbackd.yaml").write_text(TEMPLATES["binary"])
    return tmp_path


def run(*arguments: str) -> tuple[int, str]:
    """Run a command in this process; its exit code and standard output."""
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.stdout


async def read(home: Path, topic: str) -> list[bytes]:
    """What a topic of the embedded log holds."""
    store = CheckpointStore(open_database(f"sqlite:///{home}/other.db"))
    engine = LocalEngine(home / "rollbackd-data", WallClock(), store, Metrics())
    await engine.start()
    records = await engine.read(topic)
    await engine.stop()
    return [record.value for record in records]


@pytest.mark.parametrize("template", TEMPLATES)
def test_every_template_is_valid(template: str, tmp_path: Path) -> None:
    """If this breaks, the file that `init` writes is refused by `check`."""
    file = tmp_path / "rollbackd.yaml"
    assert 0 == run("init", "--template", template, "--config", str(file))[0]

    plugins_of(load(file))


def test_check_notes_what_a_named_detector_cannot_do_and_is_content(home: Path) -> None:
    """If this breaks, a policy that acts on DDM looks as sound as one with a guarantee."""
    (home / "rollbackd.yaml").write_text(
        "policies:\n- model: m\n  guards:\n"
        "  - {signal: error_rate, detector: ddm, action: rollback}\n"
        "  - {signal: error_rate, detector: hddmw}\n"
    )

    code, shown = run("check")
    as_json = json.loads(run("check", "--json")[1])

    assert 0 == code and as_json["ok"]
    for words in ("error_rate ddm can roll back", "advised against", "less than 0.42"):
        assert words in " ".join(shown.split())
        assert any(words in note for note in as_json["notes"])


def test_init_never_overwrites(home: Path) -> None:
    """If this breaks, a second `init` destroys somebody's policies."""
    with pytest.raises(RuntimeError, match="exists"):
        run("init")


def test_all_faults_are_shown_and_the_exit_code_is_2(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """If this breaks, faults are found one start after the other."""
    (home / "rollbackd.yaml").write_text("policies:\n- {model: m, alpha: 7, horizn: 3}\n")
    monkeypatch.setattr("sys.argv", ["rollbackd", "check"])

    with pytest.raises(SystemExit) as ended:
        main()

    shown = capsys.readouterr().err
    assert (2, True, True) == (
        ended.value.code, "policies[0].horizn" in shown, "policies[0].alpha" in shown,
    )  # fmt: skip


def test_plugin_faults_name_their_path() -> None:
    """If this breaks, a misspelt adapter field is found when the rollback fails."""
    config = parse("policies: [{model: m}]\nadapters: {prod: {kind: webhook, urll: x}}\n"
                   "alerts: [{kind: pigeon}]\n")  # fmt: skip

    with pytest.raises(ConfigFaults) as faults:
        plugins_of(config)

    assert ["adapters.prod", "alerts[0].kind"] == [
        line.split(":")[0] for line in faults.value.lines
    ]


@pytest.mark.parametrize("packed", [False, True])
async def test_send_takes_recordings_and_keeps_what_it_cannot_read(
    home: Path, packed: bool
) -> None:
    """If this breaks, lines of a recording vanish, or packed ones cannot be sent."""
    text = "\n".join([*map(json.dumps, LINES), "not json", '{"type": "prediction"}', ""]).encode()
    file = home / "recording.jsonl"
    file.write_bytes(gzip.compress(text) if packed else text)

    code, shown = await _in_thread("send", str(file), "--json")

    assert (0, {"read": 5, "sent": 3, "refused": 2}) == (code, json.loads(shown))
    assert [json.dumps(LINES[1]).encode()] == await read(home, "predictions")
    letters = [json.loads(value) for value in await read(home, "dead-letters")]
    assert [4, 5] == [letter["offset"] for letter in letters]


async def _in_thread(*arguments: str) -> tuple[int, str]:
    """Commands open loops of their own, which cannot be done inside a running one."""
    import asyncio

    return await asyncio.to_thread(run, *arguments)


async def test_a_hold_is_in_force_at_once_and_told_on_its_topic(home: Path) -> None:
    """If this breaks, the kill switch works only once somebody has read a topic."""
    code, _ = await _in_thread("hold", "--all", "--for", "2h", "--reason", "fire drill")
    config = load(home / "rollbackd.yaml")
    store = HoldStore(open_database(config.storage_url))
    now_ms = WallClock().now_ms()

    in_force = store.blocking("any-model", now_ms)
    await _in_thread("release", "--all")

    assert (0, "fire drill") == (code, in_force.reason if in_force else None)
    assert store.blocking("any-model", now_ms) is None
    told = [json.loads(value) for value in await read(home, "holds")]
    assert [True, False] == [hold["active"] for hold in told]


@pytest.mark.parametrize(
    "arguments",
    [
        ("hold", "--reason", "x"),
        ("hold", "m", "--all", "--reason", "x"),
        ("hold", "m", "--for", "soon", "--reason", "x"),
        ("run", "--role", "nobody"),
        ("init", "--template", "none"),
    ],
)
def test_bad_usage_ends_with_2(home: Path, arguments: tuple[str, ...]) -> None:
    """If this breaks, a script cannot tell a typo from a failure."""
    assert 2 == run(*arguments)[0]


def test_what_is_not_there_is_said_in_one_sentence(home: Path) -> None:
    """If this breaks, a typo in a model's name looks like health."""
    for arguments in (("status", "nobody"), ("incidents", "abc"), ("approve", "abc"),
                      ("rollback", "nobody", "--reason", "x")):  # fmt: skip
        with pytest.raises(RuntimeError, match="no "):
            run(*arguments)


def test_every_command_of_the_contract_is_there() -> None:
    """If this breaks, a documented command is missing."""
    commands = set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
    expected = {"demo", "run", "init", "check", "topics", "send", "status", "incidents", "hold",
                "release", "approve", "reject", "rollback", "promote", "schema",
                "replay", "plan"}  # fmt: skip

    assert expected <= commands


def test_schema_writes_documents(tmp_path: Path) -> None:
    """If this breaks, producers cannot check their events against our schemas."""
    code, shown = run("schema", "--out", str(tmp_path / "out"), "--json")

    files: list[Any] = json.loads(shown)
    assert (0, True) == (code, any("asyncapi" in file for file in files))


def test_the_record_is_checked_and_tampering_is_named(home: Path) -> None:
    """If this breaks, an auditor cannot tell an honest incident log from an edited one."""
    database = open_database(f"sqlite:///{home}/rollbackd-data/incidents.db")
    log = IncidentLog(database)
    log.add([an_entry(kind="opened"), an_entry(text="two"), an_entry(text="three")])

    before, told = run("incidents", "verify", "--json")
    with database.begin() as connection:
        connection.exec_driver_sql("UPDATE incident_entries SET entry = '{}' WHERE sequence = 2")
    after, said = run("incidents", "verify")

    assert (0, {"entries": 3, "anchors": 0, "vouched": 0, "intact": True, "faults": []}) == (
        before, json.loads(told)
    )  # fmt: skip
    assert 1 == after
    assert "entry 2: its content or its place is not what was recorded" in said
    assert "NOT INTACT" in said


@pytest.mark.parametrize("suffix", ["html", "md", "json"])
def test_a_post_mortem_is_written(home: Path, suffix: str) -> None:
    """If this breaks, people write the report by hand at three in the morning."""
    log = IncidentLog(open_database(f"sqlite:///{home}/rollbackd-data/incidents.db"))
    log.add([an_entry(kind="opened", text="errors rose")])
    incident = an_entry().incident_id

    assert 0 == run("incidents", "report", incident[:8], "--out", f"report.{suffix}")[0]
    assert 2 == run("incidents", "report", incident[:8], "--out", "report.pdf")[0]

    assert "errors rose" in (home / f"report.{suffix}").read_text()


async def test_every_endpoint_is_tried(home: Path) -> None:
    """If this breaks, a wrong chat address is found out during the first real incident."""
    async with receiving() as good, receiving(Answer(404)) as bad:
        (home / "rollbackd.yaml").write_text(
            "policies: [{model: m, guards: [{signal: error_rate, max: 0.05}]}]\n"
            f"alerts: [{{kind: slack, url: {good.url}}}, {{kind: teams, url: {bad.url}}}]\n"
        )
        code, told = await asyncio.to_thread(run, "alerts", "test", "--json")

    answers = json.loads(told)
    assert 1 == code
    assert [None, "teams answered 404"] == list(answers.values())
    assert b"a test message" in good.got[0].body


def test_check_says_which_steps_of_a_promotion_will_not_happen(home: Path) -> None:
    """If this breaks, a team waits for a promotion that nothing carries out."""
    edge = "{kind: mlflow, url: 'http://127.0.0.1:5000', name: m, versions: {v1: '1', v2: '2'}}"
    (home / "rollbackd.yaml").write_text(
        f"adapters: {{edge: {edge}}}\n"
        "policies: [{model: m, adapter: edge, guards: [{signal: error_rate, max: 0.05}],"
        " promote: {steps: [0.1, 1.0]}}]\n"
    )
    code, told = run("check")

    assert 0 == code
    assert "the policy only observes, so steps are said and not carried out" in told
    assert "edge cannot shift; such steps are refused there" in told
