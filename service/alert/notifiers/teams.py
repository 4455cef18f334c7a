"""Microsoft Teams, by a Workflows webhook ("when a webhook request is received").

The old connectors are gone. A 202 says that the flow took the card, not that somebody saw it.

References
----------
https://adaptivecards.io/explorer/AdaptiveCard.html (version 1.4)
"""

from __future__ import annotations

from dataclasses import dataclass

from schemas.plugins import plugin
from service.alert.notifiers.base import (
    ChatWebhook,
    Payload,
    fitted_as,
    without_markdown,
)
from service.alert.route import Notice

CARD = "application/vnd.microsoft.card.adaptive"
MAX_TITLE, MAX_TEXT = 400, 1500
_COLOURS = {"problem": "attention", "question": "warning", "good": "good", "person": "attention"}


@plugin("teams")
@dataclass(frozen=True)
class Teams(ChatWebhook):
    """A channel or chat."""

    kind = "teams"

    @property
    def pause_s(self) -> float:
        """Teams takes about four messages a second."""
        return 0.5

    def render(self, notice: Notice) -> Payload:
        """Say it as one adaptive card."""
        title = fitted_as(notice.title, MAX_TITLE, without_markdown)
        body: list[Payload] = [
            _text(title, size="Medium", weight="Bolder", color=_COLOURS[notice.tone])
        ]
        for name, text in (("", notice.what), ("Why: ", notice.why), ("Done: ", notice.done)):
            if text:
                body.append(_text(name + fitted_as(text, MAX_TEXT, without_markdown)))
        if notice.commands:
            body.append(_text("To answer, type:"))
            body += [_text(command, fontType="Monospace") for command in notice.commands]
        card: Payload = {
            "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
            "type": "AdaptiveCard", "version": "1.4", "body": body,
        }  # fmt: skip
        if notice.link:
            card["actions"] = [
                {"type": "Action.OpenUrl", "title": "Open the incident", "url": notice.link}
            ]
        return {
            "type": "message",
            "attachments": [{"contentType": CARD, "contentUrl": None, "content": card}],
        }


def _text(text: str, **style: str) -> Payload:
    return {"type": "TextBlock", "text": text, "wrap": True, **style}
