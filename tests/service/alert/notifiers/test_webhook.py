"""The generic webhook: signed by Standard Webhooks."""

import base64

import pytest

from schemas.secrets import Secret
from service.alert.notifiers.base import Letter
from service.alert.notifiers.webhook import Webhook
from service.http import Http, HttpFault
from service.webhooks import WebhookFault, read_keys, verify
from tests.builders import NOW
from tests.contracts.test_every_notifier import a_notice
from tests.receiver import receiving

KEY = Secret("whsec_" + base64.b64encode(b"k" * 32).decode())


async def test_the_receiver_can_verify_who_sent_it() -> None:
    """If this breaks, receivers that check signatures refuse every page."""
    async with receiving() as receiver:
        webhook = Webhook(Secret(receiver.url), secret=KEY)
        letter = Letter("a" * 32, webhook.render(a_notice()), NOW)
        await webhook.send(letter, Http(webhook.reach))

    (got,) = receiver.got
    assert "a" * 32 == got.headers["webhook-id"]
    assert verify(read_keys(KEY), got.headers, got.body, NOW / 1000) is None
    assert verify(read_keys(KEY), got.headers, got.body + b" ", NOW / 1000) is not None


async def test_without_a_secret_the_id_is_there_and_no_signature() -> None:
    """If this breaks, receivers cannot drop repeats."""
    async with receiving() as receiver:
        webhook = Webhook(Secret(receiver.url))
        await webhook.send(Letter("a" * 32, {}, NOW), Http(webhook.reach))

    assert "a" * 32 == receiver.got[0].headers["webhook-id"]
    assert "webhook-signature" not in receiver.got[0].headers


async def test_an_inner_address_is_not_reached() -> None:
    """If this breaks, a settings file can make us call a cloud's metadata service."""
    webhook = Webhook(Secret("https://169.254.169.254/latest"))

    with pytest.raises(HttpFault) as caught:
        await webhook.send(Letter("a" * 32, {}, NOW), Http(webhook.reach))

    assert "refused" == caught.value.kind


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"secret": Secret("short")}, WebhookFault),
        ({"allow_private": ["here"]}, ValueError),
    ],
)
def test_wrong_settings_are_refused_at_the_start(
    fields: dict[str, object], fault: type[Exception]
) -> None:
    """If this breaks, the first page of the night is the one that finds the typing mistake."""
    with pytest.raises(fault) as caught:
        Webhook(Secret("https://hooks.example"), **fields)  # type: ignore[arg-type]

    assert "short" not in str(caught.value) or "shorter" in str(caught.value)
