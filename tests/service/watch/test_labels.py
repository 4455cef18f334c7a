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
        """One message a second."""
        told = []
        for second in range(until_s):
            since, to = START_MS + second * 1000, START_MS + second * 1000 + 1000
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

    bad = told(policy, World(wrong=(0.01, 0.2), sampled=0.1, seconds=1000), 1200)
    healthy = told(policy, World(wrong=(0.01, 0.01), sampled=0.1, seconds=1000), 1200)
    plain = told(a_label_policy(), World(wrong=(0.01, 0.2), sampled=0.1, seconds=1000), 1200)

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

    30 runs at alpha 0.05 alarm 1.5 times on average, 7 times or more with a chance below 0.001.
    """
    policy = a_label_policy(SAMPLED, alpha=0.05)

    runs = [told(policy, World((0.0, 0.05), 300, seed, sampled=0.1), 300) for seed in range(30)]

    assert sum(bool(kinds(said)) for said in runs) < 7


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


def test_counts_of_labels_survive_a_restart() -> None:
    """If this breaks, a restarted worker forgets which labels came."""
    policy, messages = a_label_policy(FPR), World(wrong=(0.2, 0.2), labelled=only_flagged) \
        .messages(300)  # fmt: skip
    whole, first = a_started_book(policy), a_started_book(policy)

    play(whole, messages)
    play(first, messages[:170])
    other = restarted(first, policy)
    play(other, messages[170:])

    assert whole.save("credit-risk") == other.save("credit-risk")
