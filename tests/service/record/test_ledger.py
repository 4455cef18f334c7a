"""Messages to entries, purely."""

import pytest

from schemas.incidents import fold
from service.record.ledger import (
    entry_of_breach,
    entry_of_command,
    entry_of_progress,
    entry_of_receipt,
)
from tests.builders import NOW, a_breach, a_command, a_progress, a_receipt


def test_the_first_breach_opens_and_later_ones_are_evidence() -> None:
    """If this breaks, an incident is opened twice, or a replay turns its opening into evidence."""
    first, second = a_breach(), a_breach(guard="latency_ms")

    kinds = [
        entry_of_breach(first, None, NOW).kind,
        entry_of_breach(second, first.breach_id, NOW).kind,
        entry_of_breach(first, first.breach_id, NOW + 5).kind,
    ]

    assert ["opened", "evidence", "opened"] == kinds


def test_the_same_message_gives_the_same_id_whenever_it_comes() -> None:
    """If this breaks, a replay writes the story a second time."""
    early = [
        entry_of_breach(a_breach(), None, NOW),
        entry_of_command(a_command(), NOW),
        entry_of_receipt(a_receipt(), NOW),
        entry_of_progress(a_progress(), "v42", NOW),
    ]
    late = [
        entry_of_breach(a_breach(), a_breach().breach_id, NOW + 9),
        entry_of_command(a_command(), NOW + 9),
        entry_of_receipt(a_receipt(), NOW + 9),
        entry_of_progress(a_progress(), "v42", NOW + 9),
    ]

    assert [entry.entry_id for entry in early] == [entry.entry_id for entry in late]
    assert 4 == len({entry.entry_id for entry in early})


def test_an_alert_only_breach_is_open_and_says_that_nothing_follows() -> None:
    """If this breaks, people wait for a rollback that never comes."""
    entry = entry_of_breach(a_breach(action="alert"), None, NOW)
    incident = fold([entry])

    assert entry.text.startswith("Alert only: v42 fails")
    assert incident is not None
    assert ("open", "guard_alarmed") == (incident.state, incident.reason)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("applied", "applied"), ("already_there", "applied"), ("superseded", "resolved"),
        ("refused", "failed"), ("expired", "failed"), ("failed", "failed"), ("partial", "failed"),
    ],
)  # fmt: skip
def test_a_receipt_says_what_came_of_it(status: str, state: str) -> None:
    """If this breaks, a failed rollback reads like a done one."""
    receipt = a_receipt(status=status, detail={"reason": "weight is locked"})

    entries = [
        entry_of_breach(a_breach(), None, NOW),
        entry_of_command(a_command(), NOW),
        entry_of_receipt(receipt, NOW),
    ]
    incident = fold(entries)

    assert incident is not None
    assert state == incident.state
    assert entries[2].text.endswith("(prod): weight is locked")
    assert ("v41" if state == "applied" else None) == incident.rolled_back_to


def test_the_text_of_a_command_names_who_and_which_try() -> None:
    """If this breaks, the post-mortem cannot tell a person's order from our own."""
    texts = [
        entry_of_command(command, NOW).text
        for command in (
            a_command(),
            a_command(actor="ann", hop=2, dry_run=True),
            a_command(action="shift", weight=0.25),
            a_command(action="promote", to_version="v42"),
        )
    ]

    assert [
        "Rollback from v42 to v41 ordered on prod. v42 fails error_rate.",
        "Dry run: Rollback from v42 to v41 ordered by ann on prod, try 2. v42 fails error_rate.",
        "Shift of v42 to 25% ordered on prod. v42 fails error_rate.",
        "Promotion of v42 ordered on prod. v42 fails error_rate.",
    ] == texts


def test_the_whole_message_is_kept_and_readable() -> None:
    """If this breaks, the evidence of a decision is lost with the topic's retention."""
    entry = entry_of_breach(a_breach(weight=float("inf")), None, NOW)

    assert "credit-risk" == entry.data["model"]
    assert 4210 == entry.data["evidence"]["n"]
    assert entry.data["weight"] is None
