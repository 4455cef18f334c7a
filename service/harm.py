"""Do no harm: every rule that may stop a command, on one page; they can only say no.

Why. What moves production traffic by itself must be stoppable by anybody who can read. So each rule
is a plain function of plain facts, `watch` asks them before a command is appended, and `act` asks
those that can change on the way again, right before each write. Both import this module and nothing
of each other. docs/safety.md names, for each rule, the test that fails without it.

How. A rule answers with a refusal or with None. The first refusal counts; it is written on the
incident with its rule and counted, never passed over in silence. The facts are gathered by others:
what only a shell can know (holds, the fleet, the clock) arrives as an argument.

What binds whom. H6 to H11 bind automatic commands only. A person's order passes holds, budgets and
the mode, but never a bad target, a lower fence, an expiry or a missing expectation.

H3 (ids are derived) is `schemas/ids.py`; H9 (what is unknown neither breaches nor clears) is
`service/watch/decide.py`; H12 (heartbeat) is `service/alert/heartbeat.py`; H14's order on the
log is `service/watch/worker.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from schemas.facts import ReceiptStatus


class Refuse(NamedTuple):
    """A rule said no."""

    rule: str
    reason: str
    """One word, the same in receipts, metrics and incidents."""
    text: str
    """One sentence that a person understands."""
    evidence: dict[str, Any]
    status: ReceiptStatus = "refused"


RULE_OF = {
    "no_target": "H1", "quarantined": "H1", "superseded": "H2", "no_expectation": "H2",
    "fenced": "H4", "expired": "H5", "stale": "H5", "unplanned": "H2",
    "budget": "H6", "fleet_budget": "H6",
    "correlated": "H7", "cooldown": "H8", "flapping": "H8", "one_hop": "H8", "both_moved": "H9",
    "stable_ill": "H9", "hold": "H10", "freeze": "H10", "observe": "H11", "propose": "H11",
    "roles": "H11", "unknown_adapter": "H13", "unknown_verb": "H13", "no_weight": "H13",
    "unproven": "H14",
}  # fmt: skip
"""The rule behind each word."""

WORDS = {
    "observe": "the policy only observes; it would have acted",
    "roles": "stable and canary are inferred from traffic, and the policy does not permit that",
    "no_target": "there is no version that is known good to return to",
    "quarantined": "the version that would serve was itself rolled back a short while ago",
    "unproven": "the canary no longer passes, or an incident about it or its stable is open",
    "unplanned": "no rollout event names this version, so nobody knows what moving it would move",
    "superseded": "the version no longer serves under the current plan",
    "one_hop": "this incident has used up its tries, or the version was itself only just restored",
    "both_moved": "stable became worse together with the canary; a rollback cures nothing",
    "stable_ill": "the stable version fails its own objectives; it is no target",
    "stale": "the decision is older than the policy permits",
    "cooldown": "this model was rolled back automatically a short while ago",
    "budget": "this model has used up its automatic rollbacks",
    "flapping": "this model was rolled back as often as is permitted, and stays as it is until "
                "the first of those is long enough ago, or a person acts",
    "fleet_budget": "all models together have used up their automatic rollbacks",
    "correlated": "many models breach at once, so the cause is likely one that they share; all "
                  "automatic action is held",
    "freeze": "promotions are frozen",
    "hold": "an operator holds automatic action",
}  # fmt: skip

NEEDS_A_PERSON = frozenset({
    "no_target", "unplanned", "quarantined", "one_hop", "stable_ill", "budget", "flapping",
    "fleet_budget", "correlated",
})  # fmt: skip
"""Refusals after which nothing more happens by itself: people are called."""


class Wish(NamedTuple):
    """What `watch` would order, with everything that the rules look at."""

    automatic: bool = True
    promotes: bool = False
    """It gives a canary more traffic; else it takes traffic from a failing version."""
    tries: int = 0
    """Commands of this decision that were sent already."""
    mode: str = "enforce"
    roles: bool = True
    """Stable and canary are declared, or the policy permits inferred ones."""
    target: str | None = None
    """Where traffic would go."""
    target_fault: str | None = None
    """Why that version may not be given traffic, as a word."""
    serves: bool = True
    """The version that is left, or promoted, has its place in the plan still."""
    planned: bool = True
    """A rollout event has named the version."""
    restored: bool = False
    """The failing version is itself the target of a rollback and has not baked since."""
    retries: int = 1
    proven: bool = True
    both_moved: bool = False
    stable_ill: bool = False
    age_ms: int = 0
    max_age_ms: int = 1
    since_rollback_ms: int | None = None
    """Wall time since the model's last automatic rollback; below 0 when the clock moved back."""
    cooldown_ms: int = 0
    spent: int = 0
    """Automatic rollbacks of this model within the budget's time."""
    budget: int = 1
    tripped: bool = False
    """The budget was once exceeded and has not been empty since."""
    fleet: Fleet | None = None
    frozen: str | None = None
    held: str | None = None


class Fleet(NamedTuple):
    """What is known of all models together."""

    over_budget: bool = False
    together: str | None = None
    """Why breaches are taken for one shared cause, or None."""


def judge(wish: Wish) -> Refuse | None:
    """Give the first refusal, or None: the command may be appended.

    Examples
    --------
    >>> judge(Wish(target=None)).rule, judge(Wish(target="v1", held="ann: migration")).reason
    ('H1', 'hold')
    """
    return next(_refusals(wish), None)


def _refusals(wish: Wish) -> Iterator[Refuse]:
    for rule in RULES:
        if (word := rule(wish)) is not None:
            shared = wish.fleet.together if wish.fleet is not None else None
            told = {"hold": wish.held, "freeze": wish.frozen, "correlated": shared}.get(word)
            text = WORDS[word] + (f" ({told})" if told else "")
            yield Refuse(RULE_OF[word], word, text, {})


def observes(wish: Wish) -> str | None:
    """H11: a policy that only observes orders nothing by itself."""
    return "observe" if wish.automatic and wish.mode == "observe" else None


def has_target(wish: Wish) -> str | None:
    """H1: the target is named."""
    return "no_target" if not wish.target else None


def is_planned(wish: Wish) -> str | None:
    """H2: a version that no plan names is told of, and not moved."""
    return None if wish.planned else "unplanned"


def is_current(wish: Wish) -> str | None:
    """H2: the plan that the decision was made under holds still."""
    return "superseded" if wish.tries == 0 and not wish.serves else None


def has_good_target(wish: Wish) -> str | None:
    """H1: nothing goes to a version that is bad, unproven or in quarantine."""
    return wish.target_fault


def is_one_hop(wish: Wish) -> str | None:
    """H8: tries are few, and a version that was only just restored is not left in its turn."""
    return "one_hop" if wish.tries > wish.retries or (wish.automatic and wish.restored) else None


def has_roles(wish: Wish) -> str | None:
    """H11: a guess about who is stable moves nothing unless the policy permits it."""
    return "roles" if wish.automatic and not wish.roles else None


def is_earned(wish: Wish) -> str | None:
    """H14: no promotion without its proof, as no rollback without its breach."""
    return "unproven" if wish.promotes and not wish.proven else None


def is_alone(wish: Wish) -> str | None:
    """H9: what hits both versions is no fault of one."""
    return "both_moved" if wish.automatic and wish.both_moved else None


def stable_is_well(wish: Wish) -> str | None:
    """H9: an ill stable is no target and no yardstick."""
    return "stable_ill" if wish.automatic and wish.stable_ill else None


def is_fresh(wish: Wish) -> str | None:
    """H5: what was decided about a world that is gone is recorded, not sent."""
    return "stale" if wish.automatic and wish.age_ms > wish.max_age_ms else None


def is_alone_in_fleet(wish: Wish) -> str | None:
    """H7: many models at once have one cause, which no rollback cures."""
    together = wish.fleet is not None and wish.fleet.together is not None
    return "correlated" if wish.automatic and together else None


def has_cooled(wish: Wish) -> str | None:
    """H8: after a rollback the model is left alone for a while; a second try is the same one."""
    if not wish.automatic or wish.promotes or wish.tries or wish.since_rollback_ms is None:
        return None
    return "cooldown" if wish.since_rollback_ms < wish.cooldown_ms else None


def is_within_budget(wish: Wish) -> str | None:
    """H6, H8: few automatic rollbacks per model; once used up, none until all are long ago."""
    if not wish.automatic or wish.promotes or wish.tries:
        return None
    if wish.tripped and wish.spent:
        return "flapping"
    return "budget" if wish.spent >= wish.budget else None


def is_within_fleet_budget(wish: Wish) -> str | None:
    """H6: few automatic rollbacks over all models."""
    if not wish.automatic or wish.promotes or wish.tries or wish.fleet is None:
        return None
    return "fleet_budget" if wish.fleet.over_budget else None


def is_not_frozen(wish: Wish) -> str | None:
    """H10: in a freeze nothing is promoted; a rollback is what a freeze is kept safe by."""
    return "freeze" if wish.automatic and wish.promotes and wish.frozen else None


def is_not_held(wish: Wish) -> str | None:
    """H10: a hold or the kill switch stops what happens by itself; doubt counts as held."""
    return "hold" if wish.automatic and wish.held else None


RULES = (
    observes, is_planned, has_target, is_current, has_good_target, is_one_hop, has_roles, is_earned,
    is_alone, stable_is_well, is_fresh, is_alone_in_fleet, has_cooled, is_within_budget,
    is_within_fleet_budget, is_not_frozen, is_not_held,
)  # fmt: skip
"""In the order in which they are asked; holds last, because reading them costs a query."""


def within(since_ms: Collection[int], now_ms: int, span_ms: int) -> int:
    """How many of these wall times lie within a span before now; a later one counts as well.

    A clock that moved back would otherwise refill every budget.
    """
    return sum(1 for at_ms in since_ms if now_ms - at_ms < span_ms)


def together(breached: Collection[str], watched: int, share: float, least: int) -> str | None:
    """H7: say why breaches of late are taken for one shared cause, or None.

    Parameters
    ----------
    breached : collection of str
        Models that breached within the time that counts.
    watched : int
        Models that are watched at all.
    share : float
        Part of them from which on a shared cause is suspected.
    least : int
        Fewest models for it.

    Examples
    --------
    >>> together({"a"}, 50, 0.2, 3) is None, together(set("abc"), 3, 0.2, 3)
    (True, '3 of 3 models breached at once')
    """
    models = set(breached)
    if len(models) < max(least, share * watched):
        return None
    return f"{len(models)} of {max(watched, len(models))} models breached at once"


# What `act` asks of a command, once and again right before each write --------------------------


def fence(sent: int, highest: int, model: str) -> Refuse | None:
    """H4: an order of an owner that was replaced is void."""
    if sent >= highest:
        return None
    text = f"another owner has taken over {model} since this command was made"
    return Refuse("H4", "fenced", text, {"fence": sent, "highest": highest})


def expiry(expires_at: int, now_ms: int) -> Refuse | None:
    """H5: an order acts on the world that it was made for, or not at all."""
    if now_ms < expires_at:
        return None
    late_s = (now_ms - expires_at) / 1000
    text = f"the command expired {late_s:.0f} s ago; it is decided again from fresh data"
    return Refuse("H5", "expired", text, {"late_s": late_s}, "expired")


def switch(stop: str | None, automatic: bool) -> Refuse | None:
    """H10: the kill switch and holds, read at the last moment."""
    if stop is None or not automatic:
        return None
    return Refuse("H10", "hold", stop, {"stop": stop})


def expectation(stable: str | None) -> Refuse | None:
    """H2: who does not say what serves cannot be told that somebody moved it meanwhile."""
    if stable is not None:
        return None
    text = "the command does not say what serves, so nobody could tell who moved it meanwhile"
    return Refuse("H2", "no_expectation", text, {})


def permission(mode: str, automatic: bool) -> Refuse | None:
    """H11: without `enforce` only a person may have it carried out."""
    if mode == "enforce" or not automatic:
        return None
    text = f"the policy's mode is {mode}: only a person may have this carried out"
    return Refuse("H11", mode, text, {"mode": mode})
