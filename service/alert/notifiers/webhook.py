"""Any HTTP receiver: a small JSON message, signed by Standard Webhooks when a secret is given.

`webhook-id` is the delivery's id, the same for every attempt, so a receiver can drop repeats.
Every status but 2xx stays on the schedule, 410 ends the endpoint.

References
----------
Standard Webhooks specification 1.0.0.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec

from schemas.plugins import plugin
from schemas.secrets import Secret
from schemas.times import to_text
from service.addresses import read_networks
from service.alert.notifiers.base import Letter, Payload, require_taken
from service.alert.route import Notice
from service.http import Http, Reach
from service.webhooks import read_keys, sign

MAX_BODY = 20_000
"""Bytes that every receiver of Standard Webhooks has to take."""


@plugin("webhook")
@dataclass(frozen=True)
class Webhook:
    """One receiver.

    Parameters
    ----------
    url : Secret
        Its address; beyond the host never shown.
    secret : Secret or None
        Signs every message (`whsec_…`, `whsk_…`); several, parted by spaces, while one is replaced.
    allow_http : bool
        Plain http beyond loopback.
    allow_private : list of str
        Private networks that the address may lie in, such as `10.1.0.0/16`.

    Raises
    ------
    ValueError
        On a malformed secret or network.
    """

    url: Secret
    secret: Secret | None = None
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        read_networks(self.allow_private)
        if self.secret is not None:
            read_keys(self.secret)

    @property
    def pause_s(self) -> float:
        """Receivers differ; this is slow enough for all of them."""
        return 0.1

    @property
    def reach(self) -> Reach:
        """What the settings allow."""
        return Reach(self.allow_http, read_networks(self.allow_private))

    def render(self, notice: Notice) -> Payload:
        """Give the notice as data, in the form `type`, `timestamp`, `data` of the specification."""
        data = {
            "incident_id": notice.incident_id,
            "model": notice.model,
            "version": notice.version,
            "state": notice.state,
            "title": notice.title,
            "what": notice.what,
            "why": notice.why,
            "done": notice.done,
            "commands": notice.commands,
            "link": notice.link,
        }
        return {"type": f"incident.{notice.kind}", "timestamp": to_text(notice.at), "data": data}

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once, with the timestamp of this attempt."""
        body = msgspec.json.encode(letter.payload)
        headers = {"webhook-id": letter.delivery_id, "webhook-timestamp": str(letter.at_ms // 1000)}
        if self.secret is not None:
            keys = read_keys(self.secret)
            headers = sign(keys, letter.delivery_id, letter.at_ms // 1000, body)
        reply = await http.post(self.url.reveal(), body=body, headers=headers)
        require_taken("webhook", reply, frozenset())
