"""What was thought of each version over time: published verdicts, thinned as they grow old.

Why. A page or a post-mortem has to show how the evidence grew and how far canary and stable were
apart; the topic `verdicts` keeps only the newest of each.

How. One row for each published verdict, named by model, version and event time, so that saying one
twice changes nothing. After an hour only the first row of every ten minutes and every change stay,
and, untouched, what lies around an incident of the model; after two weeks only the last of these.

Refused here: judging, and any other source of numbers than what `watch` said.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import sqlalchemy as sa

from schemas.verdicts import Verdict
from service.storage.database import insert_once, metadata
from service.storage.incident_log import entries

FINE_MS = 3600 * 1000
"""How long every verdict is kept."""
COARSE_MS = 600 * 1000
"""Afterwards, one in so much event time."""
KEEP_MS = 14 * 86_400 * 1000
"""Afterwards, only what lies around an incident."""
AROUND_MS = 1800 * 1000
"""What lies so close to an incident's entry stays as it is."""

rows = sa.Table(
    "verdict_history",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("version", sa.Text, primary_key=True),
    sa.Column("at", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("word", sa.Text, nullable=False),
    sa.Column("coarse", sa.Boolean, nullable=False),
    sa.Column("verdict", sa.LargeBinary, nullable=False),
    sa.Index("verdict_history_by_time", "at"),
)

_decoder = msgspec.json.Decoder(Verdict)


class VerdictHistory:
    """Verbs over the history. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Remember verdicts; what is known already is left alone."""
        if not verdicts:
            return
        with self._database.begin() as connection:
            last = self._last(connection, {(v.model, v.version) for v in verdicts})
            found = []
            for verdict in verdicts:
                name = (verdict.model, verdict.version)
                bucket, word = verdict.decided_at // COARSE_MS, f"{verdict.verdict} {verdict.role}"
                coarse = last.get(name) != (bucket, word)
                last[name] = (bucket, word)
                found.append({
                    "model": _plain(verdict.model), "version": _plain(verdict.version),
                    "at": verdict.decided_at, "word": word, "coarse": coarse,
                    "verdict": msgspec.json.encode(verdict),
                })  # fmt: skip
            connection.execute(insert_once(rows, self._database), found)

    def _last(
        self, connection: sa.Connection, names: set[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[int, str]]:
        """Ten minutes and word of the newest row of each version."""
        found = {}
        for model, version in names:
            newest = (
                sa.select(rows.c.at, rows.c.word)
                .where((rows.c.model == _plain(model)) & (rows.c.version == _plain(version)))
                .order_by(rows.c.at.desc())
                .limit(1)
            )
            if (row := connection.execute(newest).first()) is not None:
                found[(model, version)] = (row.at // COARSE_MS, row.word)
        return found

    def between(self, model: str, first_ms: int, last_ms: int, limit: int = 5000) -> list[Verdict]:
        """Give a model's verdicts of a span of event time, oldest first, of all its versions."""
        query = (
            sa.select(rows.c.verdict)
            .where((rows.c.model == _plain(model)) & rows.c.at.between(first_ms, last_ms))
            .order_by(rows.c.at.desc(), rows.c.version)
            .limit(limit)
        )
        with self._database.connect() as connection:
            found = connection.execute(query).scalars().all()
        return [_decoder.decode(data) for data in reversed(found)]

    def thin(self, now_ms: int) -> int:
        """Drop what is too old and too fine; how many rows went."""
        old = (rows.c.at < now_ms - KEEP_MS) | (
            (rows.c.at < now_ms - FINE_MS) & sa.not_(rows.c.coarse)
        )
        near = sa.exists().where(
            (entries.c.model == rows.c.model)
            & entries.c.at.between(rows.c.at - AROUND_MS, rows.c.at + AROUND_MS)
        )
        with self._database.begin() as connection:
            return connection.execute(sa.delete(rows).where(old & ~near)).rowcount


def _plain(name: str) -> str:
    # PostgreSQL refuses NUL in a text.
    return name.replace("\0", "\N{REPLACEMENT CHARACTER}")
