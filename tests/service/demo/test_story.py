"""What the demonstration says of itself comes from the daemon's words."""

import io
from typing import Any

import msgspec
import pytest
from rich.console import Console

from schemas.ids import incident_id
from schemas.incidents import fold
from service.demo.screen import Screen
from service.demo.story import Story
from tests.builders import NOW, a_breach, a_command, a_receipt, an_entry

ENTRIES = [
    an_entry(kind="opened", at=NOW + 6000, data=msgspec.to_builtins(a_breach()), text="it fails"),
    an_entry(kind="command", at=NOW + 6100, data=msgspec.to_builtins(a_command())),
    an_entry(kind="receipt", at=NOW + 6300, data=msgspec.to_builtins(a_receipt())),
    an_entry(kind="verified", at=NOW + 7000, text="v42 served 0 of 60"),
]


def an_incident(count: int) -> dict[str, Any]:
    """An incident after so many of its entries, as the API gives it."""
    incident = fold(ENTRIES[:count])
    return dict(msgspec.to_builtins(incident))


def a_story(count: int) -> Story:
    """The canary started at NOW and the incident has come so far."""
    story = Story()
    story.mark("serving", NOW - 3000)
    story.mark("canary", NOW)
    if count:
        story.learn(an_incident(count))
    return story


def test_steps_are_timed_from_the_canarys_start() -> None:
    """If this breaks, the times that the demonstration prints are not what happened."""
    story = a_story(4)

    steps = ("detected", "commanded", "applied", "verified")
    assert [6.0, 6.1, 6.3, 7.0] == [story.seconds(step) for step in steps]
    assert story.verified


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "no breach was detected"),
        (1, "no rollback was commanded"),
        (2, "no receipt says that it was applied"),
        (3, "traffic did not confirm it"),
    ],
)
def test_what_is_missing_is_named(count: int, words: str) -> None:
    """If this breaks, a failed demonstration does not say where it failed."""
    story = a_story(count)

    assert not story.verified
    assert words in story.missing()


def test_a_failed_receipt_is_not_applied() -> None:
    """If this breaks, the demonstration claims a rollback that the platform refused."""
    story = Story()
    failed = msgspec.to_builtins(a_receipt(status="failed"))
    story.learn(msgspec.to_builtins(fold([*ENTRIES[:2], an_entry(kind="receipt", data=failed)])))

    assert "applied" not in story.marks


def test_a_drift_warning_is_no_detection() -> None:
    """If this breaks, the demonstration claims a breach where nothing would be rolled back."""
    warned = msgspec.to_builtins(a_breach(action="alert"))
    story = Story()
    story.learn(msgspec.to_builtins(fold([an_entry(kind="opened", data=warned)])))

    assert "detected" not in story.marks


def test_without_a_terminal_every_step_is_one_plain_line() -> None:
    """If this breaks, a log of the demonstration is empty or full of control codes."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=120), "http://127.0.0.1:1/", a_story(4))
    with screen.live():
        for step in screen.story.marks:
            screen.reached(step)

    assert "\x1b" not in written.getvalue()
    assert [
        "v41 serves everybody (-3.0 s)",
        "v42 takes its share",
        "breach detected (+6.0 s)",
        "rollback commanded (+6.1 s)",
        "router moved (+6.3 s)",
        "traffic confirms it (+7.0 s)",
    ] == written.getvalue().splitlines()


def test_a_terminal_shows_steps_shares_and_the_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """If this breaks, people see nothing of what happens before it is over."""
    monkeypatch.setenv("NO_COLOR", "1")
    screen = Screen(Console(force_terminal=True, width=160), "http://127.0.0.1:1/", a_story(1))
    screen.shares = {"v41": 0.8, "v42": 0.2}
    version = {"version": "v42", "verdict": "breach", "text": "v42 [fails]", "outcomes": 7}
    screen.story.model = {"versions": [version]}
    with screen.console.capture() as shown:
        screen.console.print(screen.picture())

    for words in ("http://127.0.0.1:1/", "breach detected", "+6.0 s", "20.0%", "v42 [fails]"):
        assert words in shown.get()


def test_the_incident_is_told_whole() -> None:
    """If this breaks, `--once` ends without the incident that it promises."""
    written = io.StringIO()
    screen = Screen(Console(file=written, width=120), "http://127.0.0.1:1/", a_story(4))
    screen.summary()

    for words in (incident_id("credit-risk", "v42", "r1"), "it fails", "v42 served 0 of 60"):
        assert words in written.getvalue()
