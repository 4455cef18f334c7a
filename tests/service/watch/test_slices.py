"""Guards that watch each value of a segment apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from schemas.facts import Breach
from schemas.observations import Observations
from schemas.policies import GuardSpec, Policy
from schemas.verdicts import Verdict
from service.watch.absorb import equip
from service.watch.forecast import Traffic, forecast
from service.watch.order import Said
from service.watch.step import Book
from service.watch.view import view_of
from tests.service.replay.recordings import a_prediction, packed, replayed
from tests.service.replay.recordings import a_rollout as a_plan
from tests.service.watch.traffic import (
    REGISTRY,
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    in_pieces,
    kinds,
    play,
    restarted,
)

BY_COUNTRY = GuardSpec(signal="error_rate", max=0.05, segment="country")
COUNTRIES = ["DE", "FR", "AT"]


def seconds(
    count: int, bad: Mapping[str, float], countries: Sequence[str] = COUNTRIES, seed: int = 5
) -> list[Observations]:
    """Messages of a hundred predictions, half v42's, of countries in turn; `bad` is v42's rate."""
    random = np.random.default_rng(seed)
    messages = []
    for second in range(count):
        row = np.arange(100) + second * 100
        country = random.integers(0, len(countries), 100)
        version = random.integers(0, 2, 100)
        chance = np.array([bad.get(name, 0.01) for name in countries])[country]
        error = random.random(100) < np.where(version == 1, chance, 0.01)
        # One in twenty tells no country.
        code = np.where(random.random(100) < 0.05, 0, country + 1)
        columns: dict[str, Any] = {
            "offset": row, "served_ms": START_MS + row * 10, "version": version,
            "error": error, "segment:country": code,
        }  # fmt: skip
        messages.append(a_message(a_block(**columns), classes=list(countries),
                                  watermark_ms=START_MS + int(row[-1]) * 10))  # fmt: skip
    return messages


def a_sliced_policy(**changes: object) -> Policy:
    return a_policy(**({"guards": [BY_COUNTRY]} | changes))


def a_started_book(policy: Policy) -> Book:
    book = a_book(policy)
    book.roll_out(a_rollout(weight=0.5), START_MS)
    return book


def breaches(said: list[Said]) -> list[Breach]:
    return [fact for fact in said if isinstance(fact, Breach)]


def last_verdict(said: list[Said], version: str = "v42") -> Verdict:
    return [v for v in said if isinstance(v, Verdict) and v.version == version][-1]


def test_a_canary_that_fails_in_one_country_alone_is_rolled_back() -> None:
    """If this breaks, harm to a few is hidden in the mean of all."""
    said = play(a_started_book(a_sliced_policy()), seconds(40, {"AT": 0.12}))

    assert ["breach", "rollback"] == kinds(said)
    (breach,) = breaches(said)
    assert "error_rate max=0.05 [country=AT]" == breach.guard == breach.evidence.name
    assert "country=AT" == breach.evidence.slice
    assert breach.text.startswith("error_rate of v42 in country=AT is ")
    assert ", proved to miss its limit 5.00% (evidence" in breach.text


def test_healthy_slices_are_left_alone_and_pass_together() -> None:
    """If this breaks, watching slices costs healthy versions, or nothing ever passes."""
    said = play(a_started_book(a_sliced_policy()), seconds(60, {}))

    assert [] == kinds(said)
    verdict = last_verdict(said)
    assert "pass" == verdict.verdict
    assert [3, 0, 0, 0] == [entry.slices for entry in verdict.guards]


def test_parts_of_alpha_never_sum_to_more_than_the_policy_s() -> None:
    """If this breaks, a healthy version is rolled back more often than was promised."""
    slow = GuardSpec(signal="latency_ms", quantile=0.9, max=300)
    worse = GuardSpec(signal="error_rate", max_increase=0.2, segment="country", slices=4)
    guards = [BY_COUNTRY, slow, worse]
    book = a_started_book(a_sliced_policy(guards=guards, alpha=0.03))
    many = [f"C{i}" for i in range(40)]

    play(book, seconds(30, {}, many))

    alphas = [guard.alpha or 0.0 for guard in book.guards["credit-risk"]["v42"].values()]
    assert 1 + 16 + 1 + 1 + 4 == len(alphas)
    assert sum(alphas) == pytest.approx(0.03)
    assert 0.03 / 3 / 2 / 16 == pytest.approx(min(alphas))


def test_values_beyond_the_places_are_told_and_judged_only_together() -> None:
    """If this breaks, a slice that nobody watches looks watched."""
    spec = GuardSpec(signal="error_rate", max=0.05, segment="country", slices=2)
    book = a_started_book(a_sliced_policy(guards=[spec]))

    said = play(book, seconds(30, {"FR": 0.2, "DE": 0.2, "AT": 0.2}))

    model = book.models["credit-risk"]
    assert 2 == len(model.slices["country"])
    (unheld,) = set(COUNTRIES) - set(model.slices["country"])
    assert unheld not in {b.evidence.slice.removeprefix("country=") for b in breaches(said)}
    (together, *_) = last_verdict(said).guards
    assert 2 == together.slices
    assert 0 < together.beyond <= model.beyond[spec.label]
    assert 850 < model.beyond[spec.label] < 1050
    assert {spec.label: model.beyond[spec.label]} == view_of(model, 0.0, 0)["slices_beyond"]


def test_a_verdict_lists_the_worst_slices_and_says_how_many_there_are() -> None:
    """If this breaks, verdicts grow with the number of countries, or hide the bad one."""
    countries = [f"C{i:02}" for i in range(14)]

    said = play(a_started_book(a_sliced_policy()), seconds(80, {"C13": 0.3}, countries))

    entries = last_verdict(said).guards
    assert 1 + 8 == len(entries)
    assert 14 == entries[0].slices
    assert "country=C13" in {e.slice for e in entries if e.verdict == "breach"}


def test_a_restart_in_the_middle_changes_nothing() -> None:
    """If this breaks, slices are forgotten, or placed anew, when a worker is restarted."""
    policy, messages = a_sliced_policy(), seconds(40, {"AT": 0.12})
    whole, first = a_started_book(policy), a_started_book(policy)

    expected = play(whole, messages)
    said = play(first, messages[:7])
    other = restarted(first, policy)
    said += play(other, messages[7:])

    assert ["breach", "rollback"] == kinds(expected)
    assert expected == said
    assert whole.save("credit-risk") == other.save("credit-risk")


@pytest.mark.parametrize("rows", [1, 7])
def test_packing_changes_neither_evidence_nor_the_event_that_decided(rows: int) -> None:
    """If this breaks, a replay of the same traffic blames another prediction."""
    messages = seconds(30, {"AT": 0.12})
    pieces = [piece for message in messages for piece in in_pieces(message, rows)]

    (expected,) = breaches(play(a_started_book(a_sliced_policy()), messages))
    (actual,) = breaches(play(a_started_book(a_sliced_policy()), pieces))

    assert (expected.guard, expected.position) == (actual.guard, actual.position)
    assert expected.evidence.evidence == actual.evidence.evidence


def test_slices_of_a_comparison_see_both_arms_of_the_slice_alone() -> None:
    """If this breaks, a slice in which stable fails as well is held against the canary."""
    spec = GuardSpec(signal="error_rate", max_increase=0.5, segment="country")
    book = a_started_book(a_sliced_policy(guards=[spec]))

    said = play(book, seconds(60, {"AT": 0.2}))

    assert "error_rate max_increase=0.5 [country=AT]" in {b.guard for b in breaches(said)}
    own = book.guards["credit-risk"]["v42"]
    rows = [guard.detector.state()["arms"] for guard in own.values()]
    assert all(0.6 < a[2] / a[0] < 1.6 and a[0] < 1400 for a in rows[1:])


def test_a_version_keeps_its_slices_over_a_new_plan() -> None:
    """If this breaks, a rollout event gives every slice a fresh error budget."""
    book = a_started_book(a_sliced_policy())
    play(book, seconds(5, {}))
    own = book.guards["credit-risk"]["v42"]

    equip(book.models["credit-risk"], book.guards["credit-risk"], a_sliced_policy(), REGISTRY)

    assert list(own.items()) == list(book.guards["credit-risk"]["v42"].items())
    assert 4 == len(own)


def test_a_plan_shows_what_one_slice_needs() -> None:
    """If this breaks, nobody sees beforehand what watching slices costs."""
    together, one, *_ = forecast(a_sliced_policy(), REGISTRY, Traffic(), [3.0])

    assert ("error_rate max=0.05 [country]", 0.005) == (together.guard, together.alpha)
    assert ("error_rate max=0.05 [country=…]", 0.005 / 16) == (one.guard, one.alpha)
    assert "requests in that slice" == one.rows_of
    assert (one.sizes[0].requests or 0) > (together.sizes[0].requests or 0)


SLICED = """\
policies:
  - model: credit-risk
    mode: enforce
    guards: [{signal: error_rate, max: 0.05, segment: country}]
"""


def test_a_recording_with_segments_is_judged_by_slice() -> None:
    """If this breaks, a replay cannot show the harm that the daemon would have seen."""
    random = np.random.default_rng(3)
    lines = [a_plan(weight=0.5)]
    for n in range(4000):
        country, version = random.choice(COUNTRIES), random.choice(["v41", "v42"])
        fails = random.random() < (0.15 if (country, version) == ("AT", "v42") else 0.005)
        more = {"error": "boom"} if fails else {}
        lines.append(a_prediction(f"p{n}", n / 50, str(version),
                                  segments={"country": str(country)}, **more))  # fmt: skip

    result = replayed(packed(lines), SLICED)
    (breach, *_) = result.of("breach")

    assert "error_rate max=0.05 [country=AT]" == breach["guard"]
    assert "AT" == lines[breach["line"] - 1]["segments"]["country"]
    assert "boom" == lines[breach["line"] - 1]["error"]
    assert result == replayed(packed(lines), SLICED, window=300)
