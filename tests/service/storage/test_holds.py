"""Holds on both databases."""

import pytest
import sqlalchemy as sa

from service.storage.holds import HoldStore
from tests.builders import NOW, a_hold


def test_a_hold_blocks_its_model_and_the_kill_switch_all(store: sa.Engine) -> None:
    """If this breaks, automatic action goes on under an operator's hold."""
    holds = HoldStore(store)
    holds.set(a_hold())

    assert "migration" == holds.blocking("credit-risk", NOW).reason  # type: ignore[union-attr]
    assert holds.blocking("other", NOW) is None

    holds.set(a_hold(model="*", reason="all stop"))
    assert "all stop" == holds.blocking("other", NOW).reason  # type: ignore[union-attr]
    assert "migration" == holds.blocking("credit-risk", NOW).reason  # type: ignore[union-attr]
    assert ["*", "credit-risk"] == [hold.model for hold in holds.all(NOW)]


def test_a_hold_ends_at_its_time_or_by_release(store: sa.Engine) -> None:
    """If this breaks, a forgotten hold keeps a bad version in traffic for ever."""
    holds = HoldStore(store)
    holds.set(a_hold(until=NOW + 1000))
    holds.set(a_hold(model="m2"))

    assert holds.blocking("credit-risk", NOW + 999) is not None
    assert holds.blocking("credit-risk", NOW + 1000) is None

    holds.set(a_hold(model="m2", active=False, at=NOW + 1))
    assert [] == holds.all(NOW + 1000)


def test_the_topic_does_not_undo_what_a_person_did_later(store: sa.Engine) -> None:
    """If this breaks, a replay of the topic `holds` releases a model that was held since."""
    holds = HoldStore(store)
    holds.set(a_hold(at=NOW + 10))

    assert holds.fold(a_hold(active=False, at=NOW + 5)) is False
    assert holds.blocking("credit-risk", NOW) is not None
    assert holds.fold(a_hold(active=False, at=NOW + 20)) is True
    assert holds.fold(a_hold(active=False, at=NOW + 20)) is True
    assert holds.blocking("credit-risk", NOW) is None


@pytest.mark.parametrize("active", [True, False])
def test_a_slow_clock_does_not_make_a_person_unheard(store: sa.Engine, active: bool) -> None:
    """If this breaks, the kill switch pulled on a machine with a slow clock does nothing."""
    holds = HoldStore(store)
    holds.set(a_hold(active=not active, at=NOW + 60_000))

    stored = holds.set(a_hold(active=active, at=NOW))

    assert NOW + 60_001 == stored.at
    assert active == (holds.blocking("credit-risk", NOW) is not None)
    assert holds.fold(stored) is True
    assert active == (holds.blocking("credit-risk", NOW) is not None)


def test_a_store_that_cannot_be_read_raises(sqlite_store: sa.Engine) -> None:
    """If this breaks, a broken database counts as "no hold" and automatic action goes on."""
    with sqlite_store.begin() as connection:
        connection.execute(sa.text("DROP TABLE holds"))

    with pytest.raises(sa.exc.SQLAlchemyError):
        HoldStore(sqlite_store).blocking("m", NOW)
