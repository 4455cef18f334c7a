"""Verdicts over time, on both databases."""

from __future__ import annotations

import msgspec
import sqlalchemy as sa

from schemas.verdicts import Verdict
from service.storage.history import AROUND_MS, COARSE_MS, FINE_MS, KEEP_MS, VerdictHistory
from service.storage.incident_log import IncidentLog
from tests.builders import NOW, an_entry

START = NOW // COARSE_MS * COARSE_MS


def a_verdict(at: int, word: str = "inconclusive", model: str = "m") -> Verdict:
    """What was said of v2 at a time."""
    return msgspec.convert(
        {"model": model, "version": "v2", "rollout_id": "r", "verdict": word, "reason": "too_few",
         "text": "t", "guards": [], "roles": "declared", "decided_at": at, "position": {}},
        Verdict,
    )  # fmt: skip


def times(history: VerdictHistory, model: str = "m") -> list[int]:
    """Event times of what is kept."""
    return [verdict.decided_at for verdict in history.between(model, 0, 2 * NOW)]


def test_what_was_said_twice_is_there_once_and_in_order(store: sa.Engine) -> None:
    """If this breaks, a chart goes back and forth after a crash."""
    history = VerdictHistory(store)
    history.add([a_verdict(START + 2), a_verdict(START + 1)])
    history.add([a_verdict(START + 2, "pass"), a_verdict(START + 3, model="other\0")])

    assert [START + 1, START + 2] == times(history)
    assert ["inconclusive"] * 2 == [v.verdict for v in history.between("m", 0, 2 * NOW)]
    assert [START + 2] == [v.decided_at for v in history.between("m", START + 2, START + 2)]
    assert [START + 2] == [v.decided_at for v in history.between("m", 0, 2 * NOW, limit=1)]
    assert [START + 3] == times(history, "other\0")


def test_old_history_is_thinned_but_changes_and_incidents_stay(store: sa.Engine) -> None:
    """If this breaks, the database grows without end, or a report has no curve."""
    history = VerdictHistory(store)
    said = [a_verdict(START + 10_000 * n, "breach" if n == 70 else "inconclusive")
            for n in range(120)]  # fmt: skip
    history.add(said[:50])
    history.add(said[50:])

    nothing = history.thin(START + FINE_MS)
    gone = history.thin(START + 10_000 * 120 + FINE_MS)

    changes = [0, 60, 70, 71]
    assert (0, 116) == (nothing, gone)
    assert [START + 10_000 * n for n in changes] == times(history)


def test_what_lies_around_an_incident_is_kept_for_ever(store: sa.Engine) -> None:
    """If this breaks, the post-mortem of last month's incident shows nothing."""
    history = VerdictHistory(store)
    IncidentLog(store).add([an_entry(model="m", at=START + 2 * AROUND_MS)])
    before, near = START, START + AROUND_MS + 5
    history.add([a_verdict(at) for at in (before, before + 1, near, near + 1)])

    history.thin(START + FINE_MS + 3 * AROUND_MS)
    thinned = times(history)
    history.thin(START + KEEP_MS + 3 * AROUND_MS)

    assert [before, near, near + 1] == thinned
    assert [near, near + 1] == times(history)
