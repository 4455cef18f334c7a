"""Endpoints from the settings."""

import pytest

from schemas.plugins import PluginFault
from service.alert.notifiers import endpoint_name, registry
from service.config import parse


def test_endpoints_keep_their_name_wherever_they_stand() -> None:
    """If this breaks, a replaced address stays disabled, or reordering the file sends twice."""
    old = {"kind": "slack", "url": "https://hooks.example/1"}
    new = {"kind": "slack", "url": "https://hooks.example/2"}

    assert endpoint_name(old) == endpoint_name(dict(reversed(old.items())))
    assert endpoint_name(old) != endpoint_name(new)
    assert endpoint_name(old).startswith("slack-")
    assert "hooks" not in endpoint_name(old)


def test_the_daemon_names_endpoints_so() -> None:
    """If this breaks, after a 410 the new address at the same place gets nothing, for ever."""
    from service.app import plugins_of

    text = "policies: [{model: m, guards: [{signal: error_rate, max: 0.05}]}]\n"
    alerts = 'alerts: [{kind: log}, {kind: slack, url: "https://hooks.example/1"}]\n'

    _, told = plugins_of(parse(text + alerts))

    settings = [{"kind": "log"}, {"kind": "slack", "url": "https://hooks.example/1"}]
    assert {endpoint_name(one) for one in settings} == set(told)


def test_a_kind_that_is_not_there_says_what_is() -> None:
    """If this breaks, a typing mistake in `kind` cannot be found."""
    with pytest.raises(PluginFault, match=r"no notifier of kind 'slcak'; known: .*log, .*slack"):
        registry().make("slcak")
