"""Alert rules and the Grafana dashboard, against a real Prometheus and its promtool."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import yaml

from service.telemetry import Metrics
from tests.real import program

ROOT = Path(__file__).parents[2]
RULES = ROOT / "deploy" / "alerts.yml"
BOARD = ROOT / "deploy" / "grafana" / "rollbackd.json"

pytestmark = pytest.mark.prometheus


def alerts() -> list[dict[str, Any]]:
    """The rules as written."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[str]:
    """Every expression of the dashboard."""
    for panel in json.loads(BOARD.read_text())["panels"]:
        for target in panel["targets"]:
            yield target["expr"]


def told() -> set[str]:
    """Names of all series that a process serves."""
    found = set()
    for family in Metrics().registry.collect():
        names = {f"{family.name}_total"} if family.type == "counter" else {family.name}
        if family.type == "histogram":
            names = {f"{family.name}_{part}" for part in ("bucket", "sum", "count")}
        found |= names
    return found


def test_rules_and_dashboard_only_name_metrics_that_exist() -> None:
    """If this breaks, an alert can never fire, or a panel is empty for ever."""
    written = [rule["expr"] for rule in alerts()] + list(queries())

    named = {name for text in written for name in re.findall(r"rollbackd_[a-z_]+", text)}

    assert set() == named - told()


def test_every_alert_has_a_runbook() -> None:
    """If this breaks, someone is woken by words that no page explains."""
    runbooks = (ROOT / "docs" / "operations.md").read_text()

    assert [] == [rule["alert"] for rule in alerts() if rule["alert"] not in runbooks]


RULE_TESTS = """
rule_files: [{rules}]
evaluation_interval: 15s
tests:
  - interval: 15s
    input_series:
      - {{series: 'rollbackd_lag_seconds{{role="watch", stage="watch"}}', values: '0x8 25x20'}}
      - {{series: 'rollbackd_receipts_total{{status="failed"}}', values: '0x20 1x10'}}
      - {{series: 'rollbackd_receipts_total{{status="applied"}}', values: '0+1x30'}}
      - {{series: 'up{{job="rollbackd", role="act"}}', values: '1x20 0x10'}}
    alert_rule_test:
      - {{eval_time: 2m, alertname: RollbackdBehind, exp_alerts: []}}
      - eval_time: 4m
        alertname: RollbackdBehind
        exp_alerts:
          - exp_labels: {{severity: page, role: watch, stage: watch}}
            exp_annotations: {{summary: "watch is 25s behind; decisions come late, and after 5 \
minutes are not sent."}}
      - {{eval_time: 4m, alertname: RollbackdCommandFailed, exp_alerts: []}}
      - eval_time: 6m
        alertname: RollbackdCommandFailed
        exp_alerts:
          - exp_labels: {{severity: page, status: failed}}
            exp_annotations: {{summary: "A command ended as failed; look at the platform and at \
`rollbackd incidents`."}}
      - eval_time: 6m
        alertname: RollbackdRoleDown
        exp_alerts:
          - exp_labels: {{severity: page, job: rollbackd, role: act}}
            exp_annotations: {{summary: "act does not answer; without it no bad model is taken \
out of traffic."}}
"""


def test_the_rules_fire_when_they_should(tmp_path: Path) -> None:
    """If this breaks, rollbackd can be down or behind and nobody is woken."""
    tests = tmp_path / "tests.yml"
    tests.write_text(RULE_TESTS.format(rules=RULES))
    promtool = program("promtool")

    for arguments in (["check", "rules", str(RULES)], ["test", "rules", str(tests)]):
        done = subprocess.run([promtool, *arguments], capture_output=True, text=True, timeout=60)
        assert 0 == done.returncode, done.stdout + done.stderr


def test_prometheus_reads_every_panel(prometheus: Callable[[str], str]) -> None:
    """If this breaks, a panel shows an error instead of a curve."""
    url = prometheus(f"rule_files: [{RULES}]\nscrape_configs: []\n")

    with httpx2.Client(base_url=url, trust_env=False) as client:
        answers = [client.get("/api/v1/query", params={"query": query}) for query in queries()]
        loaded = client.get("/api/v1/rules").json()["data"]["groups"]

    assert {"success"} == {answer.json()["status"] for answer in answers}
    assert [rule["alert"] for rule in alerts()] == [r["name"] for g in loaded for r in g["rules"]]
