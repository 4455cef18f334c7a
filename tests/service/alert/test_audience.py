"""Who hears which notice, and when."""

from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from service.alert.audience import (
    EVERYTHING,
    UNHANDLED_MS,
    Audience,
    Quiet,
    hears,
    notes_of,
    parted,
    quiet_until,
    read_audience,
    send_from,
)
from service.alert.notifiers import endpoint_name
from service.alert.route import Notice, undelivered
from service.app import audiences_of, plugins_of
from service.config import ConfigFaults, parse
from tests.contracts.test_every_notifier import a_notice

BERLIN = ZoneInfo("Europe/Berlin")
NIGHT = Quiet(begins="22:00", ends="07:00", zone="Europe/Berlin")


def at(text: str) -> int:
    """Epoch ms of a time in Berlin; with an offset where the clock shows it twice."""
    moment = datetime.fromisoformat(text)
    moment = moment if moment.tzinfo else moment.replace(tzinfo=BERLIN)
    return round(moment.timestamp() * 1000)


def shown(time_ms: int) -> str:
    return datetime.fromtimestamp(time_ms / 1000, BERLIN).isoformat(timespec="minutes")


def a_tone(tone: str, **changes: Any) -> Notice:
    return a_notice(tone=tone, kind="withheld", **changes)


@pytest.mark.parametrize(
    ("audience", "heard"),
    [
        (Audience(), True),
        (Audience(models=["credit-*"]), True),
        (Audience(models=["fraud-*", "credit-risk"]), True),
        (Audience(models=["fraud-*"]), False),
        (Audience(severity=["question", "person"]), True),
        (Audience(severity=["person"]), False),
        (Audience(models=["credit-*"], severity=["good"]), False),
    ],
)
def test_an_audience_hears_what_concerns_it(audience: Audience, heard: bool) -> None:
    """If this breaks, a team is paged for another team's model, or not for its own."""
    assert heard == hears(audience, a_notice(model="credit-risk", tone="question"))


def test_a_name_with_glob_signs_is_still_that_name() -> None:
    """If this breaks, a model called `v[1]` can never be routed."""
    assert hears(Audience(models=["v[1]"]), a_notice(model="v[1]"))


def test_trouble_of_the_service_itself_passes_every_list_of_models() -> None:
    """If this breaks, a team that hears one model only never learns that its pages go nowhere."""
    trouble = undelivered("slack-1", "slack answered 404", 20_000)

    assert hears(Audience(models=["fraud-*"]), trouble)
    assert not hears(Audience(severity=["good"]), trouble)


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-11-24T21:59", "2026-11-24T21:59+01:00"),
        ("2026-11-24T22:00", "2026-11-25T07:00+01:00"),
        ("2026-11-25T00:00", "2026-11-25T07:00+01:00"),
        ("2026-11-25T06:59", "2026-11-25T07:00+01:00"),
        ("2026-11-25T07:00", "2026-11-25T07:00+01:00"),
        # The night in which an hour is skipped, and the one in which an hour comes twice.
        ("2026-03-28T22:30", "2026-03-29T07:00+02:00"),
        ("2026-03-29T03:30", "2026-03-29T07:00+02:00"),
        ("2026-10-24T22:30", "2026-10-25T07:00+01:00"),
        ("2026-10-25T02:30+02:00", "2026-10-25T07:00+01:00"),
        ("2026-10-25T02:30+01:00", "2026-10-25T07:00+01:00"),
    ],
)
def test_a_night_ends_by_the_clock_on_the_wall(now: str, until: str) -> None:
    """If this breaks, phones ring at six on the morning after the clocks changed."""
    assert until == shown(quiet_until(NIGHT, at(now)))


@pytest.mark.parametrize(
    ("hours", "now", "until"),
    [
        # 02:30 does not exist on 2026-03-29: the night is as long as any other.
        (("01:00", "02:30"), "2026-03-29T01:30", "2026-03-29T03:30+02:00"),
        (("01:00", "02:30"), "2026-03-29T03:30", "2026-03-29T03:30+02:00"),
        # 02:30 comes twice on 2026-10-25; the first one counts.
        (("01:00", "02:30"), "2026-10-25T01:30", "2026-10-25T02:30+02:00"),
        (("01:00", "02:30"), "2026-10-25T02:30+01:00", "2026-10-25T02:30+01:00"),
        (("02:30", "05:00"), "2026-10-25T02:45+01:00", "2026-10-25T05:00+01:00"),
        (("12:00", "13:00"), "2026-11-24T12:30", "2026-11-24T13:00+01:00"),
        (("12:00", "13:00"), "2026-11-24T23:30", "2026-11-24T23:30+01:00"),
        # What YAML makes of 22:00 without quotes.
        ((1320, "07:00"), "2026-11-24T23:30", "2026-11-25T07:00+01:00"),
    ],
)
def test_hours_at_the_edges(hours: tuple[Any, Any], now: str, until: str) -> None:
    """If this breaks, quiet hours never end, or never begin, on two days of the year."""
    quiet = Quiet(begins=hours[0], ends=hours[1], zone="Europe/Berlin")

    assert until == shown(quiet_until(quiet, at(now)))


@pytest.mark.parametrize(
    ("tone", "hour"),
    [("person", "23:00"), ("question", "23:00"), ("good", "07:00"), ("problem", "07:00")],
)
def test_what_needs_someone_never_waits(tone: str, hour: str) -> None:
    """If this breaks, an approval or a call for help sleeps until the morning."""
    sent = send_from([Audience(quiet=NIGHT)], a_tone(tone), at("2026-11-24T23:00"))

    assert sent is not None
    assert hour == shown(sent)[11:16]


def test_a_breach_that_nobody_handles_does_not_wait_for_the_morning() -> None:
    """If this breaks, a daemon that cannot decide is silent all night about a bad version."""
    now = at("2026-11-24T23:00")
    opened = a_tone("problem", pending=True)

    assert now + UNHANDLED_MS == send_from([Audience(quiet=NIGHT)], opened, now)
    # Shortly before the end the night is over first.
    late = at("2026-11-25T06:55")
    assert at("2026-11-25T07:00") == send_from([Audience(quiet=NIGHT)], opened, late)


def test_two_entries_of_one_endpoint_hear_what_either_wants() -> None:
    """If this breaks, a second entry for a channel silences the first one."""
    both = [Audience(models=["fraud-*"]), Audience(models=["credit-*"], quiet=NIGHT)]
    now = at("2026-11-24T23:00")

    assert now == send_from(both, a_tone("good", model="fraud-eu"), now)
    assert at("2026-11-25T07:00") == send_from(both, a_tone("good", model="credit-risk"), now)
    assert None is send_from(both, a_tone("good", model="other"), now)
    assert now == send_from(EVERYTHING, a_tone("good", model="other"), now)


def test_all_faults_of_an_entry_are_found_at_once() -> None:
    """If this breaks, people fix their settings one line at a time, or a night never ends."""
    entry = {
        "kind": "slack", "models": [], "severity": ["problem", "loud"],
        "quiet": {"from": "25:00", "to": "07:00", "zon": "UTC"},
    }  # fmt: skip
    own, settings = parted(entry)
    lines: list[str] = []

    assert Audience() == read_audience(settings, "alerts[0]", lines)
    assert {"kind": "slack"} == own
    assert ["alerts[0].severity[1]", "alerts[0].quiet.zon", "alerts[0].models"] == [
        line.split(":")[0] for line in lines
    ]

    lines = []
    quiet = {"from": "25:00", "to": "07:00", "zone": "Europe/Nowhere"}
    read_audience({"models": [], "severity": [], "quiet": quiet}, "alerts[0]", lines)
    assert [
        "alerts[0].models", "alerts[0].severity", "alerts[0].quiet.from", "alerts[0].quiet.zone",
    ] == [x.split(":")[0] for x in lines]  # fmt: skip

    lines = []
    read_audience({"quiet": {"from": "7:00", "to": 420, "zone": "../etc/passwd"}}, "a", lines)
    assert ["a.quiet.to", "a.quiet.zone"] == [x.split(":")[0] for x in lines]


def test_a_tone_that_nobody_hears_of_every_model_is_noted() -> None:
    """If this breaks, a new model's breach reaches nobody and nobody was told so."""
    assert [] == notes_of([Audience()])
    assert [] == notes_of(
        [Audience(severity=["person"]), Audience(severity=["problem", "question", "good"])]
    )
    (note,) = notes_of([Audience(models=["fraud-*"]), Audience(severity=["person", "question"])])
    assert note.startswith("alerts: no endpoint hears problem, good of every model;")


SETTINGS = """
policies: [{{model: m}}]
alerts:
  - {{kind: log, models: [fraud-*], quiet: {{from: 22:00, to: "07:00", zone: Europe/Berlin}}}}
  - {{kind: log, severity: [person]}}
  - {{kind: webhook, url: "https://hooks.example/x"{more}}}
"""


def test_the_settings_file_gives_each_endpoint_its_audiences() -> None:
    """If this breaks, what a file says about routes acts on nobody, or quiet hours rename it."""
    config = parse(SETTINGS.format(more=""))
    audiences = audiences_of(config)
    _, notifiers = plugins_of(config)

    assert notifiers.keys() == audiences.keys()
    assert {
        endpoint_name({"kind": "log"}): (
            Audience(["fraud-*"], quiet=Quiet(begins=1320, ends="07:00", zone="Europe/Berlin")),
            Audience(severity=["person"]),
        ),
        endpoint_name({"kind": "webhook", "url": "https://hooks.example/x"}): EVERYTHING,
    } == audiences
    assert {endpoint_name({"kind": "log"}): EVERYTHING} == audiences_of(
        parse("policies: [{model: m}]")
    )


def test_faults_of_routes_stand_beside_those_of_the_notifier() -> None:
    """If this breaks, `check` accepts an entry that then hears nothing."""
    config = parse(SETTINGS.format(more=", urll: x, severity: [], quiet: {from: never}"))

    with pytest.raises(ConfigFaults) as found:
        plugins_of(config)

    assert ["alerts[2]", "alerts[2].quiet.to", "alerts[2].severity"] == [
        line.split(":")[0] for line in found.value.lines
    ]
