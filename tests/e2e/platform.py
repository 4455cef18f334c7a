"""A platform of our own behind the webhook adapter, and producers whose traffic obeys it.

The platform is a real HTTP server with state: it checks signatures, keeps what every version
serves, and counts the changes that had an effect. Producers append events as any producer would;
how much each version serves is what the platform says at that moment, so that a rollback can be
seen in the traffic and in nothing else.
"""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from schemas.secrets import Secret
from service.clock import WallClock
from service.webhooks import read_keys, verify

SECRET = "a plain secret of enough bytes"
MODEL = "credit-risk"


class Platform:
    """Stable v41 and canary v42; `shares` in percent."""

    def __init__(self, weight: float) -> None:
        self.shares = {"v41": 100 * (1 - weight), "v42": 100 * weight}
        self.effective: list[dict[str, Any]] = []
        self.posts: list[dict[str, Any]] = []
        self.on_post: Callable[[], None] = lambda: None
        self._lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/rollback"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Platform:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def answer(self, command: dict[str, Any]) -> dict[str, Any]:
        """Do what a signed command asks; say what it was and what serves now."""
        if command["action"] == "probe":
            return {"current": dict(self.shares)}
        with self._lock:
            self.posts.append(command)
            left = 100 * float(command["weight"] or 0) if command["action"] == "shift" else 0.0
            wanted = dict.fromkeys(self.shares, 0.0)
            wanted |= {command["from_version"]: left, command["to_version"]: 100 - left}
            if wanted == self.shares:
                return {"status": "already_there", "current": dict(self.shares)}
            self.shares = wanted
            self.effective.append(command)
        # The change has been made and its answer is not out yet: the moment a kill hurts most.
        self.on_post()
        return {"status": "applied", "current": dict(self.shares)}

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        platform = self
        keys = read_keys(Secret(SECRET))

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                if (why := verify(keys, headers, body, WallClock().now_ms() / 1000)) is not None:
                    self.send_error(401, why)
                    return
                reply = json.dumps(platform.answer(json.loads(body))).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *_: object) -> None:
                return

        return Handler


class Producer:
    """Seeded predictions at a steady rate; the canary fails far more often than it may."""

    def __init__(self, platform: Platform, append: Callable[[str, list[tuple[str, str]]], None],
                 seed: int = 5, per_s: int = 200) -> None:  # fmt: skip
        self._platform, self._append, self._per_s = platform, append, per_s
        self._random = random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, daemon=True)
        self.sent: dict[str, int] = {"v41": 0, "v42": 0}
        self.errors = {"v41": 0.01, "v42": 0.01}
        self.fault: BaseException | None = None

    def __enter__(self) -> Producer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _produce(self) -> None:
        number = 0
        try:
            while not self._stop.wait(0.1):
                predictions, outcomes = [], []
                for _ in range(self._per_s // 10):
                    number += 1
                    prediction, outcome = self._request(number)
                    predictions.append(prediction)
                    outcomes.append(outcome)
                self._append("predictions", predictions)
                self._append("outcomes", outcomes)
        except BaseException as fault:
            self.fault = fault

    def _request(self, number: int) -> tuple[tuple[str, str], tuple[str, str]]:
        weight = self._platform.shares["v42"] / 100
        version = "v42" if self._random.random() < weight else "v41"
        self.sent[version] += 1
        now, name = WallClock().now_ms(), f"r-{number}"
        event: dict[str, Any] = {
            "prediction_id": name, "model": MODEL, "version": version, "served_at": now,
            "prediction": 1, "score": 0.5, "latency_ms": 10 + self._random.random(),
        }  # fmt: skip
        if 0 < weight < 1:
            event["weight"] = weight if version == "v42" else 1 - weight
        if self._random.random() < self.errors[version]:
            event["error"] = "upstream"
        label = int(self._random.random() < 0.9)
        outcome = {"prediction_id": name, "observed_at": now, "label": label}
        return (name, json.dumps(event)), (name, json.dumps(outcome))
