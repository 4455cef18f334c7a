"""Slack, by an incoming webhook.

Slack reads `&`, `<` and `>` as markup and nothing else as a mention, a channel call or a link, so
escaping these three makes every name harmless; `verbatim` keeps it from making links of plain text.
A webhook cannot change a message it has sent: one message for each notice.

References
----------
https://docs.slack.dev/messaging/formatting-message-text
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from schemas.plugins import plugin
from service.alert.notifiers.base import (
    ChatWebhook,
    Payload,
    fitted_as,
    shortened,
)
from service.alert.route import Notice

MAX_HEADER = 150
MAX_SECTION = 3000
_MARKS = {"problem": "🔴", "question": "🟡", "good": "🟢", "person": "🚨"}


@plugin("slack")
@dataclass(frozen=True)
class Slack(ChatWebhook):
    """A channel."""

    kind = "slack"

    @property
    def pause_s(self) -> float:
        """Slack takes about one message a second from a webhook."""
        return 1.1

    def render(self, notice: Notice) -> Payload:
        """Say what happened, then why, then what was done, then what to type."""
        title = f"{_MARKS[notice.tone]} {notice.title}"
        parts = [
            ("What happened", notice.what),
            ("Why", notice.why),
            ("What was done", notice.done),
        ]
        blocks: list[Payload] = [
            {"type": "header", "text": _plain(fitted(title, MAX_HEADER))},
            *(_section(f"*{label}*\n", text) for label, text in parts if text),
        ]
        if notice.commands:
            typed = "\n".join(notice.commands)
            blocks.append(_section("*To answer, type*\n", f"```{typed}```"))
        blocks.append({"type": "context", "elements": [_footer(notice)]})
        return {
            "text": escape(shortened(f"{title}: {notice.what}", MAX_SECTION)),
            "blocks": blocks,
            "unfurl_links": False,
            "unfurl_media": False,
        }


def escape(text: str) -> str:
    """Escape what Slack reads as markup; & first, or it would escape the other two again."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def fitted(text: str, limit: int) -> str:
    """Escape and cut so that the result fits; never inside an escape."""
    return fitted_as(text, limit, escape)


def _plain(text: str) -> Payload:
    return {"type": "plain_text", "text": text, "emoji": False}


def _section(label: str, text: str) -> Payload:
    shown = label + fitted(text, MAX_SECTION - len(label))
    return {"type": "section", "text": {"type": "mrkdwn", "text": shown, "verbatim": True}}


def _footer(notice: Notice) -> dict[str, Any]:
    text = f"incident {notice.incident_id[:12]} · {notice.state}" if notice.incident_id else "alert"
    if notice.link:
        # Ours, from the settings and a quoted id: the only link that is ever made.
        return {"type": "mrkdwn", "text": f"<{notice.link}|{fitted(text, 200)}>", "verbatim": True}
    return {"type": "mrkdwn", "text": fitted(text, 200), "verbatim": True}
