"""A graduated response: tell, stop, shrink, roll back, after times in which nobody acted. Pure.

Why. Not every team wants traffic moved the moment a guard fires. With `response` a breach begins
with the mildest word and goes on to the next one after `patience`; a person who holds, rejects or
moves the canary ends it. The breach itself is latched, so nothing need be proved again.

A word that cannot be carried out is passed over: a canary that has no more than `shrink_to` is not
shrunk, and a stable without a canary neither.
"""

from __future__ import annotations

from schemas.policies import Policy
from service.watch.state import Case, Model
from service.watch.weights import canaries_of, weight_of


def begin(case: Case, model: Model, policy: Policy | None) -> None:
    """A case has come to ask for a rollback: start with the mildest word."""
    if policy is None or case.wanted != "rollback" or case.rung:
        return
    words = [word for word in policy.response if _can(word, case, model, policy)]
    case.rung, case.rung_ms = (words or ["rollback"])[0], model.now_ms


def due_ms(case: Case, policy: Policy) -> int | None:
    """Event time at which the next word is due; None: there is none, or a person is asked."""
    if case.closed or case.proposed or case.wanted != "rollback" or case.kind != "breach":
        return None
    return case.rung_ms + policy.patience.ms if further(case, policy) else None


def further(case: Case, policy: Policy) -> list[str]:
    """The words after the one in force."""
    if case.rung not in policy.response:
        return []
    words: list[str] = list(policy.response)
    return words[words.index(case.rung) + 1 :]


def climb(case: Case, model: Model, policy: Policy) -> bool:
    """Go on to the next word when it is due; True when that was done."""
    due = due_ms(case, policy)
    if due is None or model.now_ms < due:
        return False
    words = [word for word in further(case, policy) if _can(word, case, model, policy)]
    if not words:
        return False
    case.rung, case.rung_ms = words[0], model.now_ms
    case.base, case.again, case.refusals = case.hop, False, []
    return True


def _can(word: str, case: Case, model: Model, policy: Policy) -> bool:
    plan = model.plan
    if word != "shrink":
        return True
    is_canary = plan is not None and case.version in canaries_of(plan)
    weight = weight_of(plan, case.version) if plan is not None and is_canary else None
    return weight is not None and weight > policy.shrink_to
