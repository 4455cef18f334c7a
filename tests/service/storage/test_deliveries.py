"""The outbox on both databases."""

import threading
from typing import Any

import sqlalchemy as sa

from service.storage.deliveries import DeliveryStore, NewDelivery
from tests.builders import NOW

LEASE_MS = 60_000


def a_delivery(name: str = "d1", **changes: Any) -> NewDelivery:
    made = NewDelivery(name, "slack-1", "incident", "opened", {"text": name}, NOW)
    return made._replace(**changes)


def test_deliveries_and_position_are_one_step(store: sa.Engine) -> None:
    """If this breaks, two daemons tell everything twice."""
    outbox = DeliveryStore(store)

    assert outbox.position() is None
    assert outbox.enqueue([a_delivery()], None, NOW, 7) is True
    assert outbox.enqueue([a_delivery("again")], None, NOW, 7) is False
    assert outbox.enqueue([a_delivery("late")], 5, NOW, 9) is False
    assert 7 == outbox.position()
    assert {("slack-1", "queued"): 1} == outbox.counts()
    assert outbox.enqueue([a_delivery()], 7, NOW, 8) is True
    assert {("slack-1", "queued"): 1} == outbox.counts()


def test_one_of_many_claims_a_row(store: sa.Engine) -> None:
    """If this breaks, two daemons send the same message."""
    outbox = DeliveryStore(store)
    outbox.enqueue([a_delivery(f"d{n}", kind="paged") for n in range(20)], None, NOW, 1)
    claimed: list[str] = []

    def claim() -> None:
        misses = 0
        while misses < 5:
            found = outbox.claim("slack-1", NOW, LEASE_MS)
            misses += found is None
            if found is not None:
                claimed.append(found.delivery_id)

    threads = [threading.Thread(target=claim) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(f"d{n}" for n in range(20)) == sorted(claimed)


def test_a_sender_that_died_is_followed_after_the_lease(store: sa.Engine) -> None:
    """If this breaks, a kill between claim and answer loses a message, or its late end counts."""
    outbox = DeliveryStore(store)
    outbox.enqueue([a_delivery()], None, NOW, 1)
    died = outbox.claim("slack-1", NOW, LEASE_MS)
    assert died is not None

    assert outbox.claim("slack-1", NOW + LEASE_MS - 1, LEASE_MS) is None
    second = outbox.claim("slack-1", NOW + LEASE_MS, LEASE_MS)

    assert second is not None
    assert ({"text": "d1"}, 2) == (second.payload, second.claim)
    assert outbox.sent(died) is False
    assert outbox.sent(second) is True
    assert {("slack-1", "sent"): 1} == outbox.counts()


def test_what_follows_takes_the_place_of_an_opening_that_nobody_saw(store: sa.Engine) -> None:
    """If this breaks, people get two messages at once, or lose one that was under way."""
    outbox = DeliveryStore(store)
    other = a_delivery("other", incident_id="another")
    outbox.enqueue([a_delivery("first"), other], None, NOW, 1)
    outbox.enqueue([a_delivery("second", kind="withheld")], 1, NOW, 2)

    assert {("slack-1", "queued"): 2, ("slack-1", "superseded"): 1} == outbox.counts()

    claimed = [outbox.claim("slack-1", NOW, LEASE_MS) for _ in range(3)]
    outbox.enqueue([a_delivery("third", incident_id="another", kind="paged")], 2, NOW, 3)
    assert {"other", "second", None} == {c and c.delivery_id for c in claimed}
    assert 1 == outbox.counts()["slack-1", "superseded"]


def test_throttling_pauses_the_endpoint_and_counts_no_failure(store: sa.Engine) -> None:
    """If this breaks, a 429 either hammers Slack or uses up the tries of a page."""
    outbox = DeliveryStore(store)
    outbox.enqueue([a_delivery("a", kind="paged"), a_delivery("b", kind="paged")], None, NOW, 1)
    first = outbox.claim("slack-1", NOW, LEASE_MS)
    assert first is not None
    outbox.retry(first, "slack answered 429", NOW + 5000, failed=False)
    outbox.pause("slack-1", NOW + 5000)

    assert outbox.claim("slack-1", NOW + 4999, LEASE_MS) is None
    again = [outbox.claim("slack-1", NOW + 5000, LEASE_MS) for _ in range(2)]

    assert {("a", 0), ("b", 0)} == {(c.delivery_id, c.failures) for c in again if c}


def test_a_disabled_endpoint_buries_what_waits_and_can_be_replayed(store: sa.Engine) -> None:
    """If this breaks, messages to a channel that is gone vanish without a trace."""
    outbox = DeliveryStore(store)
    outbox.enqueue([a_delivery("a"), a_delivery("b", endpoint="log-1")], None, NOW, 1)

    outbox.disable("slack-1", "slack answered 410")

    assert {"slack-1": "slack answered 410"} == outbox.disabled()
    assert outbox.claim("slack-1", NOW, LEASE_MS) is None
    assert [("a", "slack answered 410")] == [(d.delivery_id, d.reason) for d in outbox.dead()]
    assert outbox.claim("log-1", NOW, LEASE_MS) is not None
    assert (True, False) == (outbox.revive("a", NOW), outbox.revive("b", NOW))
    assert [] == outbox.dead()
