"""Did the traffic really move? Only predictions prove a rollback, never a platform's answer.

After a receipt the share of new predictions of the bad version is followed, by `served_at` after
the receipt. Below 0.5 % with at least 50 seen it is *verified*; what was already in flight when the
platform answered is forgiven by a second count that begins five seconds later. After
`verify_within` of event time without that it is *unverified*: tried again, then a person is paged.
"""

from __future__ import annotations

from math import log
from typing import Literal, NamedTuple

import numpy as np

from schemas.facts import Receipt
from schemas.policies import Policy
from service.watch.state import Case
from service.watch.tables import Table

ENOUGH = 50
"""Predictions that must have been seen."""

GONE = 0.005
"""Share below which the bad version counts as out of traffic."""

IN_FLIGHT_MS = 5000

LIKELIER = 20
"""How many times as likely as under its old share what the canary served must be under its new."""

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
    name = case.stable or "" if case.wanted == "promote" else case.version
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
    if case.wanted == "shift":
        return _prove_share(case, policy, now_ms, case.receipt)
    leaving = case.stable if case.wanted == "promote" else case.version
    for seen, bad in ((case.seen, case.seen_bad), (case.late_seen, case.late_seen_bad)):
        if seen >= ENOUGH and bad / seen < GONE:
            return Proof(
                "verified", "traffic_moved",
                f"{leaving} served {bad} of {seen} predictions since the receipt",
            )  # fmt: skip
    if now_ms < case.receipt.finished_at + policy.verify_within.ms:
        return Proof("waiting", "counting", f"{case.seen} predictions seen since the receipt")
    if case.seen < ENOUGH:
        return Proof(
            "unverified", "no_traffic",
            f"only {case.seen} predictions arrived since the receipt; nothing is proven",
        )  # fmt: skip
    share = case.seen_bad / case.seen
    return Proof(
        "unverified", "still_serving",
        f"{leaving} still has {share:.1%} of {case.seen} predictions, "
        "although the platform says it was moved",
    )  # fmt: skip


def _prove_share(case: Case, policy: Policy, now_ms: int, receipt: Receipt) -> Proof:
    """Whether the canary's share is the new one: `LIKELIER` times as likely as under the old."""
    wanted, was = (min(0.999, max(0.001, share)) for share in (case.weight or 0, case.weight_was))
    for seen, own in ((case.seen, case.seen_bad), (case.late_seen, case.late_seen_bad)):
        nats = own * log(wanted / was) + (seen - own) * log((1 - wanted) / (1 - was))
        if seen >= ENOUGH and nats >= log(LIKELIER):
            text = f"{case.version} served {own} of {seen} predictions since the receipt"
            return Proof("verified", "traffic_moved", text)
    if now_ms < receipt.finished_at + policy.verify_within.ms:
        return Proof("waiting", "counting", f"{case.seen} predictions seen since the receipt")
    text = (f"{case.version} served {case.seen_bad} of {case.seen} predictions since the receipt, "
            f"where {case.weight or 0:.0%} was set")  # fmt: skip
    return Proof("unverified", "no_traffic" if case.seen < ENOUGH else "still_serving", text)
