"""Labels that come late, in part, or never."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from schemas.durations import Duration
from schemas.facts import Breach
from schemas.observations import Block, Observations
from schemas.policies import GuardSpec, Policy
from schemas.verdicts import Verdict
from service.watch.order import Said
from service.watch.step import Book
from service.watch.view import view_of
from tests.service.replay.recordings import a_prediction, an_outcome, packed, replayed
from tests.service.replay.recordings import a_rollout as a_plan
from tests.service.watch.traffic import (
    START_MS,
    a_block,
    a_book,
    a_message,
    a_policy,
    a_rollout,
    kinds,
    play,
    restarted,
)

HORIZON_S = 160
STEP_S = 5
ERROR = GuardSpec(signal="error", max=0.05)
FPR = GuardSpec(signal="false_positive_rate", max=0.05)


class World:
    """Predictions of v41 and v42, ten a second, and their labels, as `ingest` tells them.

    Parameters
    ----------
    wrong : tuple of float
        Share of wrong predictions of v41 and v42.
    delay_s : tuple of (float, float)
        Mean label delay of good and of bad predictions, for v41 and v42.
    labelled : callable
        Which predictions get a label, from columns (predicted, version, served second).
    """

    def __init__(
        self, wrong: tuple[float, float] = (0.01, 0.01), seconds: int = 400, seed: int = 1,
        delay_s: tuple[tuple[float, float], tuple[float, float]] = ((20, 20), (20, 20)),
        sampled: float | None = None,
        labelled: Any = lambda predicted, version, second: np.ones(len(predicted), bool),
        flagged: float = 0.3, share: float = 0.5,
    ) -> None:  # fmt: skip
        random = np.random.default_rng(seed)
        n = seconds * 10
        self.served_ms = START_MS + np.arange(n) * 100
        self.version = (random.random(n) < share).astype(int)
        self.predicted = (random.random(n) < flagged).astype(float)
        bad = random.random(n) < np.array(wrong)[self.version]
        self.label = np.where(bad, 1 - self.predicted, self.predicted)
        mean_s = np.array(delay_s)[self.version, bad.astype(int)]
        self.observed_ms = self.served_ms + (random.exponential(mean_s) * 1000).astype(int) + 1
        has = labelled(self.predicted, self.version, np.arange(n) / 10)
        self.sampled = sampled
        if sampled is not None:
            has = has & (random.random(n) < sampled)
        self.has = has & (self.observed_ms < self.served_ms + HORIZON_S * 1000)

    def messages(self, until_s: int) -> list[Observations]:
        """A message every `STEP_S`."""
        told = []
        for second in range(0, until_s, STEP_S):
            since, to = START_MS + second * 1000, START_MS + (second + STEP_S) * 1000
            served = np.flatnonzero((self.served_ms >= since) & (self.served_ms < to))
            came = np.flatnonzero(self.has & (self.observed_ms >= since) & (self.observed_ms < to))
            came = came[np.argsort(self.observed_ms[came], kind="stable")]
            due_ms = self.served_ms + HORIZON_S * 1000
            due = np.flatnonzero((due_ms >= since) & (due_ms < to))
            blocks = [self._block("served", served), self._block("labelled", came, "outcomes"),
                      self._block("matured", due[self.has[due]]),
                      self._block("unlabelled", due[~self.has[due]])]  # fmt: skip
            blocks = [block for block in blocks if block.count]
            told.append(a_message(*blocks, watermark_ms=to))
        return told

    def _block(self, kind: str, rows: Any, topic: str = "predictions") -> Block:
        offset = rows
        if topic == "outcomes":
            order = np.argsort(np.argsort(self.observed_ms, kind="stable"))
            offset = order[rows]
        columns: dict[str, Any] = {
            "offset": offset, "served_ms": self.served_ms[rows], "version": self.version[rows],
            "value": self.predicted[rows],
        }  # fmt: skip
        if kind in ("labelled", "matured"):
            columns |= {"observed_ms": self.observed_ms[rows], "label_value": self.label[rows]}
            if self.sampled is not None:
                columns["sampled"] = np.full(len(rows), self.sampled)
        return a_block(kind, topic, **columns)


def a_label_policy(*guards: GuardSpec, **changes: Any) -> Policy:
    given: dict[str, Any] = {"guards": list(guards or [ERROR]), "positive": 1,
                             "horizon": Duration(HORIZON_S)}  # fmt: skip
    return a_policy(**(given | changes))


def a_started_book(policy: Policy) -> Book:
    book = a_book(policy)
    book.roll_out(a_rollout(weight=0.5), START_MS)
    return book


def told(policy: Policy, world: World, until_s: int = 500) -> list[Said]:
    return play(a_started_book(policy), world.messages(until_s))


def last_verdict(said: list[Said], version: str = "v42") -> Verdict:
    return [v for v in said if isinstance(v, Verdict) and v.version == version][-1]


def breaches(said: list[Said]) -> list[Breach]:
    return [fact for fact in said if isinstance(fact, Breach)]


# -- which labels come ---------------------------------------------------------------------------


def only_flagged(predicted: Any, version: Any, second: Any) -> Any:
    return predicted == 1


def test_a_false_positive_rate_without_labelled_negatives_is_unknown() -> None:
    """If this breaks, a model whose flags alone are reviewed has a false positive rate of 1."""
    world = World(wrong=(0.2, 0.2), labelled=only_flagged)

    said = told(a_label_policy(FPR), world)

    assert [] == kinds(said)
    verdict = last_verdict(said)
    assert ("unknown", "not_identifiable") == (verdict.verdict, verdict.reason)
    assert "fp_per_prediction and precision can be watched instead" in verdict.text
    assert ["not_identifiable"] == [entry.reason for entry in verdict.guards]


@pytest.mark.parametrize(
    "guard",
    [GuardSpec(signal="fp_per_prediction", max=0.05), GuardSpec(signal="precision", min=0.9)],
)
def test_what_can_be_known_from_flagged_predictions_is_judged(guard: GuardSpec) -> None:
    """If this breaks, the signals that are offered instead do not work either."""
    bad = told(a_label_policy(guard), World(wrong=(0.01, 0.5), labelled=only_flagged))
    healthy = told(a_label_policy(guard), World(wrong=(0.01, 0.01), labelled=only_flagged))

    assert ["breach", "rollback"] == kinds(bad)
    assert [] == kinds(healthy)
    assert "pass" == last_verdict(healthy).verdict


def test_a_false_positive_rate_with_labels_for_all_is_judged() -> None:
    """If this breaks, the common case is called unknowable."""
    said = told(a_label_policy(FPR), World(wrong=(0.01, 0.3)))

    assert ["breach", "rollback"] == kinds(said)


SAMPLED = GuardSpec(signal="error", max=0.05, sampled_at_least=0.1)


def test_labels_bought_for_a_sample_stand_for_all() -> None:
    """If this breaks, a team that can pay for a tenth of the labels is never protected."""
    policy = a_label_policy(SAMPLED)

    bad = told(policy, World(wrong=(0.01, 0.2), sampled=0.1, seconds=1000), 1100)
    healthy = told(policy, World(wrong=(0.01, 0.01), sampled=0.1, seconds=1000), 1100)
    plain = told(a_label_policy(), World(wrong=(0.01, 0.2), sampled=0.1, seconds=1000), 1100)

    assert ["breach", "rollback"] == kinds(bad)
    assert 0.12 < (breaches(bad)[0].evidence.estimate or 0) < 0.35
    assert [] == kinds(healthy)
    assert ("unknown", "label_outage") == (last_verdict(plain).verdict, last_verdict(plain).reason)
    entry = last_verdict(healthy).guards[0]
    assert 0.01 == pytest.approx(entry.estimate, abs=0.01)


def test_a_sample_that_stops_coming_is_an_outage() -> None:
    """If this breaks, an audit that nobody does any more looks like health."""
    world = World(sampled=0.1, labelled=lambda p, version, second: (second < 20) | (version == 0))

    verdict = last_verdict(told(a_label_policy(SAMPLED), world))

    assert ("unknown", "label_outage") == (verdict.verdict, verdict.reason)


def test_the_budget_holds_for_sampled_labels_at_the_limit() -> None:
    """If this breaks, a version at its limit is rolled back more often than was promised.

    15 runs at alpha 0.05 alarm 0.75 times on average, 5 times or more with a chance below 0.001.
    """
    policy = a_label_policy(SAMPLED, alpha=0.05)

    runs = [told(policy, World((0.0, 0.05), 300, seed, sampled=0.1), 300) for seed in range(15)]

    assert sum(bool(kinds(said)) for said in runs) < 5


def labels_stop(predicted: Any, version: Any, second: Any) -> Any:
    return (second < 40) | (version == 0)


def coverage_at(world: World, until_s: int) -> list[tuple[float, float]]:
    book = a_started_book(a_label_policy())
    play(book, world.messages(until_s))
    view = view_of(book.models["credit-risk"], 0.0, 0)
    (canary,) = [v for v in view["versions"] if v["version"] == "v42"]
    told: list[tuple[float, float]] = canary["coverage_by_age"]
    return told


def test_coverage_by_age_shows_labels_maturing() -> None:
    """If this breaks, nobody sees whether labels are late or lost."""
    young = coverage_at(World(), 60)
    old = coverage_at(World(), 300)

    assert [HORIZON_S / 16, HORIZON_S / 4] == [age for age, _ in young]
    expected = [1 - np.exp(-age / 20) for age in (10, 40, 160)]
    assert [HORIZON_S / 16, HORIZON_S / 4, HORIZON_S] == [age for age, _ in old]
    assert expected == pytest.approx([share for _, share in old], abs=0.05)


def test_coverage_by_age_falls_when_labels_stop_long_before_the_horizon() -> None:
    """If this breaks, a dead label pipeline is seen a horizon too late."""
    share = dict(coverage_at(World(labelled=labels_stop), 150))

    assert share[HORIZON_S / 4] < 0.5


# -- labels that count before their horizon ------------------------------------------------------

FASTER = GuardSpec(signal="error", max_increase=0.25)
FAST_BAD = ((60.0, 5.0), (60.0, 5.0))
"""Mean delays of good and bad labels, seconds, of both versions: what is bad comes first."""


def decided_s(said: list[Said]) -> float:
    (breach,) = breaches(said)
    return (breach.decided_at - START_MS) / 1000


@pytest.mark.parametrize("guard", [ERROR, GuardSpec(signal="accuracy", min=0.95),
                                   GuardSpec(signal="precision", min=0.9),
                                   GuardSpec(signal="fp_per_prediction", max=0.05)])  # fmt: skip
def test_optimistic_finds_a_bad_canary_before_its_horizon(guard: GuardSpec) -> None:
    """If this breaks, a plainly bad version serves for a whole horizon."""
    world = World(wrong=(0.01, 0.4))

    early = told(a_label_policy(guard, labels="optimistic"), world)
    late = told(a_label_policy(guard), world)

    assert ["breach", "rollback"] == kinds(early) == kinds(late)
    assert decided_s(early) < HORIZON_S < decided_s(late)
    assert "outcomes" == breaches(early)[0].position["topic"]


def test_optimistic_judges_means_before_their_horizon() -> None:
    """If this breaks, `optimistic` is accepted for absolute errors and does nothing."""
    guard = GuardSpec(signal="absolute_error", max=0.05, cap=1)

    said = told(a_label_policy(guard, labels="optimistic"), World(wrong=(0.01, 0.4)))

    assert ["breach", "rollback"] == kinds(said)
    assert decided_s(said) < HORIZON_S


def test_bad_labels_that_come_first_accuse_nobody_in_the_optimistic_mode() -> None:
    """If this breaks, every young version is rolled back: its bad labels are there, its good not.

    At most 4 % are wrong where 5 % are allowed; among labels that came, most are bad at first.
    """
    policy = a_label_policy(labels="optimistic")

    runs = [told(policy, World((0.04, 0.04), 300, seed, FAST_BAD), 470) for seed in range(4)]

    assert [[]] * 4 == [kinds(said) for said in runs]


def test_optimistic_passes_only_on_matured_labels() -> None:
    """If this breaks, predictions without labels prove that a version is good."""
    policy, world = a_label_policy(labels="optimistic"), World(wrong=(0.001, 0.001), seconds=700)

    young = told(policy, world, HORIZON_S - 10)
    old = told(policy, world, 700)

    assert "pass" not in {v.verdict for v in young if isinstance(v, Verdict)}
    assert "pass" == last_verdict(old).verdict


def labels_of_good_ones_stop(predicted: Any, version: Any, second: Any) -> Any:
    return (second < 10) | (version == 0)


@pytest.mark.parametrize("mode", ["matured", "optimistic", "conditional"])
@pytest.mark.parametrize("guard", [ERROR, FASTER])
def test_lost_labels_are_unknown_in_every_mode_and_never_a_rollback(
    mode: str, guard: GuardSpec
) -> None:
    """If this breaks, a dead label pipeline takes a version out of traffic, or clears it."""
    policy = a_label_policy(guard, labels=mode)

    said = told(policy, World(labelled=labels_of_good_ones_stop, seconds=450), 450)

    assert [] == kinds(said)
    verdict = last_verdict(said)
    assert ("unknown", "label_outage") == (verdict.verdict, verdict.reason)


def test_conditional_finds_a_worse_canary_before_the_labels_are_matured() -> None:
    """If this breaks, `conditional` is accepted and judges as `matured`."""
    turns = World(wrong=(0.4, 0.4), seconds=1400)
    rng = np.random.default_rng(9)
    now_bad = (turns.version == 1) & (np.arange(14_000) >= 9000) & (rng.random(14_000) < 0.7)
    turns.label = np.where(now_bad, 1 - turns.predicted, turns.label)

    early = told(a_label_policy(FASTER, labels="conditional"), turns, 1400)
    late = told(a_label_policy(FASTER), turns, 1400)

    assert ["breach", "rollback"] == kinds(early) == kinds(late)
    assert 900 < decided_s(early) < 900 + HORIZON_S < decided_s(late)


def test_conditional_falls_back_to_matured_when_delays_differ_and_says_so() -> None:
    """If this breaks, a canary whose labels come sooner is rolled back for that."""
    faster = ((60.0, 60.0), (60.0, 10.0))
    policy = a_label_policy(FASTER, labels="conditional", min_coverage=0.3)

    said = told(policy, World((0.1, 0.1), 1500, 3, faster), 1500)

    assert [] == kinds(said)
    assert last_verdict(said).text.endswith(
        "Note: delays differ between canary and stable, so labels are judged matured."
    )


@pytest.mark.parametrize(("mode", "guard"), [("optimistic", ERROR), ("conditional", FASTER)])
def test_early_forms_survive_a_restart(mode: str, guard: GuardSpec) -> None:
    """If this breaks, labels that came before a restart are forgotten, or count twice."""
    policy = a_label_policy(guard, labels=mode)
    messages = World(wrong=(0.05, 0.3)).messages(300)
    whole, first = a_started_book(policy), a_started_book(policy)

    expected = play(whole, messages)
    said = play(first, messages[:7])
    other = restarted(first, policy)
    said += play(other, messages[7:])

    assert ["breach", "rollback"] == kinds(expected)
    assert expected == said
    assert whole.save("credit-risk") == other.save("credit-risk")


def test_both_forms_together_spend_no_more_than_the_guard_has() -> None:
    """If this breaks, two tests of one guard alarm falsely twice as often as was promised."""
    for mode, guard in (("conditional", FASTER), ("optimistic", ERROR)):
        book = a_started_book(a_label_policy(guard, labels=mode, alpha=0.02))
        own = book.guards["credit-risk"]["v42"][guard.label]
        assert own.early is not None
        early, late = own.early.detector.alpha, own.detector.state()["parameters"]["alpha"]

        # The optimistic form decides alone; the matured one beside it only shows.
        assert 0.02 == own.alpha == early + (late if mode == "conditional" else 0.0)


OPTIMISTIC = """\
policies:
  - model: credit-risk
    mode: enforce
    labels: optimistic
    horizon: 600s
    guards: [{signal: error, max: 0.05}]
"""


def test_a_recording_is_judged_optimistically() -> None:
    """If this breaks, a replay says that nothing can be known before the horizon."""
    random = np.random.default_rng(2)
    lines = [a_plan(weight=0.5)]
    for n in range(1000):
        version = int(random.random() < 0.5)
        bad = int(random.random() < (0.3 if version else 0.01))
        lines += [a_prediction(f"p{n}", n / 10, f"v4{1 + version}", prediction=1),
                  an_outcome(f"p{n}", n / 10 + 0.05, 1 - bad)]  # fmt: skip

    result = replayed(packed(lines), OPTIMISTIC)
    (breach,) = result.of("breach")

    assert breach["line"] < 600
    assert "outcome" == lines[breach["line"] - 1]["type"]
    assert result == replayed(packed(lines), OPTIMISTIC, window=97)


def test_counts_of_labels_survive_a_restart() -> None:
    """If this breaks, a restarted worker forgets which labels came."""
    policy, messages = a_label_policy(FPR), World(wrong=(0.2, 0.2), labelled=only_flagged) \
        .messages(300)  # fmt: skip
    whole, first = a_started_book(policy), a_started_book(policy)

    play(whole, messages)
    play(first, messages[:34])
    other = restarted(first, policy)
    play(other, messages[34:])

    assert whole.save("credit-risk") == other.save("credit-risk")
