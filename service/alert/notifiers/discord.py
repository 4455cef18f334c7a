"""Discord, by a channel's webhook.

`allowed_mentions` with an empty list is on every message: without it every `@everyone` in a name
would ring. Names are escaped besides, so that they are no markup.

References
----------
https://discord.com/developers/docs/resources/webhook#execute-webhook
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

MAX_TITLE, MAX_DESCRIPTION, MAX_FIELD = 256, 1800, 1024
_COLOURS = {"problem": 0xD55E00, "question": 0xE69F00, "good": 0x009E73, "person": 0xCC0000}


@plugin("discord")
@dataclass(frozen=True)
class Discord(ChatWebhook):
    """A channel."""

    kind = "discord"

    @property
    def pause_s(self) -> float:
        """Discord takes about thirty messages a minute for one channel."""
        return 2.2

    def render(self, notice: Notice) -> Payload:
        """Say it as one embed."""
        embed: Payload = {
            "title": fitted_as(notice.title, MAX_TITLE, without_markdown),
            "description": fitted_as(notice.what, MAX_DESCRIPTION, without_markdown),
            "color": _COLOURS[notice.tone],
            "fields": [
                {"name": name, "value": fitted_as(text, MAX_FIELD, without_markdown)}
                for name, text in (("Why", notice.why), ("What was done", notice.done))
                if text
            ],
        }
        if notice.commands:
            typed = "\n".join(notice.commands)
            embed["fields"].append({"name": "To answer, type", "value": f"```{typed}```"})
        if notice.link:
            embed["url"] = notice.link
        return {"embeds": [embed], "allowed_mentions": {"parse": []}}
