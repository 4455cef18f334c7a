"""Do no harm: each rule stops what it is for, and fails here when it is removed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from schemas.commands import Command, Hold, Order
from schemas.durations import Duration
from schemas.policies import Budget, Freeze, Promote, frozen
from service import harm
from service.config import FleetSettings
from service.harm import Fleet, Wish, judge
from service.storage.database import open_database
from service.storage.fleet import FleetStore
from service.storage.holds import HoldStore
from service.watch import budgets
from service.watch.order import Said
from service.watch.state import Case, Model, dump, load
from service.watch.step import Book
from service.watch.stops import Memory, Stops, look
from tests.builders import a_command
from tests.service.watch.traffic import (
    REGISTRY,
    START_MS,
    Traffic,
    a_book,
    a_policy,
    a_receipt,
    a_rollout,
    a_wall,
    kinds,
    play,
)

BAD = {"v41": 0.01, "v42": 0.3}
HEALTHY = {"v41": 0.01, "v42": 0.01}
HOUR_MS = 3_600_000

ROWS: list[tuple[Callable[[Wish], str | None], dict[str, Any], str]] = [
    (harm.observes, {"mode": "observe"}, "H11 observe"),
    (harm.is_planned, {"planned": False}, "H2 unplanned"),
    (harm.has_target, {"target": None}, "H1 no_target"),
    (harm.has_target, {"target": ""}, "H1 no_target"),
    (harm.is_current, {"serves": False}, "H2 superseded"),
    (harm.has_good_target, {"target_fault": "quarantined"}, "H1 quarantined"),
    (harm.has_good_target, {"target_fault": "no_target"}, "H1 no_target"),
    (harm.is_one_hop, {"tries": 2}, "H8 one_hop"),
    (harm.is_one_hop, {"restored": True}, "H8 one_hop"),
    (harm.has_roles, {"roles": False}, "H11 roles"),
    (harm.is_earned, {"promotes": True, "proven": False}, "H14 unproven"),
    (harm.is_alone, {"both_moved": True}, "H9 both_moved"),
    (harm.stable_is_well, {"stable_ill": True}, "H9 stable_ill"),
    (harm.is_fresh, {"age_ms": 300_001}, "H5 stale"),
    (harm.is_alone_in_fleet, {"fleet": Fleet(together="9 of 10")}, "H7 correlated"),
    (harm.has_cooled, {"since_rollback_ms": 10}, "H8 cooldown"),
    (harm.has_cooled, {"since_rollback_ms": -10}, "H8 cooldown"),
    (harm.is_within_budget, {"spent": 2}, "H6 budget"),
    (harm.is_within_budget, {"spent": 1, "tripped": True}, "H8 flapping"),
    (harm.is_within_fleet_budget, {"fleet": Fleet(over_budget=True)}, "H6 fleet_budget"),
    (harm.is_not_frozen, {"promotes": True, "frozen": "year's end"}, "H10 freeze"),
    (harm.is_not_held, {"held": "ann: migration"}, "H10 hold"),
]
FOR_PEOPLE_TOO = {"H1", "H2", "H14"}


def a_wish(**changes: Any) -> Wish:
    given: dict[str, Any] = {"target": "v41", "max_age_ms": 300_000, "cooldown_ms": 1000,
                             "budget": 2}  # fmt: skip
    return Wish(**(given | changes))


def told(wish: Wish) -> str:
    refused = judge(wish)
    return "" if refused is None else f"{refused.rule} {refused.reason}"


def test_what_nothing_speaks_against_is_allowed() -> None:
    """If this breaks, nothing is ever rolled back."""
    assert None is judge(a_wish())


@pytest.mark.parametrize(("asked", "changes", "expected"), ROWS)
def test_each_rule_refuses_what_it_is_for(
    asked: Any, changes: dict[str, Any], expected: str
) -> None:
    """If this breaks, the rule that is named here is gone, and harm passes it."""
    assert expected == told(a_wish(**changes))


@pytest.mark.parametrize(("asked", "changes", "expected"), ROWS)
def test_each_refusal_hangs_on_its_own_rule(
    asked: Any, changes: dict[str, Any], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If this breaks, one rule stands in for another, and removing either goes unseen."""
    monkeypatch.setattr(harm, "RULES", tuple(r for r in harm.RULES if r is not asked))

    assert "" == told(a_wish(**changes))


def test_every_rule_has_its_row_and_every_word_its_rule_and_sentence() -> None:
    """If this breaks, a rule is written that no test would miss."""
    assert set(harm.RULES) == {asked for asked, _, _ in ROWS}
    assert set(harm.WORDS) <= set(harm.RULE_OF)
    assert harm.NEEDS_A_PERSON <= set(harm.WORDS)


@pytest.mark.parametrize(("asked", "changes", "expected"), ROWS)
def test_people_pass_budgets_and_holds_but_not_targets_and_plans(
    asked: Any, changes: dict[str, Any], expected: str
) -> None:
    """If this breaks, a person cannot act in need, or can send traffic to a bad version."""
    binds = expected.split()[0] in FOR_PEOPLE_TOO or changes.get("tries") == 2

    assert (expected if binds else "") == told(a_wish(automatic=False, **changes))


@pytest.mark.parametrize("changes", [{"spent": 9}, {"since_rollback_ms": 1},
                                     {"fleet": Fleet(over_budget=True)}])  # fmt: skip
def test_a_second_try_and_a_promotion_cost_no_rollback(changes: dict[str, Any]) -> None:
    """If this breaks, a rollback that did not take is not tried again, for want of budget."""
    assert ("", "") == (told(a_wish(tries=1, **changes)), told(a_wish(promotes=True, **changes)))


def test_a_freeze_lets_rollbacks_through_and_is_over_when_it_ends() -> None:
    """If this breaks, a freeze keeps a bad version in, or never ends."""
    freeze = Freeze(begins=1000, ends=2000, reason="year's end", model="credit-*")

    assert ["year's end", None, None, None] == [
        frozen([freeze], "credit-risk", 1000), frozen([freeze], "credit-risk", 2000),
        frozen([freeze], "credit-risk", 999), frozen([freeze], "churn", 1500),
    ]  # fmt: skip
    assert "" == told(a_wish(frozen="year's end"))


def test_a_freeze_withholds_a_promotion_and_lets_it_go_after() -> None:
    """If this breaks, a freeze in the settings does nothing."""
    promote = Promote(steps=[0.3, 1.0], margin=5.0, bake=Duration(30))
    ends_ms = START_MS + 100_000
    policies = [a_policy(promote=promote)]
    book = Book(policies, REGISTRY, "digest", [Freeze(START_MS, ends_ms, "year's end")])
    book.roll_out(a_rollout(weight=0.3), START_MS)
    traffic = Traffic()

    cold = play(book, [traffic.second(HEALTHY, share=0.3) for _ in range(100)])
    warm = play(book, [traffic.second(HEALTHY, share=0.3) for _ in range(3)])

    assert ["proven:promote", "withheld:freeze"] == kinds(cold)
    assert ["promote"] == kinds(warm)


def test_a_model_s_budget_ends_and_the_breaker_waits_until_all_of_it_is_over() -> None:
    """If this breaks (H6, H8), a version that flaps is rolled back for ever."""
    policy = a_policy(cooldown=Duration(0), budget=Budget(2, Duration(86_400)),
                      quarantine=Duration(0))  # fmt: skip
    book, traffic = a_book(policy), Traffic()
    sent_ms: list[int] = []
    reasons: set[str] = set()

    for _ in range(100):
        book.roll_out(a_rollout(traffic.now_ms), traffic.now_ms)
        said = play(book, [traffic.second(BAD) for _ in range(12)])
        reasons |= {word.split(":")[1] for word in kinds(said) if word.startswith("withheld")}
        for command in [fact for fact in said if isinstance(fact, Command)]:
            sent_ms.append(command.issued_at)
            case = book.models["credit-risk"].cases[command.incident_id]
            book.receive(a_receipt_of(command, traffic.now_ms))
            assert case.commands
        book.roll_out(a_rollout(traffic.now_ms, canary=None, weight=None), traffic.now_ms)
        play(book, [traffic.second(HEALTHY, share=0.0) for _ in range(3)])
        traffic.now_ms += HOUR_MS

    assert {"budget", "flapping"} <= reasons
    assert 3 <= len(sent_ms) <= 2 * (1 + 100 * (HOUR_MS + 15_000) // 86_400_000)
    for at_ms in sent_ms:
        assert 2 >= sum(0 <= other - at_ms < 86_400_000 for other in sent_ms)


def a_receipt_of(command: Command, now_ms: int) -> Any:
    from tests.service.watch.test_promote import an_answer

    return an_answer(command, now_ms)


class Spending(RuleBasedStateMachine):
    """Random wishes over days, with restarts and clocks that jump back."""

    BUDGET = Budget(2, Duration(3600))

    def __init__(self) -> None:
        super().__init__()
        self.model, self.now_ms = Model("m"), 10**12
        self.sent: list[int] = []

    @rule(ms=st.integers(0, 3_000_000))
    def time_passes(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def restart(self) -> None:
        self.model = load(dump(self.model))

    @rule()
    def wish(self) -> None:
        spent = harm.within(self.model.rollbacks, self.now_ms, self.BUDGET.per.ms)
        refused = judge(a_wish(spent=spent, tripped=self.model.tripped, budget=2))
        if refused is not None:
            budgets.trip(self.model, refused)
            return
        budgets.spend(self.model, a_command(issued_at=self.now_ms), 0)
        self.sent.append(self.now_ms)

    @invariant()
    def never_above_the_budget(self) -> None:
        for at_ms in self.sent:
            assert 2 >= sum(0 <= other - at_ms < self.BUDGET.per.ms for other in self.sent)


TestSpending = Spending.TestCase
TestSpending.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_a_clock_that_moved_back_refills_no_budget() -> None:
    """If this breaks, a machine that was set back a day rolls back again and again."""
    assert 2 == harm.within([5000, 6000], 1000, 500)


@given(share=st.floats(0.05, 1.0), watched=st.integers(1, 200), breached=st.integers(0, 200))
def test_breaches_are_taken_for_one_cause_only_where_enough_models_breach(
    share: float, watched: int, breached: int
) -> None:
    """If this breaks (H7), one bad version stops all models, or a dead label feed stops none."""
    names = {f"m{i}" for i in range(min(breached, watched))}

    found = harm.together(names, watched, share, 3)

    assert (len(names) >= 3 and len(names) >= share * watched) == (found is not None)


@pytest.fixture
def stops(tmp_path: Path) -> Stops:
    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    return Stops(HoldStore(database), FleetStore(database), FleetSettings())


class Fleets:
    """Many models in one book, acted for as the worker does, with the stores themselves."""

    def __init__(self, stops: Stops, count: int) -> None:
        self.stops, self.memory = stops, Memory()
        policy = a_policy(model="m*")
        self.book = Book([policy], REGISTRY, "digest")
        self.traffic = {f"m{i}": Traffic(seed=i) for i in range(count)}
        for name in self.traffic:
            self.book.roll_out(a_rollout(model=name), START_MS)
        self.commands: list[Command] = []
        self.words: list[str] = []

    def second(self, bad: Callable[[str], dict[str, float]]) -> None:
        """One second of every model."""
        for name, traffic in self.traffic.items():
            message = traffic.second(bad(name))
            self.book.changed = set()
            said: list[Said] = list(self.book.observe(
                msgspec.structs.replace(message, model=name), message.watermark_ms
            ))  # fmt: skip
            assert None is self.memory.note(self.stops, self.book, said, message.watermark_ms)
            for wanting in list(self.book.wanting()):
                wall = a_wall(message.watermark_ms)
                if self.book.refused(wanting, wall) is not None:
                    said += self.book.act(wanting, wall, None)
                    continue
                seen = look(self.stops, wanting, wall.now_ms, self.book.turning(120_000))
                said += self.book.act(wanting, wall, seen.held, seen.fleet)
            self.commands += [fact for fact in said if isinstance(fact, Command)]
            self.words += kinds(said)


def test_one_cause_over_many_models_holds_all_before_it_moves_many(stops: Stops) -> None:
    """If this breaks (H7), a broken feature store rolls back every model of the house.

    Whoever alarms before two others are half-way is not recognised; here that is one of twenty.
    """
    fleet = Fleets(stops, 20)

    for _ in range(10):
        fleet.second(lambda name: HEALTHY)
    for _ in range(12):
        fleet.second(lambda name: BAD)

    assert 2 >= len(fleet.commands)
    assert "withheld:correlated" in fleet.words
    hold = stops.holds.blocking("anything", START_MS + HOUR_MS)
    assert isinstance(hold, Hold)
    assert ("*", "rollbackd") == (hold.model, hold.actor)
    assert " models breached at once; release when the cause is known" in hold.reason


def test_alarms_of_long_ago_are_no_sign_of_one_cause(stops: Stops) -> None:
    """If this breaks, three models that stay bad for want of a target stop all others."""
    fleet = Fleets(stops, 8)
    for _ in range(12):
        fleet.second(lambda name: BAD if name in ("m1", "m2") else HEALTHY)
    for _ in range(150):
        fleet.second(lambda name: HEALTHY)
    fleet.commands.clear()

    for _ in range(12):
        fleet.second(lambda name: BAD if name == "m7" else HEALTHY)

    assert ["m7"] == [command.model for command in fleet.commands]


def test_one_bad_model_among_many_is_rolled_back(stops: Stops) -> None:
    """If this breaks, the suspicion of a shared cause keeps a bad version in traffic."""
    fleet = Fleets(stops, 20)

    for _ in range(30):
        fleet.second(lambda name: BAD if name == "m7" else HEALTHY)

    assert ["m7"] == [command.model for command in fleet.commands]
    assert None is stops.holds.blocking("m7", START_MS)


def test_the_fleet_s_budget_is_never_exceeded_and_survives_a_restart(tmp_path: Path) -> None:
    """If this breaks (H6), every process has a budget of its own."""
    url = f"sqlite:///{tmp_path / 'fleet.db'}"

    taken = [FleetStore(open_database(url)).reserve(f"m{i}", f"i{i}", 1000 * i, 0, 3)
             for i in range(1, 6)]  # fmt: skip
    again = FleetStore(open_database(url)).reserve("m2", "i2", 9000, 0, 3)
    FleetStore(open_database(url)).release("m1", "i1")
    free = FleetStore(open_database(url)).reserve("m9", "i9", 9000, 0, 3)
    later = FleetStore(open_database(url)).reserve("m8", "i8", 10_000, 3000, 3)

    assert [True, True, True, False, False] == taken
    assert (True, True, True) == (again, free, later)


def test_stops_that_cannot_be_read_count_as_held(tmp_path: Path) -> None:
    """If this breaks (H10), a database that is down lets everything through."""

    class Broken:
        def blocking(self, model: str, now_ms: int) -> Hold | None:
            raise OSError("no such file")

        def set(self, hold: Hold) -> Hold:
            raise OSError("no such file")

    database = open_database(f"sqlite:///{tmp_path / 'fleet.db'}")
    book, traffic = a_book(), Traffic()
    book.roll_out(a_rollout(), START_MS)
    for message in [traffic.second(BAD) for _ in range(20)]:
        book.observe(message, message.watermark_ms)
    (wanting,) = book.wanting()

    seen = look(Stops(Broken(), FleetStore(database), FleetSettings()), wanting, START_MS)

    assert "holds and budgets cannot be read (OSError)" == seen.held


def a_proposal() -> tuple[Book, Traffic, Case]:
    book, traffic = a_book(a_policy(mode="propose")), Traffic()
    book.roll_out(a_rollout(), START_MS)
    play(book, [traffic.second(BAD) for _ in range(30)])
    (case,) = book.models["credit-risk"].cases.values()
    return book, traffic, case


def an_approval(case: Case) -> Order:
    return Order(order_id="o1", kind="approve", model="credit-risk", command_id=case.proposed,
                 actor="ann", reason="agreed", at=START_MS)  # fmt: skip


def test_an_approval_after_its_hour_does_nothing() -> None:
    """If this breaks (H11), a link from last week's chat moves today's traffic."""
    book, traffic, case = a_proposal()

    said = book.obey(an_approval(case), a_wall(traffic.now_ms + 2 * HOUR_MS))

    assert ["withheld:expired"] == kinds(said)


def test_an_approval_of_another_command_does_nothing() -> None:
    """If this breaks (H11), an approval is not bound to what was shown."""
    book, traffic, case = a_proposal()
    other = msgspec.structs.replace(an_approval(case), command_id="another")

    assert [] == kinds(list(book.obey(other, a_wall(traffic.now_ms))))


def test_an_approval_does_not_send_to_a_target_that_was_rolled_back_since() -> None:
    """If this breaks (H1), a person who agrees sends traffic to a bad version."""
    book, traffic, case = a_proposal()
    model = book.models["credit-risk"]
    model.quarantine["v41"] = (model.now_ms, "other")

    said = book.obey(an_approval(case), a_wall(traffic.now_ms))

    assert ["withheld:quarantined"] == kinds(said)


def test_a_person_s_promotion_of_a_quarantined_version_is_refused() -> None:
    """If this breaks (H1), one button undoes a rollback that had its reasons."""
    book, traffic = a_book(), Traffic()
    book.roll_out(a_rollout(), START_MS)
    play(book, [traffic.second(HEALTHY) for _ in range(3)])
    model = book.models["credit-risk"]
    model.quarantine["v42"] = (model.now_ms, "other")
    order = Order(order_id="o1", kind="promote", model="credit-risk", actor="ann",
                  reason="I am sure", at=START_MS)  # fmt: skip

    assert ["breach", "withheld:quarantined"] == kinds(book.obey(order, a_wall(traffic.now_ms)))


def test_a_person_s_promotion_is_confirmed_from_traffic() -> None:
    """If this breaks (S1), a promotion that nobody followed is called done."""
    book, traffic = a_book(a_policy(mode="observe")), Traffic()
    book.roll_out(a_rollout(), START_MS)
    play(book, [traffic.second(HEALTHY) for _ in range(3)])
    order = Order(order_id="o1", kind="promote", model="credit-risk", actor="ann",
                  reason="it is good", at=START_MS)  # fmt: skip

    said = book.obey(order, a_wall(traffic.now_ms))
    book.receive(a_receipt(book, traffic.now_ms, action="promote"))
    after = play(book, [traffic.second(HEALTHY, share=1.0) for _ in range(3)])

    assert ["breach", "promote"] == kinds(said)
    assert ["verified:traffic_moved"] == kinds(after)


def test_the_page_for_auditors_names_only_what_exists() -> None:
    """If this breaks, docs/safety.md promises a rule or a test that is not there."""
    root = Path(__file__).parents[3]
    page = (root / "docs" / "safety.md").read_text(encoding="utf-8")
    tests = "\n".join(path.read_text(encoding="utf-8") for path in (root / "tests").rglob("*.py"))

    named = set(re.findall(r"`(test_[a-z0-9_]+)`", page))
    rules = set(re.findall(r"`harm\.([a-z_]+)`", page))
    files = set(re.findall(r"`([a-z]+/[a-z_/]+\.py)`", page))

    assert named
    assert [] == sorted(name for name in named if f"def {name}(" not in tests)
    assert {rule.__name__ for rule in harm.RULES} <= rules
    assert [] == sorted(name for name in rules if not hasattr(harm, name))
    assert [] == sorted(name for name in files if not (root / name).is_file())
