"""Prometheus Alertmanager: the incident as an alert, with its own routes, silences and on-call.

One alert for each incident: its labels stay the same from the breach to the proof, and the proof
ends it. Alertmanager forgets an alert that nobody repeats, so each notice gives it a day.

References
----------
https://prometheus.io/docs/alerting/latest/alerts_api/
"""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.plugins import plugin
from schemas.secrets import Secret
from schemas.times import to_text
from service.addresses import read_networks
from service.alert.notifiers.base import CHAT_PERMANENT, Letter, Payload, require_taken
from service.alert.route import Notice
from service.http import Http, Reach

LASTS_MS = 86_400 * 1000
_SEVERITIES = {"problem": "warning", "question": "warning", "good": "warning",
               "person": "critical"}  # fmt: skip


@plugin("alertmanager")
@dataclass(frozen=True)
class Alertmanager:
    """One Alertmanager.

    Parameters
    ----------
    url : Secret
        Its address, without `/api/v2`.
    token : Secret or None
        Sent as bearer token.
    allow_http : bool
        Plain http beyond loopback.
    allow_private : list of str
        Private networks that the address may lie in, such as `10.1.0.0/16`.
    """

    url: Secret
    token: Secret | None = None
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        read_networks(self.allow_private)

    @property
    def pause_s(self) -> float:
        """It takes everything."""
        return 0.1

    @property
    def reach(self) -> Reach:
        """What the settings allow."""
        return Reach(self.allow_http, read_networks(self.allow_private))

    def render(self, notice: Notice) -> Payload:
        """Say it as one alert."""
        alert: Payload = {
            "labels": {
                "alertname": "RollbackdIncident", "model": notice.model or "rollbackd",
                "version": notice.version or "-",
                "incident": notice.incident_id or notice.notice_id,
            },
            "annotations": {
                "summary": notice.title, "description": notice.what, "why": notice.why,
                "done": notice.done, "state": notice.state,
                "severity": _SEVERITIES[notice.tone], "commands": "\n".join(notice.commands),
            },
            "endsAt": to_text(notice.at if notice.tone == "good" else notice.at + LASTS_MS),
        }  # fmt: skip
        if notice.link:
            alert["generatorURL"] = notice.link
        return {"alerts": [alert]}

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once."""
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token.reveal()}"}
        address = f"{self.url.reveal().rstrip('/')}/api/v2/alerts"
        reply = await http.post(address, json=letter.payload["alerts"], headers=headers)
        require_taken("alertmanager", reply, CHAT_PERMANENT)
