"""Folding entries into an incident."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from schemas.incidents import Entry, EntryKind, fold
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
    a_progress,
    a_proposal,
    a_receipt,
    an_entry,
)

FIRST = a_command().command_id


def opened() -> Entry:
    return entry_of_breach(a_breach(), None, NOW)


def command(hop: int = 1) -> Entry:
    return entry_of_command(a_command(command_id=id_of(hop), hop=hop), NOW)


def receipt(status: str = "applied", hop: int = 1) -> Entry:
    return entry_of_receipt(a_receipt(status=status, command_id=id_of(hop)), NOW)


def progress(kind: EntryKind, hop: int | None = 1, reason: str = "share") -> Entry:
    """What `watch` said; it names the newest command, or none before the first."""
    said = a_progress(kind=kind, reason=reason, command_id=None if hop is None else id_of(hop),
                      progress_id=f"{kind} {reason} {hop}")  # fmt: skip
    return entry_of_progress(said, "v42", NOW)


def proposed() -> Entry:
    return entry_of_progress(a_proposal(), "v42", NOW)


def id_of(hop: int) -> str:
    return FIRST if hop == 1 else f"hop {hop}"


STORIES: dict[str, tuple[str, list[Entry]]] = {
    "a breach alone": ("open", [opened()]),
    "withheld": ("withheld", [opened(), progress("withheld", None, "hold")]),
    "a hold that ended": (
        "commanded", [opened(), progress("withheld", None, "hold"), command()],
    ),
    "proposed": ("proposed", [opened(), proposed()]),
    "approved": ("proposed", [opened(), proposed(), progress("approved")]),
    "rejected": ("resolved", [opened(), proposed(), progress("rejected", None)]),
    "approved and applied": (
        "applied", [opened(), proposed(), progress("approved"), command(), receipt()],
    ),
    "applied": ("applied", [opened(), command(), receipt()]),
    "already there": ("applied", [opened(), command(), receipt("already_there")]),
    "superseded": ("resolved", [opened(), command(), receipt("superseded")]),
    "refused": ("failed", [opened(), command(), receipt("refused"), progress("paged")]),
    "partial": ("failed", [opened(), command(), receipt("partial")]),
    "verified": ("verified", [opened(), command(), receipt(), progress("verified")]),
    "unverified": (
        "unverified",
        [opened(), command(), receipt(), progress("unverified"), progress("paged")],
    ),
    "a second hop": (
        "commanded",
        [opened(), command(), receipt(), progress("unverified"), progress("escalated"), command(2)],
    ),
    "a second hop withheld": (
        "withheld",
        [opened(), command(), receipt(), progress("unverified"), progress("withheld", 1, "hold")],
    ),
    "verified by the second hop": (
        "verified",
        [opened(), command(), receipt(), progress("unverified"), command(2), receipt("applied", 2),
         progress("verified", 2)],
    ),
    "a late expiry, then a second hop": (
        "applied", [opened(), command(), receipt("expired"), command(2), receipt("applied", 2)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", STORIES)
def test_a_story_has_one_end_in_whatever_order_its_topics_were_read(name: str) -> None:
    """If this breaks, an incident that traffic has confirmed goes back to "open" on the page."""
    state, story = STORIES[name]

    for order in itertools.permutations(story):
        incident = fold(order)
        assert incident is not None
        assert (state, "v42", NOW) == (incident.state, incident.version, incident.opened_at)
        assert (a_breach().text, "guard_alarmed", "v41") == (
            incident.text, incident.reason, incident.stable,
        )  # fmt: skip
        assert ["error_rate"] == incident.guards
        assert max(entry.at for entry in story) == incident.updated_at


def test_no_entries_are_no_incident() -> None:
    """If this breaks, an unknown id shows an empty incident instead of 404."""
    assert fold([]) is None


def test_every_step_of_a_story_shows_where_it_stands() -> None:
    """If this breaks, the page says "open" while a rollback is under way."""
    story = [
        opened(), proposed(), progress("approved"), command(), receipt(), progress("unverified"),
        progress("escalated"), command(2), receipt("applied", 2), progress("verified", 2),
        an_entry(kind="note"), an_entry(kind="acknowledged"), an_entry(kind="resolved"),
    ]  # fmt: skip

    states = [getattr(fold(story[: n + 1]), "state", None) for n in range(len(story))]

    assert [
        "open", "proposed", "proposed", "commanded", "applied", "unverified", "unverified",
        "commanded", "applied", "verified", "verified", "verified", "resolved",
    ] == states  # fmt: skip


def test_a_receipt_before_its_command_shows_at_once() -> None:
    """If this breaks, a rollback that is done is shown as still to do."""
    incident = fold([opened(), command(), receipt("failed"), receipt("applied", 2)])

    assert incident is not None
    assert "applied" == incident.state


def test_a_receipt_that_is_written_again_replaces_the_one_before() -> None:
    """If this breaks, a command that was carried out at the second attempt stays failed."""
    incident = fold([opened(), command(), receipt("failed"), receipt("applied")])

    assert incident is not None
    assert ("applied", "v41", ["failed", "applied"]) == (
        incident.state, incident.rolled_back_to, incident.receipts,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("entries", "fields"),
    [
        ([command()], {"commands": [FIRST], "mode": "enforce", "rolled_back_to": None}),
        ([receipt("failed")], {"receipts": ["failed"], "rolled_back_to": None}),
        ([receipt("already_there")], {"rolled_back_to": "v41"}),
        ([entry_of_breach(a_breach(guard="latency"), "another", NOW)],
         {"guards": ["error_rate", "latency"]}),
    ],
)  # fmt: skip
def test_what_is_known_is_gathered(entries: list[Entry], fields: dict[str, Any]) -> None:
    """If this breaks, the list of incidents lacks its guards, commands or target."""
    incident = fold([opened(), *entries])

    assert fields == {name: getattr(incident, name) for name in fields}
    assert incident is not None
    assert [opened(), *entries] == incident.entries


def test_a_person_can_start_with_a_note() -> None:
    """If this breaks, an incident whose breach is recorded late has no line of its own."""
    incident = fold([an_entry(text="I look into it", reason="person")])

    assert incident is not None
    assert ("open", "I look into it", "person") == (incident.state, incident.text, incident.reason)
