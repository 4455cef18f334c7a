"""`rollbackd schema`: files that others read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from schemas.documents import MESSAGES
from service.cli.templates import TEMPLATES
from service.documents import settings_schema, write
from tests.json_schema import faults
from tests.service.test_config import CONTRACT

DEPLOYED = Path(__file__).parents[2] / "deploy" / "rollbackd.yaml"
ACCEPTED = {
    "contract": CONTRACT,
    "deployed": DEPLOYED.read_text(),
    **TEMPLATES,
    "engine as mapping": "{policies: [{model: m, horizon: 7}], engine: {url: 'local:x'}}",
    "token by file": "{policies: [], http: {tokens: [{name: a, role: admin, token_file: f}]}}",
}


def settings_faults(text: str) -> list[str]:
    schema = settings_schema()
    return faults(yaml.safe_load(text), schema, schema)


@pytest.mark.parametrize("name", ACCEPTED)
def test_settings_that_are_accepted_fit_the_schema(name: str) -> None:
    """If this breaks, an editor marks faults in a file that works."""
    assert [] == settings_faults(ACCEPTED[name])


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{}", "$"), ("{policies: [{}]}", "$.policies.0"), ("{policies: [], x: 1}", "$.x"),
        ("{policies: [], digest: x}", "$.digest"), ("{policies: [], log_level: loud}", "$.log_lev"),
        ("{policies: [{model: m, horizon: soon}]}", "$.policies.0.horizon"),
        ("{policies: [{model: m, guards: [{signal: error, mx: 1}]}]}", "$.policies.0.guards.0"),
        ("{policies: [], http: {tokens: [{name: a, role: admin}]}}", "$.http.tokens.0"),
        ("{policies: [], engine: 5}", "$.engine"),
    ],
)  # fmt: skip
def test_settings_that_are_refused_do_not_fit(text: str, path: str) -> None:
    """If this breaks, an editor shows nothing until the daemon refuses to start."""
    assert any(line.startswith(path) for line in settings_faults(text))


def test_every_document_is_written_as_json(tmp_path: Path) -> None:
    """If this breaks, `rollbackd schema` leaves a document out."""
    written = write(tmp_path / "made" / "here")

    names = {*(f"{name}.schema.json" for name in MESSAGES), "rollbackd.yaml.schema.json"}
    assert names | {"asyncapi.json"} == {path.name for path in written}
    documents: list[Any] = [json.loads(path.read_text()) for path in written]
    assert all("$schema" in each or "asyncapi" in each for each in documents)
    assert written == write(tmp_path / "made" / "here")
