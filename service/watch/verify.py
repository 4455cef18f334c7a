"""Did the traffic really move? Only predictions prove a rollback, never a platform's answer.

After a receipt the share of new predictions of the bad version is followed, by `served_at` after
the receipt. Below 0.5 % with at least 50 seen it is *verified*; what was already in flight when the
platform answered is forgiven by a second count that begins five seconds later. After
`verify_within` of event time without that it is *unverified*: tried again, then a person is paged.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np

from schemas.policies import Policy
from service.watch.state import Case
from service.watch.tables import Table

ENOUGH = 50
"""Predictions that must have been seen."""

GONE = 0.005
"""Share below which the bad version counts as out of traffic."""

IN_FLIGHT_MS = 5000

Result = Literal["waiting", "verified", "unverified"]


class Proof(NamedTuple):
    """What traffic says about a command."""

    result: Result
    reason: str
    text: str


def follow(case: Case, table: Table) -> None:
    """Count the predictions of a `served` table that came after the case's receipt."""
    if case.receipt is None:
        return
    after = table.served_ms > case.receipt.finished_at
    if not after.any():
        return
    name = case.version
    bad = table.version == (table.versions.index(name) if name in table.versions else -1)
    late = table.served_ms > case.receipt.finished_at + IN_FLIGHT_MS
    case.seen += int(after.sum())
    case.seen_bad += int(np.count_nonzero(after & bad))
    case.late_seen += int(late.sum())
    case.late_seen_bad += int(np.count_nonzero(late & bad))


def prove(case: Case, policy: Policy, now_ms: int) -> Proof:
    """Say what the counts prove at event time `now_ms`."""
    if case.receipt is None:
        return Proof("waiting", "no_receipt", "waiting for the platform")
    for seen, bad in ((case.seen, case.seen_bad), (case.late_seen, case.late_seen_bad)):
        if seen >= ENOUGH and bad / seen < GONE:
            return Proof(
                "verified", "traffic_moved",
                f"{case.version} served {bad} of {seen} predictions since the receipt",
            )  # fmt: skip
    if now_ms < case.receipt.finished_at + policy.verify_within.ms:
        return Proof("waiting", "counting", f"{case.seen} predictions seen since the receipt")
    if case.seen < ENOUGH:
        return Proof(
            "unverified", "no_traffic",
            f"only {case.seen} predictions arrived since the receipt; the rollback is not proven",
        )  # fmt: skip
    share = case.seen_bad / case.seen
    return Proof(
        "unverified", "still_serving",
        f"{case.version} still has {share:.1%} of {case.seen} predictions, "
        "although the platform says it was moved",
    )  # fmt: skip
