"""ntfy: a phone that rings, from a server of one's own or the public one.

References
----------
https://docs.ntfy.sh/publish/#publish-as-json
"""

from __future__ import annotations

from dataclasses import dataclass, field

from schemas.plugins import plugin
from schemas.secrets import Secret
from service.addresses import read_networks
from service.alert.notifiers.base import (
    CHAT_PERMANENT,
    Letter,
    Payload,
    require_taken,
    shortened,
)
from service.alert.route import Notice
from service.http import Http, Reach

MAX_TITLE, MAX_PART = 250, 1200
_PRIORITIES = {"problem": 4, "question": 4, "good": 3, "person": 5}
_TAGS = {"problem": "red_circle", "question": "question", "good": "white_check_mark",
         "person": "rotating_light"}  # fmt: skip


@plugin("ntfy")
@dataclass(frozen=True)
class Ntfy:
    """A topic.

    Parameters
    ----------
    url : Secret
        Address of the server.
    topic : str
        Whoever knows it can read, unless the server wants a token.
    token : Secret or None
        Access token of the server.
    allow_http : bool
        Plain http beyond loopback.
    allow_private : list of str
        Private networks that the address may lie in, such as `10.1.0.0/16`.
    """

    url: Secret
    topic: str = "rollbackd"
    token: Secret | None = None
    allow_http: bool = False
    allow_private: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        read_networks(self.allow_private)

    @property
    def pause_s(self) -> float:
        """The public server refills one message every five seconds, sixty at once."""
        return 1.0

    @property
    def reach(self) -> Reach:
        """What the settings allow."""
        return Reach(self.allow_http, read_networks(self.allow_private))

    def render(self, notice: Notice) -> Payload:
        """Say it in plain text: nothing in it is markup."""
        parts = [notice.what, notice.why, notice.done, *notice.commands]
        told: Payload = {
            "topic": self.topic,
            "title": shortened(notice.title, MAX_TITLE),
            "message": "\n".join(shortened(part, MAX_PART) for part in parts if part),
            "priority": _PRIORITIES[notice.tone],
            "tags": [_TAGS[notice.tone]],
        }
        return told | ({"click": notice.link} if notice.link else {})

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once."""
        headers = {} if self.token is None else {"authorization": f"Bearer {self.token.reveal()}"}
        reply = await http.post(self.url.reveal(), json=letter.payload, headers=headers)
        require_taken("ntfy", reply, CHAT_PERMANENT)
