"""A model in service, made small: seeded traffic, a router, and a canary that goes bad.

It stands for everything around rollbackd in docker-compose.yml. It splits requests between `v1`
(stable) and `v2` (canary) by its router's weight, sends a prediction for each at once and its
outcome a few seconds later to rollbackd's HTTP API, and changes the weight only when a signed
command asks for it (the webhook adapter's protocol). After `--healthy-s` seconds the canary calls
good customers bad; whether it keeps its traffic then is rollbackd's decision alone.

Standard library only. Refused here: a command with a wrong or an old signature.
"""

import argparse
import base64
import hashlib
import hmac
import json
import random
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

MODEL, STABLE, CANARY = "credit-risk", "v1", "v2"
TOLERANCE_S = 300
"""How far a signature's time may lie from ours (Standard Webhooks)."""
EVERY_S = 0.2
"""How often events are sent."""

Event = dict[str, Any]


@dataclass
class Router:
    """Who serves what: percent of requests by version, changed by commands alone."""

    current: dict[str, float]
    lock: threading.Lock = field(default_factory=threading.Lock)

    def pick(self, draw: float) -> tuple[str, float]:
        """Give the version for a draw in [0, 1), and the probability it was chosen with."""
        with self.lock:
            share = self.current.get(CANARY, 0.0) / 100
        return (CANARY, share) if draw < share else (STABLE, 1 - share)

    def obey(self, command: Event) -> tuple[int, Event]:
        """Carry out one command; give status and body of the answer."""
        with self.lock:
            if command.get("action") == "probe":
                return 200, {"current": dict(self.current)}
            wanted = self._wanted(command)
            if wanted is None:
                answer = {"status": "refused", "detail": "only probe, rollback, promote and shift"}
                return 200, answer | {"current": dict(self.current)}
            if wanted == self.current:
                return 200, {"status": "already_there", "current": dict(self.current)}
            expected = (command.get("expected") or {}).get("weight")
            if expected is not None and round(100 * expected, 6) != self.current.get(CANARY, 0.0):
                return 409, {"status": "superseded", "current": dict(self.current)}
            self.current = wanted
            return 200, {"status": "applied", "current": dict(self.current)}

    @staticmethod
    def _wanted(command: Event) -> dict[str, float] | None:
        from_version, to_version = command.get("from_version"), command.get("to_version")
        if {from_version, to_version} != {STABLE, CANARY}:
            return None
        if command.get("action") in ("rollback", "promote"):
            return {str(from_version): 0.0, str(to_version): 100.0}
        if command.get("action") == "shift":
            share = round(100 * float(command["weight"]), 6)
            return {str(from_version): share, str(to_version): 100 - share}
        return None


def signature_holds(secret: str, headers: Any, body: bytes, now_s: float) -> bool:
    """Check the Standard Webhooks headers of a command, version `v1`."""
    name, stamp = headers.get("webhook-id", ""), headers.get("webhook-timestamp", "")
    if not stamp.isdigit() or abs(now_s - int(stamp)) > TOLERANCE_S:
        return False
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.new(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256).digest()
    right = "v1," + base64.b64encode(digest).decode()
    given = headers.get("webhook-signature", "").split(" ")
    return any(hmac.compare_digest(right.encode(), one.encode()) for one in given)


def serve(listen: str, router: Router, secret: str) -> ThreadingHTTPServer:
    """Answer `GET /healthz` and signed `POST /rollback` in threads of their own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply(200 if self.path == "/healthz" else 404, {"current": router.current})

        def do_POST(self) -> None:
            body = self.rfile.read(min(int(self.headers.get("content-length", 0)), 65536))
            if not signature_holds(secret, self.headers, body, time.time()):
                return self.reply(401, {"detail": "the signature is wrong or too old"})
            status, answer = router.obey(json.loads(body))
            print(json.dumps({"command": json.loads(body), "answer": answer}), flush=True)
            self.reply(status, answer)

        def reply(self, status: int, answer: Event) -> None:
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing: health checks would be all one reads."""

    host, _, port = listen.rpartition(":")
    server = ThreadingHTTPServer((host, int(port)), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


class Customers:
    """Seeded requests, each with the prediction it got and the outcome it will have."""

    def __init__(self, router: Router, seed: int, sick_after_s: float, started_s: float) -> None:
        self.router, self.rng = router, random.Random(seed)
        self.sick_at_s, self.prefix, self.number = started_s + sick_after_s, int(started_s), 0

    def request(self, now_s: float) -> tuple[Event, Event, float]:
        """Serve one request now: prediction, outcome, and the seconds until that is known."""
        rng, self.number = self.rng, self.number + 1
        version, weight = self.router.pick(rng.random())
        label = int(rng.random() < 0.3)
        sick = version == CANARY and now_s > self.sick_at_s and label == 0
        wrong = rng.random() < (0.35 if sick else 0.08)
        score = min(max(rng.gauss(0.75 if (label == 1) != wrong else 0.25, 0.1), 0.0), 1.0)
        prediction: Event = {
            "type": "prediction",
            "prediction_id": f"{self.prefix}-{self.number}",
            "model": MODEL,
            "version": version,
            "served_at": int(now_s * 1000),
            "prediction": int(score > 0.5),
            "score": round(score, 4),
            "latency_ms": round(rng.lognormvariate(3.6, 0.4), 2),
            "weight": round(weight, 6),
        }
        if rng.random() < 0.01:
            prediction["error"] = True
        outcome = {"type": "outcome", "prediction_id": prediction["prediction_id"], "label": label}
        return prediction, outcome, rng.uniform(2, 6)


def post(url: str, token: str, events: list[Event]) -> bool:
    """Send events as NDJSON; False when they must be sent again."""
    body = "".join(json.dumps(event) + "\n" for event in events).encode()
    headers = {"content-type": "application/x-ndjson", "authorization": f"Bearer {token}"}
    try:
        with urllib.request.urlopen(  # noqa: S310 (the address is ours)
            urllib.request.Request(url, body, headers),  # noqa: S310
            timeout=10,
        ):
            return True
    except urllib.error.HTTPError as fault:
        print(f"{url} answered {fault.code}: {fault.read(500)!r}", flush=True)
        return fault.code == 400  # none of them was taken; again would be no better
    except OSError as fault:
        print(f"{url} does not answer: {fault}", flush=True)
        return False


def main() -> None:
    """Serve requests until the process ends."""
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    options.add_argument("--events", required=True, help="address of POST /v1/events")
    options.add_argument("--listen", default="127.0.0.1:8430")
    options.add_argument("--token-file", type=Path, default="/run/secrets/producer_token")
    options.add_argument("--secret-file", type=Path, default="/run/secrets/router_secret")
    options.add_argument("--rate", type=float, default=60.0, help="requests per second")
    options.add_argument("--weight", type=float, default=20.0, help="canary's percent at first")
    options.add_argument("--healthy-s", type=float, default=60.0, help="until the canary goes bad")
    options.add_argument("--seed", type=int, default=7)
    given = options.parse_args()
    token, secret = given.token_file.read_text().strip(), given.secret_file.read_text().strip()
    router = Router({STABLE: 100 - given.weight, CANARY: given.weight})
    serve(given.listen, router, secret)

    started_s = time.time()
    customers = Customers(router, given.seed, given.healthy_s, started_s)
    rollout = {"type": "rollout", "model": MODEL, "stable": STABLE, "canary": CANARY}
    waiting: list[Event] = [rollout | {"weight": given.weight / 100, "at": int(started_s * 1000)}]
    labels: list[tuple[float, Event]] = []
    while True:
        now_s = time.time()
        if len(waiting) < 20_000:  # without rollbackd for long, serve no more than can be told
            for _ in range(max(1, round(given.rate * EVERY_S))):
                prediction, outcome, delay_s = customers.request(now_s)
                waiting.append(prediction)
                labels.append((now_s + delay_s, outcome))
        known = [(at_s, outcome) for at_s, outcome in labels if at_s <= now_s]
        labels = [item for item in labels if item[0] > now_s]
        waiting += [outcome | {"observed_at": int(at_s * 1000)} for at_s, outcome in known]
        if post(given.events, token, waiting):
            waiting = []
        time.sleep(max(0.0, EVERY_S - (time.time() - now_s)))


if __name__ == "__main__":
    main()
