"""Folding entries into an incident."""

import itertools

from schemas.incidents import fold
from service.record.ledger import (
    entry_of_breach,
    entry_of_command,
    entry_of_progress,
    entry_of_receipt,
)
from tests.builders import NOW, a_breach, a_command, a_progress, a_receipt


def test_no_entries_are_no_incident() -> None:
    """If this breaks, an unknown id shows an empty incident instead of 404."""
    assert fold([]) is None


def test_the_story_ends_the_same_in_whatever_order_its_topics_were_read() -> None:
    """If this breaks, an incident goes back to "open" because its breach was recorded late."""
    before = [
        entry_of_breach(a_breach(), None, NOW),
        entry_of_command(a_command(), NOW),
        entry_of_receipt(a_receipt(), NOW),
    ]
    verified = entry_of_progress(a_progress(), "v42", NOW)

    for order in itertools.permutations(before):
        incident = fold(order)
        assert incident is not None
        assert ("applied", "v42", NOW) == (incident.state, incident.version, incident.opened_at)
        assert a_breach().text == incident.text
    for order in itertools.permutations([*before, verified]):
        incident = fold(order)
        assert incident is not None
        assert ("verified", "v41") == (incident.state, incident.rolled_back_to)
