"""Endpoints from the settings."""

import pytest

from schemas.plugins import PluginFault
from service.alert.notifiers import notifiers_of
from service.alert.notifiers.log import Log
from service.alert.notifiers.slack import Slack


def test_without_alerts_the_log_is_told() -> None:
    """If this breaks, a fresh install tells nobody."""
    assert [Log()] == list(notifiers_of([]).values())


def test_endpoints_keep_their_name_wherever_they_stand() -> None:
    """If this breaks, reordering the file sends everything again, or to the wrong channel."""
    one = {"kind": "slack", "url": "https://hooks.example/1"}
    two = {"kind": "slack", "url": "https://hooks.example/2"}

    names = list(notifiers_of([one, two]))

    assert names == list(reversed(list(notifiers_of([two, one]))))
    assert all(name.startswith("slack-") and len(name) == 14 for name in names)
    assert isinstance(notifiers_of([one])[names[0]], Slack)


def test_all_faults_come_at_once_and_show_no_secret() -> None:
    """If this breaks, a failed start takes three tries to mend, or prints a webhook address."""
    alerts = [
        {"kind": "slcak", "url": "https://hooks.example/s3cret"},
        {"kind": "slack"},
        {"kind": "slack", "url": "https://hooks.example/s3cret", "chanel": "x"},
        {"kind": "webhook", "url": "https://hooks.example/s3cret", "allow_http": "s3cret"},
        {"kind": "webhook", "url": "https://hooks.example/s3cret", "secret": "s3cret"},
    ]

    with pytest.raises(PluginFault) as caught:
        notifiers_of(alerts)

    lines = str(caught.value).splitlines()
    assert [f"alerts[{n}]" for n in range(5)] == [line.split(":")[0] for line in lines]
    assert "no notifier of kind 'slcak'; known: log, slack, webhook" in lines[0]
    assert "needs 'url'" in lines[1]
    assert "has no field 'chanel'" in lines[2]
    assert "allow_http" in lines[3]
    assert "s3cret" not in str(caught.value)
