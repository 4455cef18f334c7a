"""How an execution ends: the status, what the platform shows of it, and the words for people.

Why. A receipt is the only account of what was done to production, so its rules stand on one page
and are pure. `effect` is what was seen, never what was hoped: `none`, `full`, `mixed`, or `unknown`
where nothing could be read back.

Refused here: `applied` on a status code alone.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from schemas.commands import Command
from schemas.facts import Receipt, ReceiptStatus
from service.act.plans import Applied, Current, Plan, Refusal, compare, differs

Effect = Literal["none", "full", "mixed", "unknown"]


class Outcome(NamedTuple):
    """What came of a command."""

    status: ReceiptStatus
    reason: str
    """One word, empty where all went well."""
    text: str
    """One sentence."""
    effect: Effect = "none"
    now: Current | None = None
    """What serves, as last read."""
    plan: Plan | None = None
    rule: str = ""
    by: str = ""
    """What confirmed it: `config` (read back), `account` (the platform's word), or nothing."""


class Course(NamedTuple):
    """How an execution went."""

    started_at: int
    finished_at: int
    """Epoch ms."""
    attempts: int = 0
    """How often it was tried to write."""
    reads: int = 0
    before: dict[str, float] | None = None
    log: tuple[dict[str, Any], ...] = ()
    resumed: bool = False
    """Another process had begun to write."""
    dry: bool = False


def words_of(command: Command) -> str:
    """Say in the past tense what a command does."""
    if command.action == "hold":
        return f"{command.model} was stopped where it is"
    if command.action == "shift":
        return f"{command.from_version} was set to {100 * (command.weight or 0):g} %"
    return f"{command.to_version} was given all traffic"


def there(now: Current, plan: Plan, command: Command, doubt: bool) -> Outcome:
    """Nothing has to be written: it serves as asked."""
    text = f"{command.to_version} serves as asked; nothing was written"
    if doubt:
        text = f"{command.to_version} serves as asked; an earlier write of this command may have "
        text += "done it"
    return Outcome("already_there", "", text, "full", now, plan, by="config")


def read_back(status: ReceiptStatus, now: Current, plan: Plan, command: Command) -> Outcome:
    """It was written and shows."""
    text = f"{words_of(command)}, and that was read back"
    return Outcome(status, "", text, "full", now, plan, by="config")


def refused(refusal: Refusal, now: Current, doubt: Plan | None) -> Outcome:
    """The plan said no; what an earlier write of the same command did is taken in."""
    status, effect = after_doubt(refusal.status, now, doubt)
    return Outcome(status, refusal.reason, refusal.text, effect, now, rule=refusal.rule)


def unread(why: str, doubt: Plan | None) -> Outcome:
    """What serves cannot be read."""
    if doubt is None:
        return Outcome("failed", "unreadable", f"what serves cannot be read: {why}")
    text = f"it was sent, but what came of it cannot be read: {why}"
    return Outcome("expired", "outcome_unknown", text, "unknown", plan=doubt)


def unsettled(now: Current, plan: Plan) -> Outcome:
    """It was written, but does not show in time."""
    seen = compare(now, plan)
    if seen == "reverted":
        text = "the platform said yes, but the old state still serves or serves again"
        return Outcome("failed", "reverted", text, "none", now, plan)
    if seen == "pending":
        text = "the platform was still moving when its time to settle was over"
        return Outcome("failed", "in_transition", text, "unknown", now, plan)
    if seen == "settled":
        text = "it is stored as asked, but the platform did not confirm it in its time to settle"
        return Outcome("failed", "unconfirmed", text, "unknown", now, plan)
    text = f"only a part of it shows: {differs(now, plan.wanted)}"
    return Outcome("partial", "mixed", text, "mixed", now, plan)


def by_account(applied: Applied, plan: Plan, command: Command) -> Outcome:
    """The platform cannot be read: its own word is all there is, if it has given one."""
    if applied.status is None:
        text = "it was sent, but the platform neither said what came of it nor can be asked"
        return Outcome("expired", "outcome_unknown", text, "unknown", plan=plan)
    told = None if applied.shares is None else Current(shares=applied.shares)
    text = applied.text or f"{words_of(command)}, by the platform's own account"
    return Outcome(applied.status, "", text, "unknown", told, plan, by="account")


def declined(applied: Applied, plan: Plan) -> Outcome:
    """The platform answered that it did not do it."""
    assert applied.status is not None  # noqa: S101 - who calls has seen the word
    effect: Effect = "mixed" if applied.status == "partial" else "none"
    text = applied.text or f"the platform answered {applied.status}"
    told = None if applied.shares is None else Current(shares=applied.shares)
    return Outcome(applied.status, "platform", text, effect, told, plan, by="account")


def after_doubt(
    status: ReceiptStatus, now: Current, doubt: Plan | None
) -> tuple[ReceiptStatus, Effect]:
    """Give status and effect where no more is written, with an earlier write taken in."""
    if doubt is None:
        return status, "none"
    if now.shares is None:
        return "expired", "unknown"
    seen = compare(now, doubt)
    if seen == "settled":
        return "already_there", "full"
    if seen == "mixed":
        return "partial", "mixed"
    return status, "none" if seen == "reverted" else "unknown"


def receipt_of(command: Command, outcome: Outcome, course: Course) -> Receipt:
    """Write the receipt."""
    plan, now = outcome.plan, outcome.now
    detail: dict[str, Any] = {
        "effect": "none" if course.dry else outcome.effect,
        "reason": outcome.reason,
        "text": outcome.text,
        "rule": outcome.rule,
        "requests": list(course.log),
        "reads": course.reads,
        "verified_by": outcome.by,
    }
    if plan is not None:
        detail |= {"diff": plan.diff, "lock": plan.lock, "undo": plan.undo}
        detail |= {"notes": plan.notes, "touches": plan.touches}
    if now is not None and now.owner:
        detail["owner"] = now.owner
    if course.resumed:
        detail["resumed"] = True
    if course.dry:
        detail["dry_run"] = True
    return Receipt(
        command_id=command.command_id,
        status=outcome.status,
        before=course.before or {},
        after=(now.shares or {}) if now is not None else {},
        detail=detail,
        adapter=command.adapter,
        started_at=course.started_at,
        finished_at=course.finished_at,
        attempts=course.attempts,
        model=command.model,
        incident_id=command.incident_id,
        action=command.action,
        from_version=command.from_version,
        to_version=command.to_version,
    )
