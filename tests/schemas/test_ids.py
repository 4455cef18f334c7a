"""Derived ids: equal for the same thing, different for different things."""

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.ids import breach_id, command_id, derive, entry_id, incident_id, rollout_id

FIELDS = st.lists(st.text(st.sampled_from('ab:|/\0\n ,\\"1'), max_size=4) | st.text(), max_size=4)


@given(FIELDS, FIELDS)
@example(["a", "bc"], ["ab", "c"])
@example(["a:b"], ["a", "b"])
@example(["a", ""], ["a"])
@example(["", "a"], ["a", ""])
@example(["\0"], ["", ""])
def test_no_two_lists_of_fields_share_an_id(one: list[str], other: list[str]) -> None:
    """If this breaks, one model's rollback is taken for another's and never carried out."""
    assert (one == other) == (derive("x", *one) == derive("x", *other))


@given(FIELDS)
def test_the_kind_is_part_of_what_an_id_stands_for(fields: list[str]) -> None:
    """If this breaks, a breach and its command could have the same id."""
    assert derive("breach", *fields) != derive("command", *fields)
    assert derive("breach", *fields) != derive("", "breach", *fields)


def test_ids_stay_the_same_for_ever() -> None:
    """If this breaks, an upgrade repeats every open command under a new id."""
    incident = incident_id("credit-risk", "v42", "r1")

    assert "2ea9ccd7c694721b" == incident[:16]
    assert 32 == len(incident)
    assert incident == incident_id("credit-risk", "v42", "r1")


def test_another_hop_segment_or_cause_is_another_thing() -> None:
    """If this breaks, the second try after an unverified rollback is dropped as a repeat."""
    ids = [
        command_id("i", "rollback", "v41", 1), command_id("i", "rollback", "v41", 2),
        command_id("i", "hold", "v41", 1), breach_id("i", "g"), breach_id("i", "g", "eu"),
        entry_id("i", "note", "a"), entry_id("i", "note", "b"),
        rollout_id("m", "v41", None, 1), rollout_id("m", "v41", "v42", 1),
    ]  # fmt: skip

    assert len(ids) == len(set(ids))


def test_a_name_with_a_lone_surrogate_has_an_id() -> None:
    """If this breaks, a name that only Python can hold stops the decision that needs its id."""
    assert derive("x", "\ud800") != derive("x", "?")
