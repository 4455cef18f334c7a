"""Google Chat, by a space's webhook; all messages of an incident are one thread.

References
----------
https://developers.google.com/workspace/chat/quickstart/webhooks
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from schemas.plugins import plugin
from schemas.secrets import Secret
from service.alert.notifiers.base import (
    CHAT_PERMANENT,
    Letter,
    Payload,
    fitted_as,
    require_taken,
)
from service.alert.route import Notice
from service.http import Http, Reach

MAX_TITLE, MAX_TEXT = 300, 1800
THREADED = "REPLY_MESSAGE_FALLBACK_TO_NEW_THREAD"


@plugin("google_chat")
@dataclass(frozen=True)
class GoogleChat:
    """A space.

    Parameters
    ----------
    url : Secret
        Webhook address with its key and token, so it never enters a log or an error.
    allow_http : bool
        Plain http beyond loopback.
    """

    url: Secret
    allow_http: bool = False

    @property
    def pause_s(self) -> float:
        """A space takes sixty writes a minute, shared by all apps in it."""
        return 2.0

    @property
    def reach(self) -> Reach:
        """Public addresses."""
        return Reach(allow_http=self.allow_http)

    def render(self, notice: Notice) -> Payload:
        """Say it as one card."""
        parts = [notice.what, *(f"{name}: {text}" for name, text in
                 (("Why", notice.why), ("Done", notice.done)) if text)]  # fmt: skip
        widgets: list[Payload] = [_paragraph(fitted_as(part, MAX_TEXT, _plain)) for part in parts]
        if notice.commands:
            widgets.append(_paragraph("To answer, type:<br>" + "<br>".join(notice.commands)))
        if notice.link:
            button = {"text": "Open the incident", "onClick": {"openLink": {"url": notice.link}}}
            widgets.append({"buttonList": {"buttons": [button]}})
        title = fitted_as(notice.title, MAX_TITLE, _plain)
        return {
            "cardsV2": [
                {
                    "cardId": "notice",
                    "card": {"header": {"title": title}, "sections": [{"widgets": widgets}]},
                }
            ],
            "thread": {"threadKey": notice.incident_id or notice.notice_id},
        }

    async def send(self, letter: Letter, http: Http) -> None:
        """Try once; `requestId` lets the platform drop a repeat."""
        parts = urlsplit(self.url.reveal())
        query = [*parse_qsl(parts.query), ("messageReplyOption", THREADED),
                 ("requestId", letter.delivery_id)]  # fmt: skip
        address = urlunsplit(parts._replace(query=urlencode(query)))
        require_taken("google_chat", await http.post(address, json=letter.payload), CHAT_PERMANENT)


def _plain(text: str) -> str:
    """Cards read a few HTML tags, and nothing else as markup."""
    return escape(text, quote=False)


def _paragraph(text: str) -> Payload:
    return {"textParagraph": {"text": text}}
