"""Slack's own limits and markup."""

import pytest

from schemas.secrets import Secret
from service.alert.notifiers.slack import Slack, escape, fitted
from service.alert.route import undelivered
from tests.contracts.test_every_notifier import a_notice


def test_a_message_stays_within_the_limits_of_blocks() -> None:
    """If this breaks, Slack refuses the longest messages, which are those of the worst nights."""
    notice = a_notice(title="<&>" * 200, what="<" * 1200, why="&" * 1200, done=">" * 1200)

    blocks = Slack(Secret("https://hooks.example/x")).render(notice)["blocks"]

    assert len(blocks) <= 50
    assert len(blocks[0]["text"]["text"]) <= 150
    sections = [block["text"]["text"] for block in blocks if block["type"] == "section"]
    assert 4 == len(sections)
    assert max(map(len, sections)) <= 3000


@pytest.mark.parametrize("limit", range(2, 16))
def test_a_cut_never_falls_into_an_escape(limit: int) -> None:
    """If this breaks, a cut message ends in half an escape, or becomes too long by it."""
    cut = fitted("a<b&c>", limit)

    assert len(cut) <= limit
    whole = cut.removesuffix("…")
    for escaped in ("&lt;", "&amp;", "&gt;"):
        whole = whole.replace(escaped, "")
    assert "&" not in whole


def test_escaping_is_done_once() -> None:
    """If this breaks, people read `&amp;lt;` for `<`."""
    assert "&lt;!channel&gt; &amp;" == escape("<!channel> &")


def test_trouble_with_another_endpoint_needs_no_incident() -> None:
    """If this breaks, nobody hears that the other channel is dead."""
    payload = Slack(Secret("https://hooks.example/x")).render(undelivered("webhook-1", "410", 1))

    assert "Notifications to webhook-1 fail" in payload["text"]
    assert "alert" == payload["blocks"][-1]["elements"][0]["text"]
