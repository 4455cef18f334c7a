"""Deliveries: the outbox of notifications, one row for each thing told to each endpoint.

Why. A notification must go out once, whatever is killed, and a dead endpoint must not delay
anything else. So the rows and the position up to which the incident log was told are one
transaction, and a row is claimed by a conditional `UPDATE` whose row count says who won.

How. A claim counts up `claims` and holds for a lease; what came of it is stored only by the same
claim. A sender that dies in between leaves the row to be claimed again after the lease: the
outcome is unknown, so it is sent again under the same id. Payloads are kept as rendered: a second
try sends the same words. They never hold an address or a secret.

Refused here: when to try again and what an answer means (`service/alert`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa

from service.storage.database import insert_once, metadata

deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("delivery_id", sa.Text, primary_key=True),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("incident_id", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("payload", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("created_at", sa.BigInteger, nullable=False),
    sa.Column("next_at", sa.BigInteger, nullable=False),
    sa.Column("claims", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("last_reason", sa.Text, nullable=False),
    sa.Index("deliveries_due", "state", "endpoint", "next_at"),
)
endpoints = sa.Table(
    "delivery_endpoints",
    metadata,
    sa.Column("endpoint", sa.Text, primary_key=True),
    sa.Column("disabled", sa.Text, nullable=False),
    sa.Column("paused_until", sa.BigInteger, nullable=False),
)
positions = sa.Table(
    "delivery_positions",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("sequence", sa.BigInteger, nullable=False),
)


class NewDelivery(NamedTuple):
    """What is to be told to one endpoint."""

    delivery_id: str
    endpoint: str
    incident_id: str
    kind: str
    payload: dict[str, Any]
    not_before: int
    """Wall time, epoch ms."""


class Claimed(NamedTuple):
    """One delivery that this process, and no other, may send now."""

    delivery_id: str
    endpoint: str
    incident_id: str
    kind: str
    payload: dict[str, Any]
    created_at: int
    claim: int
    failures: int


class Undelivered(NamedTuple):
    """One delivery on the dead-letter list of its endpoint."""

    delivery_id: str
    endpoint: str
    incident_id: str
    kind: str
    created_at: int
    reason: str


class DeliveryStore:
    """Verbs over the outbox. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def position(self) -> int | None:
        """Give the sequence number up to which the incident log was told; None: never begun."""
        with self._database.connect() as connection:
            found = connection.execute(sa.select(positions.c.sequence)).scalar()
        return None if found is None else int(found)

    def enqueue(self, told: Sequence[NewDelivery], before: int | None, now: int, to: int) -> bool:
        """Add deliveries and move the position from `before` to `to`, in one transaction.

        A delivery takes the place of an earlier `opened` one of its incident that nobody has tried
        to send yet, and of a `withheld` one that waits for the end of quiet hours: what follows
        says more. False: another process moved the position, nothing was stored.

        Parameters
        ----------
        now : int
            Wall time, epoch ms.
        """
        with self._database.begin() as connection:
            if not self._move(connection, before, to):
                return False
            for new in told:
                connection.execute(self._superseded(new, now))
                connection.execute(insert_once(deliveries, self._database), _row(new, now))
        return True

    def add(self, told: Sequence[NewDelivery], now: int) -> None:
        """Add deliveries that come from no entry of the log."""
        with self._database.begin() as connection:
            for new in told:
                connection.execute(insert_once(deliveries, self._database), _row(new, now))

    def claim(self, endpoint: str, now: int, lease_ms: int) -> Claimed | None:
        """Claim the oldest delivery of an endpoint that is due; None when there is none."""
        due = sa.select(deliveries).where(_due(endpoint, now))
        due = due.order_by(deliveries.c.created_at, deliveries.c.next_at).limit(1)
        with self._database.begin() as connection:
            row = connection.execute(due).one_or_none()
            if row is None or not self._open(connection, endpoint, now):
                return None
            taken = sa.update(deliveries).where(
                deliveries.c.delivery_id == row.delivery_id,
                deliveries.c.claims == row.claims,
                deliveries.c.state == "queued",
            )
            taken = taken.values(claims=row.claims + 1, next_at=now + lease_ms)
            if connection.execute(taken).rowcount != 1:
                return None
        payload = msgspec.json.decode(row.payload, type=dict[str, Any])
        return Claimed(
            row.delivery_id, row.endpoint, row.incident_id, row.kind, payload,
            row.created_at, row.claims + 1, row.failures,
        )  # fmt: skip

    def sent(self, claimed: Claimed) -> bool:
        """Note that it was taken; False: another process has claimed it since."""
        return self._store(claimed, state="sent", last_reason="")

    def retry(self, claimed: Claimed, reason: str, next_at: int, failed: bool) -> bool:
        """Put it back until `next_at`; `failed` False: it was only throttled."""
        failures = claimed.failures + failed
        return self._store(claimed, failures=failures, last_reason=reason, next_at=next_at)

    def bury(self, claimed: Claimed, reason: str) -> bool:
        """Put it on the dead-letter list: nobody will try it again by itself."""
        return self._store(claimed, state="dead", last_reason=reason)

    def pause(self, endpoint: str, until: int) -> None:
        """Send nothing to an endpoint before `until`, epoch ms."""
        self._set_endpoint(endpoint, paused_until=until)

    def disable(self, endpoint: str, reason: str) -> None:
        """Send nothing more to an endpoint, and bury what waits for it."""
        self._set_endpoint(endpoint, disabled=reason)
        waiting = (deliveries.c.endpoint == endpoint) & (deliveries.c.state == "queued")
        with self._database.begin() as connection:
            connection.execute(
                sa.update(deliveries).where(waiting).values(state="dead", last_reason=reason)
            )

    def disabled(self) -> dict[str, str]:
        """Give the reason of each endpoint that is disabled."""
        found = sa.select(endpoints.c.endpoint, endpoints.c.disabled).where(
            endpoints.c.disabled != ""
        )
        with self._database.connect() as connection:
            return {row.endpoint: row.disabled for row in connection.execute(found)}

    def dead(self, limit: int = 100) -> list[Undelivered]:
        """Give the dead-letter list, newest first."""
        found = sa.select(deliveries).where(deliveries.c.state == "dead")
        found = found.order_by(deliveries.c.created_at.desc()).limit(limit)
        with self._database.connect() as connection:
            return [_undelivered(row) for row in connection.execute(found)]

    def revive(self, delivery_id: str, now: int) -> bool:
        """Take one from the dead-letter list and queue it again, from the first try on."""
        buried = (deliveries.c.delivery_id == delivery_id) & (deliveries.c.state == "dead")
        again = sa.update(deliveries).where(buried).values(state="queued", next_at=now, failures=0)
        with self._database.begin() as connection:
            return connection.execute(again).rowcount == 1

    def counts(self) -> dict[tuple[str, str], int]:
        """Count deliveries by (endpoint, state)."""
        found = sa.select(deliveries.c.endpoint, deliveries.c.state, sa.func.count())
        found = found.group_by(deliveries.c.endpoint, deliveries.c.state)
        with self._database.connect() as connection:
            return {(row[0], row[1]): row[2] for row in connection.execute(found)}

    def _move(self, connection: sa.Connection, before: int | None, to: int) -> bool:
        if before is None:
            begun = insert_once(positions, self._database).returning(positions.c.name)
            row = {"name": "told", "sequence": to}
            # Not by row count: psycopg gives none for an INSERT.
            return connection.execute(begun, row).first() is not None
        moved = sa.update(positions).where(positions.c.sequence == before).values(sequence=to)
        return connection.execute(moved).rowcount == 1

    def _superseded(self, new: NewDelivery, now: int) -> sa.Update:
        kind = deliveries.c.kind
        earlier = sa.update(deliveries).where(
            deliveries.c.incident_id == new.incident_id,
            deliveries.c.endpoint == new.endpoint,
            (kind == "opened") | ((kind == "withheld") & (deliveries.c.next_at > now)),
            deliveries.c.state == "queued",
            deliveries.c.claims == 0,
            deliveries.c.delivery_id != new.delivery_id,
        )
        return earlier.values(state="superseded", last_reason=f"by {new.delivery_id}")

    def _open(self, connection: sa.Connection, endpoint: str, now: int) -> bool:
        found = sa.select(endpoints).where(endpoints.c.endpoint == endpoint)
        row = connection.execute(found).one_or_none()
        return row is None or (not row.disabled and row.paused_until <= now)

    def _store(self, claimed: Claimed, **changes: object) -> bool:
        mine = (deliveries.c.delivery_id == claimed.delivery_id) & (
            deliveries.c.claims == claimed.claim
        )
        with self._database.begin() as connection:
            stored = connection.execute(sa.update(deliveries).where(mine).values(**changes))
            return stored.rowcount == 1

    def _set_endpoint(self, endpoint: str, **changes: object) -> None:
        row = {"endpoint": endpoint, "disabled": "", "paused_until": 0}
        named = sa.update(endpoints).where(endpoints.c.endpoint == endpoint)
        with self._database.begin() as connection:
            connection.execute(insert_once(endpoints, self._database), row)
            connection.execute(named.values(**changes))


def _undelivered(row: Any) -> Undelivered:
    return Undelivered(
        row.delivery_id, row.endpoint, row.incident_id, row.kind, row.created_at, row.last_reason
    )


def _due(endpoint: str, now: int) -> sa.ColumnElement[bool]:
    return sa.and_(
        deliveries.c.endpoint == endpoint,
        deliveries.c.state == "queued",
        deliveries.c.next_at <= now,
    )


def _row(new: NewDelivery, now: int) -> dict[str, object]:
    return {
        "delivery_id": new.delivery_id,
        "endpoint": new.endpoint,
        "incident_id": new.incident_id,
        "kind": new.kind,
        "payload": msgspec.json.encode(new.payload),
        "state": "queued",
        "created_at": now,
        "next_at": new.not_before,
        "claims": 0,
        "failures": 0,
        "last_reason": "",
    }
