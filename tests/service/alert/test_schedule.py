"""When a message is tried again."""

import pytest

from service.alert.schedule import LONGEST_LIFE_S, PAUSES_S, next_try


def test_failures_are_tried_over_three_days_and_then_given_up() -> None:
    """If this breaks, a weekend's outage of chat loses the message, or it is tried for ever."""
    tries = [next_try("d", failures, 0, False, None) for failures in range(len(PAUSES_S) + 1)]

    assert tries[-1] is None
    assert 9 == len(PAUSES_S)
    assert 75 < sum(PAUSES_S) / 3600 < 76
    for found, pause_s in zip(tries, PAUSES_S, strict=False):
        assert found is not None
        assert found.failed
        assert 0.5 * pause_s <= found.after_s < 1.5 * pause_s


def test_messages_held_back_together_do_not_return_together() -> None:
    """If this breaks, an endpoint that comes back is knocked over at once."""
    pauses = {round(next_try(f"d{n}", 1, 0, False, None).after_s) for n in range(50)}  # type: ignore[union-attr]

    assert len(pauses) > 35
    assert next_try("d", 1, 0, False, None) == next_try("d", 1, 0, False, None)


@pytest.mark.parametrize(
    ("asked_s", "pause_s"), [(None, 30.0), (7.0, 7.0), (0.0, 1.0), (90_000.0, 3600.0)]
)
def test_throttling_waits_as_asked_and_is_no_failure(asked_s: float | None, pause_s: float) -> None:
    """If this breaks, a busy hour in chat uses up the tries of a page."""
    found = next_try("d", 9, 10, True, asked_s)

    assert found is not None
    assert (pause_s, False) == found


def test_a_pause_that_is_asked_for_is_kept_after_a_failure_too() -> None:
    """If this breaks, a 502 with Retry-After is answered by a hammering."""
    found = next_try("d", 0, 0, False, 1000.0)

    assert found is not None
    assert (1000.0, True) == found


def test_a_platform_that_only_throttles_does_not_keep_a_message_for_ever() -> None:
    """If this breaks, the queue of a broken endpoint grows without end."""
    assert next_try("d", 0, LONGEST_LIFE_S + 1, True, 1.0) is None
