"""When an undelivered message is tried again, and when nobody tries any more.

Pure: what a platform answered and how often it failed give the next step. The pauses are those that
Standard Webhooks recommends, over three days; the jitter is spread evenly over one pause's length
around it and comes from the delivery's id, so that many messages held back together do not return
together and a test can repeat it.
"""

from __future__ import annotations

from typing import NamedTuple

from schemas.ids import derive

PAUSES_S = (5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400)
"""Pause after the first, second, … failure; after one more failure it is given up."""
THROTTLED_S = 30.0
"""Pause where a platform asks for one without saying how long."""
LONGEST_THROTTLE_S = 3600.0
LONGEST_LIFE_S = 5 * 86_400
"""A platform that only ever throttles must not keep a message for ever."""


class Again(NamedTuple):
    """When to try again."""

    after_s: float
    failed: bool
    """Whether the try counts as a failure."""


def next_try(
    delivery_id: str, failures: int, age_s: float, throttled: bool, retry_after_s: float | None
) -> Again | None:
    """Give the next try of a message that was not taken, or None when it is given up.

    Parameters
    ----------
    failures : int
        Failed tries before this one.
    age_s : float
        Seconds since the message was made.
    retry_after_s : float or None
        The pause the platform asks for.
    """
    if age_s > LONGEST_LIFE_S:
        return None
    if throttled:
        pause_s = THROTTLED_S if retry_after_s is None else retry_after_s
        return Again(min(max(pause_s, 1.0), LONGEST_THROTTLE_S), failed=False)
    if failures >= len(PAUSES_S):
        return None
    spread = int(derive("jitter", delivery_id, failures)[:8], 16) / 0x1_0000_0000
    return Again(max(PAUSES_S[failures] * (0.5 + spread), retry_after_s or 0.0), failed=True)
