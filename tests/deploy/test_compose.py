"""docker-compose.yml and its configuration agree with each other and with the safety rules.

There need not be a Docker engine where this runs: files are read, and nothing is started.
"""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from service.config import Config, load

ROOT = Path(__file__).parents[2]
ROLES = ["ingest", "watch", "act", "record", "alert", "web"]


def services() -> dict[str, dict[str, Any]]:
    read: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
    return read["services"]


def drawn_secrets(folder: Path) -> Path:
    """Run secrets.sh in a folder of ours; give the folder that it made."""
    shutil.copy(ROOT / "deploy" / "secrets.sh", folder / "secrets.sh")
    subprocess.run(["bash", folder / "secrets.sh"], check=True, capture_output=True)
    return folder / "secrets"


def test_each_role_is_one_process() -> None:
    """If this breaks, a role that nobody runs stops the way from a prediction to a rollback."""
    run = [name for name, service in services().items() if "--role" in service.get("command", [])]

    assert sorted(ROLES) == sorted(run)
    for role in run:
        assert ["run", "--role", role] == services()[role]["command"][:3]


def test_configuration_is_accepted_with_the_drawn_secrets(tmp_path: Path) -> None:
    """If this breaks, every container of the compose file ends at its start."""
    secrets = drawn_secrets(tmp_path)
    text = (ROOT / "deploy" / "rollbackd.yaml").read_text()
    (tmp_path / "rollbackd.yaml").write_text(text.replace("/run/secrets", str(secrets)))

    config: Config = load(tmp_path / "rollbackd.yaml")

    assert "postgresql" == config.storage_url.split(":")[0]
    assert ["viewer", "operator", "producer"] == [token.role for token in config.http.tokens]


def test_secrets_are_kept_when_drawn_again(tmp_path: Path) -> None:
    """If this breaks, a second `deploy/secrets.sh` locks everyone out of their own database."""
    before = {path.name: path.read_bytes() for path in drawn_secrets(tmp_path).iterdir()}
    after = {path.name: path.read_bytes() for path in drawn_secrets(tmp_path).iterdir()}

    assert before == after
    assert all(len(content) > 32 for content in before.values())


def test_every_role_gets_the_secrets_that_the_configuration_reads() -> None:
    """If this breaks, one role cannot read its configuration, or all can sign commands."""
    text = (ROOT / "deploy" / "rollbackd.yaml").read_text()
    named = set(re.findall(r"^[^#\n]*/run/secrets/(\w+)", text, re.MULTILINE))
    for role in ROLES:
        signing = {"signing_key"} if role == "watch" else set()
        assert named - {"signing_key"} | signing == set(services()[role]["secrets"]), role


def test_no_container_has_more_power_than_it_needs() -> None:
    """If this breaks, whoever breaks into one container owns more than that container."""
    for name, service in services().items():
        assert ["ALL"] == service["cap_drop"], name
        assert ["no-new-privileges:true"] == service["security_opt"], name
        assert service["read_only"] is (name != "kafka"), name
        assert "privileged" not in service, name
        if service.get("image") == "rollbackd:local":
            assert "10001:10001" == service["user"], name
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), name
