"""The main job on a real Kafka and a real PostgreSQL, with and without kill -9 of every role."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from service.clock import WallClock
from tests.e2e.cluster import ROLES, Cluster
from tests.e2e.platform import MODEL, Platform, Producer
from tests.real import wait_until

HEALTHY_S = 4.0


def tell_the_story(folder: Path, kafka: str, database: str, prefix: str,
                   kills: bool) -> dict[str, Any]:  # fmt: skip
    """Run a bad canary until its rollback is verified; return what can be compared."""
    with (
        Platform(weight=0.2) as platform,
        Cluster(folder, kafka, database, platform.url, prefix) as cluster,
    ):
        append, close = cluster.appender()
        plan = {"model": MODEL, "stable": "v41", "canary": "v42", "weight": 0.2,
                "at": WallClock().now_ms(), "rollout_id": "r1"}  # fmt: skip
        append("rollouts", [(MODEL, json.dumps(plan))])
        if kills:
            # act dies after the platform has changed and before anybody was told.
            platform.on_post = lambda: cluster.kill("act") if "act" not in cluster.kills else None
        started = time.monotonic()
        with Producer(platform, append) as producer:
            wait_until(lambda: time.monotonic() - started > HEALTHY_S, HEALTHY_S + 5)
            if kills:
                cluster.kill("ingest")
            producer.errors["v42"] = 0.4
            if kills:
                cluster.kill("watch")
                wait_until(lambda: platform.effective, 60, what="the platform was changed")
                for role in ("record", "alert", "web"):
                    cluster.kill(role)
            states = wait_until(lambda: verified(cluster), 90, 0.5, "the rollback is verified")
            assert producer.fault is None
        wait_until(lambda: counted(cluster) == sum(producer.sent.values()), 40, 0.5,
                   "every prediction is counted")  # fmt: skip
        close()
        status = json.loads(cluster.call("status", MODEL, "--json"))
        return {
            "states": states, "effective": platform.effective, "posts": platform.posts,
            "sent": producer.sent, "kills": cluster.kills,
            "counted": {v["version"]: v["predictions"] for v in status["versions"]},
            "outcomes": {v["version"]: v["outcomes"] for v in status["versions"]},
            "plan": (status["stable"], status["canary"]),
        }  # fmt: skip


def verified(cluster: Cluster) -> list[tuple[str, str]] | None:
    """Incidents and states, once one is verified."""
    found = [(i["incident_id"], i["state"]) for i in cluster.incidents()]
    return found if any(state == "verified" for _, state in found) else None


def counted(cluster: Cluster) -> int:
    """Predictions that rollbackd has counted."""
    status = json.loads(cluster.call("status", MODEL, "--json"))
    return sum(version["predictions"] for version in status["versions"])


@pytest.mark.kafka
@pytest.mark.postgres
def test_every_role_is_killed_once_and_the_same_rollback_happens_once(
    kafka: str, postgres: str, database: str, tmp_path: Path
) -> None:
    """If this breaks, a crash loses an event, counts one twice, or rolls back twice or never."""
    quiet = tell_the_story(tmp_path / "quiet", kafka, database, "quiet.", kills=False)
    killed = tell_the_story(tmp_path / "killed", kafka, fresh(database), "killed.", kills=True)

    for story in (quiet, killed):
        assert 1 == len(story["effective"])
        assert ["verified"] == [state for _, state in story["states"]]
        assert story["sent"] == story["counted"]
        assert story["sent"] == story["outcomes"]
        assert ("v41", None) == story["plan"]
        assert 1 == len({post["command_id"] for post in story["posts"]})
    assert quiet["states"] == killed["states"]
    assert quiet["effective"][0]["command_id"] == killed["effective"][0]["command_id"]
    assert set(ROLES) == set(killed["kills"])


def fresh(database: str) -> str:
    """Another, empty database on the same server."""
    import psycopg

    base, _, name = database.rpartition("/")
    other = f"{name}_killed"
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{other}"')
    return f"{base}/{other}"
