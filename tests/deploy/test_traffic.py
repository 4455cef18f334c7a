"""The compose demo: what rollbackd is shown by its customers, and what it can change."""

import base64
import hashlib
import hmac
import json
import sys
import threading
import urllib.error
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.traffic import CANARY, MODEL, STABLE, Customers, Router, signature_holds
from schemas.events import Outcome, Prediction
from tests.real import free_port, run_process, url_answers

SECRET = "whsec_" + base64.b64encode(b"k" * 32).decode()
ROOT = Path(__file__).parents[2]


def a_command(**changes: Any) -> dict[str, Any]:
    command = {"action": "rollback", "model": MODEL, "from_version": CANARY, "to_version": STABLE}
    return command | {"expected": {"stable": STABLE, "canary": CANARY, "weight": 0.2}} | changes


def signed(body: bytes, now_s: int) -> dict[str, str]:
    text = f"c-1.{now_s}.".encode() + body
    digest = hmac.new(b"k" * 32, text, hashlib.sha256).digest()
    signature = "v1," + base64.b64encode(digest).decode()
    headers = {"webhook-id": "c-1", "webhook-timestamp": str(now_s)}
    return headers | {"webhook-signature": f"v1,b3RoZXI= {signature}"}


def test_rollback_gives_the_stable_everything_once() -> None:
    """If this breaks, the compose demo reports a rollback that its router never made."""
    router = Router({STABLE: 80.0, CANARY: 20.0})

    assert (200, {"status": "applied", "current": {CANARY: 0.0, STABLE: 100.0}}) == router.obey(
        a_command()
    )
    assert "already_there" == router.obey(a_command())[1]["status"]
    assert (STABLE, 1.0) == router.pick(0.0)


def test_command_about_another_plan_is_superseded() -> None:
    """If this breaks, the demo overwrites what a person changed in the meantime."""
    router = Router({STABLE: 50.0, CANARY: 50.0})

    actual = router.obey(a_command())

    assert (409, {"status": "superseded", "current": {STABLE: 50.0, CANARY: 50.0}}) == actual


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"action": "hold"}, "refused"),
        ({"to_version": "*"}, "refused"),
        ({"action": ""}, "refused"),
    ],
)
def test_unknown_command_changes_nothing(changes: dict[str, Any], status: str) -> None:
    """If this breaks, a command that nobody understands moves traffic."""
    router = Router({STABLE: 80.0, CANARY: 20.0})

    assert status == router.obey(a_command(**changes))[1]["status"]
    assert {STABLE: 80.0, CANARY: 20.0} == router.current


def test_signature_binds_body_time_and_key() -> None:
    """If this breaks, anybody on the network can move the demo's traffic."""
    body, now_s = b'{"action": "probe"}', 1_700_000_000
    headers = signed(body, now_s)

    assert signature_holds(SECRET, headers, body, now_s + 299)
    assert not signature_holds(SECRET, headers, body + b" ", now_s)
    assert not signature_holds(SECRET, headers, body, now_s + 301)
    assert not signature_holds("whsec_b3RoZXI=", headers, body, now_s)


def test_canary_goes_bad_and_only_the_canary() -> None:
    """If this breaks, the demo shows a rollback without a reason, or never one."""
    customers = Customers(Router({STABLE: 50.0, CANARY: 50.0}), 7, 100.0, 1_700_000_000.0)

    def false_positives(version: str, at_s: float) -> float:
        asked = [customers.request(at_s) for _ in range(4000)]
        good = [p for p, o, _ in asked if p["version"] == version and o["label"] == 0]
        return sum(p["prediction"] for p in good) / len(good)

    before_s, after_s = 1_700_000_050.0, 1_700_000_150.0
    assert false_positives(CANARY, before_s) < 0.15
    assert false_positives(STABLE, after_s) < 0.15
    assert false_positives(CANARY, after_s) > 0.25


def test_events_are_what_the_contract_says() -> None:
    """If this breaks, rollbackd refuses everything the compose demo sends."""
    customers = Customers(Router({STABLE: 80.0, CANARY: 20.0}), 7, 0.0, 1_700_000_000.0)
    for _ in range(200):
        prediction, outcome, delay_s = customers.request(1_700_000_001.0)
        read = msgspec.convert(prediction, Prediction, strict=True)
        said = msgspec.convert(outcome | {"observed_at": 1}, Outcome, strict=True)
        assert read.prediction_id == said.prediction_id
        assert 0 < delay_s < 30


class Inbox(BaseHTTPRequestHandler):
    """Stands for POST /v1/events: keeps what arrives, refuses the first batch for now."""

    arrived: list[bytes]
    tokens: list[str]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        self.tokens.append(self.headers["authorization"])
        if len(self.tokens) > 1:
            self.arrived.append(body)
        self.send_response(202 if len(self.tokens) > 1 else 429)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def test_program_tells_all_and_obeys_signed_commands(tmp_path: Path) -> None:
    """If this breaks, the container starts and nothing ever happens, or events get lost."""
    (tmp_path / "token").write_text("t" * 32)
    (tmp_path / "secret").write_text(SECRET)
    port = free_port()
    inbox = type("OwnInbox", (Inbox,), {"arrived": [], "tokens": []})
    with ThreadingHTTPServer(("127.0.0.1", 0), inbox) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        events = f"http://127.0.0.1:{server.server_address[1]}/v1/events"
        command = [sys.executable, ROOT / "deploy" / "traffic.py", "--events", events]
        command += ["--listen", f"127.0.0.1:{port}", "--token-file", tmp_path / "token"]
        with run_process([*command, "--secret-file", tmp_path / "secret"], tmp_path / "log") as run:
            run.wait_until(lambda: len(inbox.arrived) >= 2, 20, "two batches arrived")
            run.wait_until(lambda: url_answers(f"http://127.0.0.1:{port}/healthz"), 5, "healthy")
            url, probe = f"http://127.0.0.1:{port}/rollback", b'{"action": "probe"}'
            with pytest.raises(urllib.error.HTTPError, match="401"):
                urllib.request.urlopen(url, probe, timeout=5)
        server.shutdown()

    sent = [json.loads(line) for body in inbox.arrived for line in body.splitlines()]
    assert {"Bearer " + "t" * 32} == set(inbox.tokens)
    assert "rollout" == sent[0]["type"]
    ids = [event["prediction_id"] for event in sent if event["type"] == "prediction"]
    assert [f"{ids[0].split('-')[0]}-{n + 1}" for n in range(len(ids))] == ids
