"""One alert per burst of refused input."""

from __future__ import annotations

import json

from schemas.ids import derive
from service.ingest.refuse import RefusedShare, page


def test_one_alert_per_burst() -> None:
    """If this breaks, a broken producer is silent, or pages a person every second."""
    share = RefusedShare(limit=0.01, minimum=100)
    assert share.too_many("predictions", 1000, 10, 0.0) is None  # exactly the limit
    assert 0.0105 == share.too_many("predictions", 1000, 11, 1.0)
    assert share.too_many("predictions", 1000, 500, 2.0) is None
    assert share.too_many("predictions", 1000, 0, 3.0) is None
    # A minute later the burst is forgotten; the next one is told again.
    assert share.too_many("predictions", 1000, 0, 70.0) is None
    assert 0.05 == share.too_many("predictions", 1000, 100, 71.0)


def test_few_messages_mean_nothing() -> None:
    """If this breaks, the first mistake of a quiet topic pages a person."""
    share = RefusedShare(limit=0.01, minimum=100)
    assert share.too_many("outcomes", 99, 99, 0.0) is None
    assert 1.0 == share.too_many("outcomes", 1, 1, 0.5)


def test_topics_are_counted_apart_and_none_means_never() -> None:
    """If this breaks, a good topic hides a bad one, or an operator's choice is ignored."""
    share = RefusedShare(limit=0.5, minimum=1)
    assert share.too_many("predictions", 1000, 0, 0.0) is None
    assert 1.0 == share.too_many("outcomes", 10, 10, 0.0)
    never = RefusedShare(limit=None, minimum=1)
    assert never.too_many("outcomes", 10, 10, 0.0) is None


def test_pages_of_one_topic_are_one_incident() -> None:
    """If this breaks, each burst looks like a new incident."""
    first, second = (json.loads(page("outcomes", "gap", "text", at)) for at in (1, 2))
    assert derive("intake", "outcomes") == first["incident_id"] == second["incident_id"]
    assert first["progress_id"] != second["progress_id"]
    assert ("*", "paged") == (first["model"], first["kind"])
