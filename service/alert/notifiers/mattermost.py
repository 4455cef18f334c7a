"""Mattermost, by an incoming webhook.

Names are escaped as Markdown, and their `@` is the wide one, which calls nobody.

References
----------
https://developers.mattermost.com/integrate/webhooks/incoming/
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

MAX_PART = 3000
"""Of about five parts; a post has room for 16,383 characters."""
_COLOURS = {"problem": "#D55E00", "question": "#E69F00", "good": "#009E73", "person": "#CC0000"}


@plugin("mattermost")
@dataclass(frozen=True)
class Mattermost(ChatWebhook):
    """A channel."""

    kind = "mattermost"

    @property
    def pause_s(self) -> float:
        """Servers differ; one a second is taken by all."""
        return 1.0

    def render(self, notice: Notice) -> Payload:
        """Say it as one attachment, with a text for notifications."""
        title = fitted_as(notice.title, MAX_PART, without_markdown)
        parts = [fitted_as(notice.what, MAX_PART, without_markdown)]
        for name, text in (("Why", notice.why), ("What was done", notice.done)):
            if text:
                parts.append(f"**{name}**\n{fitted_as(text, MAX_PART, without_markdown)}")
        if notice.commands:
            typed = "\n".join(notice.commands)
            parts.append(f"**To answer, type**\n```\n{typed}\n```")
        attachment: Payload = {
            "fallback": title, "color": _COLOURS[notice.tone], "title": title,
            "text": "\n\n".join(parts),
        }  # fmt: skip
        if notice.link:
            attachment["title_link"] = notice.link
        return {"attachments": [attachment]}
