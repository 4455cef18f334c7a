"""The demonstration's data and models: the mistake is real, and so is what the text claims."""

import pytest

from service.demo.models import Pair, rates, train_pair
from service.demo.people import COLUMNS, People, load


@pytest.fixture(scope="module")
def people() -> People:
    return load()


@pytest.fixture(scope="module")
def pair(people: People) -> Pair:
    return train_pair(people.past)


def test_people_are_whole_and_both_kinds_are_many(people: People) -> None:
    """If this breaks, the bundled file is cut, or the demonstration compares nothing."""
    assert (8000, 16000) == (len(people.past), len(people.present))
    assert all(set(COLUMNS) == set(person.features) for person in people.present[:100])
    share = sum(person.employed for person in people.present) / len(people.present)
    assert 0.45 < share < 0.55


def test_stable_is_a_fair_model(people: People, pair: Pair) -> None:
    """If this breaks, anything would look bad or good beside stable."""
    measured = rates(pair.stable, people.present)

    assert pytest.approx(0.195, abs=0.01) == measured.error
    assert pytest.approx(0.246, abs=0.02) == measured.false_positive


def test_canary_was_better_before_it_was_served(people: People, pair: Pair) -> None:
    """If this breaks, the release would not have been made and the story is made up."""
    notebook = rates(pair.notebook, people.present)

    assert pytest.approx(0.182, abs=0.01) == notebook.error
    assert notebook.error < rates(pair.stable, people.present).error


def test_canary_as_served_is_worse_but_not_absurd(people: People, pair: Pair) -> None:
    """If this breaks, there is nothing to catch, or something that nobody could miss."""
    served = rates(pair.canary, people.present)

    assert pytest.approx(0.267, abs=0.01) == served.error
    assert pytest.approx(0.501, abs=0.03) == served.false_positive


def test_the_mistake_is_the_name_of_the_age_alone(pair: Pair) -> None:
    """If this breaks, more is wrong with the canary than the demonstration says."""
    features = dict.fromkeys(COLUMNS, 1) | {"AGEP": 70}

    assert pair.canary.weights == pair.notebook.weights
    assert pair.canary.score(features) == pair.canary.score(features | {"AGEP": 8})
    assert pair.notebook.score(features) == pair.canary.score(features | {"AGE": 70})
    assert pair.notebook.score(features | {"AGEP": 42}) == pair.canary.score(features)
