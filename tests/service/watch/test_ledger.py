"""Last known good: where a stable that turns bad goes back to, and by which limits it is judged."""

from __future__ import annotations

from math import comb

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detectors.stable_watch import StableWatch
from schemas.commands import Command, Order
from schemas.durations import Duration
from schemas.facts import Breach, Progress
from schemas.observations import Observations
from schemas.policies import GuardSpec, Policy, Promote
from schemas.verdicts import Verdict
from service.watch import ledger
from service.watch.order import Said
from service.watch.state import Case, Model, Plan, Tenure, dump, load
from service.watch.step import Book
from tests.service.watch.traffic import (
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_receipt,
    a_rollout,
    a_tick,
    a_wall,
    kinds,
    play,
)

HEALTHY = {"v41": 0.02, "v42": 0.02}
WORSE = {"v41": 0.02, "v42": 0.3}
RELATIVE = GuardSpec(signal="error_rate", max_increase=0.15)
STEP_MS = 50_000


def paced(traffic: Traffic, count: int, bad: dict[str, float], share: float) -> list[Observations]:
    """Messages of a hundred predictions, fifty seconds apart."""
    messages = []
    for _ in range(count):
        messages.append(traffic.second(bad, share=share))
        traffic.now_ms += STEP_MS - 1000
    return messages


def promoted(book: Book, traffic: Traffic, hours: float = 2) -> None:
    """v41 serves alone, v42 joins as canary, then v42 has all."""
    count = round(hours * 3_600_000 / STEP_MS)
    book.roll_out(a_rollout(canary=None, weight=None), START_MS)
    play(book, paced(traffic, count, HEALTHY, share=0.0))
    book.roll_out(a_rollout(traffic.now_ms), traffic.now_ms)
    play(book, paced(traffic, 5, HEALTHY, share=0.1))
    book.roll_out(a_rollout(traffic.now_ms, stable="v42", canary=None, weight=None),
                  traffic.now_ms)  # fmt: skip


def commands(said: list[Said]) -> list[Command]:
    return [fact for fact in said if isinstance(fact, Command)]


def test_a_promoted_version_that_turns_bad_goes_back_to_the_one_before() -> None:
    """If this breaks, nobody guards a version once it has all traffic."""
    book, traffic = a_book(), Traffic()
    promoted(book, traffic)
    play(book, paced(traffic, 3 * 24 * 72, HEALTHY, share=1.0))

    said = play(book, paced(traffic, 40, WORSE, share=1.0))

    assert ["breach", "rollback"] == kinds(said)
    (command,) = commands(said)
    assert ("v42", "v41") == (command.from_version, command.to_version)
    assert ("v42", None) == (command.expected.stable, command.expected.canary)


def test_a_person_s_rollback_without_a_canary_goes_to_the_last_known_good() -> None:
    """If this breaks, the button does nothing once a bad version has all traffic."""
    book, traffic = a_book(a_policy(mode="observe")), Traffic()
    promoted(book, traffic)
    play(book, paced(traffic, 3, HEALTHY, share=1.0))
    order = Order(order_id="o1", kind="rollback", model="credit-risk", actor="ann",
                  reason="complaints", at=START_MS)  # fmt: skip

    said = list(book.obey(order, a_wall(traffic.now_ms)))

    assert ["breach", "rollback"] == kinds(said)
    assert [("v42", "v41", "ann")] == [
        (c.from_version, c.to_version, c.actor) for c in commands(said)
    ]  # fmt: skip


def test_a_version_that_was_stable_too_briefly_is_no_target() -> None:
    """If this breaks, traffic goes to a version that nobody has seen work."""
    book, traffic = a_book(), Traffic()
    promoted(book, traffic, hours=0.5)

    said = play(book, paced(traffic, 40, WORSE, share=1.0))

    assert ["breach", "withheld:no_target"] == kinds(said)


def test_a_restored_version_that_fails_as_well_is_left_to_a_person() -> None:
    """If this breaks, two bad versions in a row take traffic back and back again."""
    policy = a_policy(cooldown=Duration(0))
    book, traffic = a_book(policy), Traffic()
    model = book.models
    book.roll_out(a_rollout(stable="v40", canary=None, weight=None), START_MS)
    traffic_of_v40 = paced(traffic, 80, {"v41": 0.02}, share=0.0)
    play(book, [msgspec.structs.replace(m, versions=["v40", "v42"]) for m in traffic_of_v40])
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
    play(book, paced(traffic, 80, HEALTHY, share=0.0))
    book.roll_out(a_rollout(traffic.now_ms, stable="v42", canary=None, weight=None),
                  traffic.now_ms)  # fmt: skip
    first = play(book, paced(traffic, 40, WORSE, share=1.0))
    book.receive(a_receipt(book, traffic.now_ms))
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)

    second = play(book, paced(traffic, 40, {"v41": 0.3}, share=0.0))

    assert ["v41"] == [c.to_version for c in commands(first)]
    assert ["breach", "verified:traffic_moved", "withheld:one_hop"] == kinds(second)
    assert "v42" in model["credit-risk"].quarantine


def test_a_stable_that_fails_beside_a_canary_goes_nowhere() -> None:
    """If this breaks, a stable that is ill is exchanged for something unproven."""
    book, traffic = a_book(), Traffic()
    promoted(book, traffic)
    play(book, paced(traffic, 100, HEALTHY, share=1.0))
    book.roll_out(a_rollout(traffic.now_ms, stable="v42", canary="v43", weight=0.1),
                  traffic.now_ms)  # fmt: skip

    said = play(book, paced(traffic, 40, WORSE, share=1.0))

    assert ["breach", "withheld:no_target"] == kinds(said)


def test_a_promoted_version_is_held_to_what_the_last_one_had() -> None:
    """If this breaks, a limit against stable is forgotten once there is no other stable."""
    book, traffic = a_book(a_policy(guards=[RELATIVE])), Traffic()
    promoted(book, traffic)

    calm = play(book, paced(traffic, 100, HEALTHY, share=1.0))
    said = play(book, paced(traffic, 100, {"v42": 0.08}, share=1.0))

    assert [] == kinds(calm)
    assert ["breach", "rollback"] == kinds(said)
    (breach,) = [fact for fact in said if isinstance(fact, Breach)]
    assert "error_rate max_increase=0.15 against v41 before" == breach.guard
    counts = book.models["credit-risk"].ledger[-1].reference[RELATIVE.label]
    bound = ledger.upper_bound(counts[0], counts[1], 0.001)
    assert pytest.approx(1.15 * bound, abs=1e-8) == breach.evidence.limit


def test_the_rates_of_a_version_that_was_rolled_back_are_no_limit() -> None:
    """If this breaks, a bad version's error rate becomes what its successor may have."""
    model = Model("m", ledger=[Tenure("v2", 0, rates={"g": [900, 1000]})])
    ledger.condemn(model, "v2", "i")

    ledger.succeed(model, "v1", 10)

    assert ({}, True) == (model.ledger[-1].reference, model.ledger[-1].restored)


def test_a_long_lived_stable_is_watched_by_a_test_that_rearms() -> None:
    """If this breaks, one alarm in a version's first week blinds its guard for years."""
    policy = a_policy(long_lived_after=Duration(3600), mode="observe")
    book, traffic = a_book(policy), Traffic()
    book.roll_out(a_rollout(canary=None, weight=None), START_MS)
    play(book, paced(traffic, 100, HEALTHY, share=0.0))

    guard = book.guards["credit-risk"]["v41"]["error_rate max=0.05"]
    ill = play(book, paced(traffic, 20, {"v41": 0.3}, share=0.0))
    fired = guard.detector.reading().fired_at
    play(book, paced(traffic, 100, HEALTHY, share=0.0))

    assert isinstance(guard.detector, StableWatch)
    two_years_at_this_pace = 730 * 86_400_000 / STEP_MS * 100
    assert pytest.approx(two_years_at_this_pace, rel=0.05) == guard.detector.run_length
    assert ["breach", "withheld:observe"] == kinds(ill)
    assert (True, None) == (fired is not None, guard.detector.reading().fired_at)


def test_an_alarm_that_stands_opens_one_incident_and_a_new_one_another() -> None:
    """If this breaks, a second illness of a stable version is filed under the first."""
    policy = a_policy(long_lived_after=Duration(3600), mode="observe")
    book, traffic = a_book(policy), Traffic()
    book.roll_out(a_rollout(canary=None, weight=None), START_MS)
    play(book, paced(traffic, 100, HEALTHY, share=0.0))
    first = play(book, paced(traffic, 20, {"v41": 0.3}, share=0.0))
    (case,) = book.models["credit-risk"].cases.values()
    case.closed, case.closed_ms = "resolved", traffic.now_ms
    play(book, paced(traffic, 100, HEALTHY, share=0.0))

    again = play(book, paced(traffic, 20, {"v41": 0.3}, share=0.0))

    incidents = {fact.incident_id for fact in (*first, *again) if isinstance(fact, Breach)}
    assert 2 == len(incidents)


def test_time_counts_as_good_only_while_limits_hold() -> None:
    """If this breaks, a version that failed or was silent for hours is called known good."""
    book, traffic = a_book(a_policy(mode="observe")), Traffic()
    book.roll_out(a_rollout(canary=None, weight=None), START_MS)
    play(book, paced(traffic, 10, HEALTHY, share=0.0))
    good_ms = book.models["credit-risk"].ledger[-1].good_ms

    play(book, paced(traffic, 20, {"v41": 0.5}, share=0.0))
    play(book, [a_tick(traffic.now_ms + s * 30_000) for s in range(100)])

    tenure = book.models["credit-risk"].ledger[-1]
    assert 9 * STEP_MS <= good_ms
    assert tenure.good_ms - good_ms <= 3 * STEP_MS


@pytest.mark.parametrize(("bad", "rows", "alpha"), [(0, 50, 0.01), (3, 60, 0.001), (9, 40, 0.05)])
def test_the_upper_bound_is_clopper_and_pearson_s(bad: int, rows: int, alpha: float) -> None:
    """If this breaks, the limit of a promoted version is too strict, and it is taken out."""
    bound = ledger.upper_bound(bad, rows, alpha)

    tail = sum(comb(rows, k) * bound**k * (1 - bound) ** (rows - k) for k in range(bad + 1))

    assert pytest.approx(alpha, rel=1e-9) == tail


def test_the_upper_bound_holds_as_often_as_promised() -> None:
    """If this breaks, a healthy successor is judged by a limit below the truth."""
    rng = np.random.default_rng(5)
    draws = rng.binomial(400, 0.03, size=2000)

    missed = sum(ledger.upper_bound(int(bad), 400, 0.05) < 0.03 for bad in draws)

    assert missed / 2000 <= 0.06


versions = st.sampled_from(["a", "b", "c", "d"])


@settings(max_examples=200, deadline=None)
@given(
    history=st.lists(st.tuples(versions, st.integers(0, 7200), st.booleans()), min_size=1,
                     max_size=12),
    open_on=st.one_of(st.none(), versions),
    age_s=st.integers(0, 200_000),
)  # fmt: skip
def test_a_target_is_always_one_that_an_oracle_would_name(
    history: list[tuple[str, int, bool]], open_on: str | None, age_s: int
) -> None:
    """If this breaks (H1), traffic goes to a bad, unproven or quarantined version."""
    model, policy = Model("m"), Policy(model="m")
    good: dict[str, bool] = {}
    rolled_back: dict[str, int] = {}
    seen: list[str] = []
    for version, good_s, fails in history:
        if seen and seen[-1] == version:
            continue
        model.now_ms += 1
        ledger.succeed(model, version, model.now_ms)
        seen.append(version)
        model.now_ms += good_s * 1000
        ledger.credit(model, version, "pass")
        good[version] = good.get(version, False) or good_s >= 3600
        if fails:
            ledger.condemn(model, version, "i")
            good[version], rolled_back[version] = False, model.now_ms
    model.now_ms += age_s * 1000
    model.plan = Plan(seen[-1], inferred=False)
    if open_on is not None:
        model.cases["x"] = Case("x", open_on, None, "r", 0, wanted="rollback")

    def eligible(version: str) -> bool:
        lately = model.now_ms - rolled_back.get(version, -(10**12)) < 24 * 3_600_000
        return good[version] and not lately and version not in (open_on, seen[-1])

    expected = next((v for v in reversed(seen) if eligible(v)), None)
    assert expected == ledger.target_of(model, seen[-1], policy)


def test_the_state_of_another_layout_is_refused_with_the_way_out() -> None:
    """If this breaks, an upgrade half understands what the last release remembered."""
    old = dump(Model("m", layout=1))

    with pytest.raises(ValueError, match=r"'m' has layout 1 .* delete the rows of stage 'watch'"):
        load(old)


def test_a_restart_after_a_promotion_changes_nothing() -> None:
    """If this breaks, a worker that restarts guards a promoted version by other limits."""
    whole, traffic = a_book(a_policy(guards=[RELATIVE])), Traffic()
    promoted(whole, traffic)
    later = paced(traffic, 120, {"v42": 0.04}, share=1.0)
    second = a_book(a_policy(guards=[RELATIVE]))
    play(whole, later[:2])
    second.restore({key: whole.save(key) for key in ("", "credit-risk")})

    expected, said = play(whole, later[2:]), play(second, later[2:])

    facts = [[f for f in part if not isinstance(f, Verdict)] for part in (expected, said)]
    assert facts[0] == facts[1]
    assert ["breach", "rollback"] == kinds(said)


def test_a_version_that_was_rolled_back_and_comes_again_is_told_loudly_and_not_promoted() -> None:
    """If this breaks, a pipeline redeploys the bad version overnight and nobody notices."""
    promote = Promote(steps=[0.1, 1.0], margin=5.0, bake=Duration(60))
    policy = a_policy(promote=promote, cooldown=Duration(0))
    book, traffic = a_book(policy), Traffic()
    book.roll_out(a_rollout(), START_MS)
    play(book, [traffic.second(WORSE) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))
    (incident,) = book.models["credit-risk"].cases
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
    play(book, paced(traffic, 20, HEALTHY, share=0.0))

    book.roll_out(a_rollout(traffic.now_ms), traffic.now_ms)
    said = play(book, paced(traffic, 200, HEALTHY, share=0.1))

    assert ["escalated:quarantined", "proven:promote", "withheld:quarantined"] == kinds(said)[:3]
    assert not commands(said)
    (told,) = [f for f in said if isinstance(f, Progress) and f.kind == "escalated"]
    assert incident == told.incident_id
    assert "v42 is canary again, although it was rolled back 17 min before." in told.text


def test_after_its_quarantine_a_version_is_promoted_like_any_other() -> None:
    """If this breaks, a version that was mended under its name is never trusted again."""
    promote = Promote(steps=[0.1, 1.0], margin=5.0, bake=Duration(60))
    policy = a_policy(promote=promote, quarantine=Duration(600))
    book, traffic = a_book(policy), Traffic()
    book.roll_out(a_rollout(), START_MS)
    play(book, [traffic.second(WORSE) for _ in range(30)])
    book.receive(a_receipt(book, traffic.now_ms))
    book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
    play(book, paced(traffic, 20, HEALTHY, share=0.0))

    book.roll_out(a_rollout(traffic.now_ms), traffic.now_ms)
    said = play(book, paced(traffic, 200, HEALTHY, share=0.1))

    assert ["proven:promote", "promote"] == kinds(said)
