"""What `act` must remember: the highest fence per model, receipts given, writes under way.

Why. Commands come at least once, from owners that may have been replaced, and a process can die
between a platform's answer and its receipt. Three small facts make that harmless: a command below
the highest fence is late; one that has a receipt is answered with the same receipt; one that is
marked *writing* is never sent blindly again, the platform is read first.

Refused here: changing a receipt. The first one of a command stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec
import sqlalchemy as sa

from schemas.facts import Receipt
from service.storage.database import insert_once, metadata, upsert

fences = sa.Table(
    "act_fences",
    metadata,
    sa.Column("model", sa.Text, primary_key=True),
    sa.Column("fence", sa.BigInteger, nullable=False),
)
receipts = sa.Table(
    "act_receipts",
    metadata,
    sa.Column("command_id", sa.Text, primary_key=True),
    sa.Column("finished_at", sa.BigInteger, nullable=False),
    sa.Column("receipt", sa.LargeBinary, nullable=False),
)
writings = sa.Table(
    "act_writing",
    metadata,
    sa.Column("command_id", sa.Text, primary_key=True),
    sa.Column("plan", sa.LargeBinary, nullable=False),
)


class ReceiptStore:
    """Verbs over what `act` remembers. All block; shells call them in threads."""

    def __init__(self, database: sa.Engine) -> None:
        self._database = database

    def fence(self, model: str) -> int:
        """Give the highest fence seen for a model, 0 before the first."""
        query = sa.select(fences.c.fence).where(fences.c.model == model)
        with self._database.connect() as connection:
            return connection.execute(query).scalar() or 0

    def raise_fence(self, model: str, fence: int) -> bool:
        """Remember a fence; False: a higher one was seen, and nothing is changed."""
        lower = (fences.c.model == model) & (fences.c.fence < fence)
        with self._database.begin() as connection:
            connection.execute(
                insert_once(fences, self._database), {"model": model, "fence": fence}
            )
            connection.execute(sa.update(fences).where(lower).values(fence=fence))
            highest = sa.select(fences.c.fence).where(fences.c.model == model)
            return bool(connection.execute(highest).scalar_one() <= fence)

    def receipt(self, command_id: str) -> Receipt | None:
        """Give the receipt of a command, if it has one."""
        query = sa.select(receipts.c.receipt).where(receipts.c.command_id == command_id)
        with self._database.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else msgspec.json.decode(found, type=Receipt)

    def remember(self, receipt: Receipt) -> Receipt:
        """Keep a receipt and end its command's *writing* mark; give the one that is kept."""
        row = {
            "command_id": receipt.command_id,
            "finished_at": receipt.finished_at,
            "receipt": msgspec.json.encode(receipt),
        }
        done = sa.delete(writings).where(writings.c.command_id == receipt.command_id)
        query = sa.select(receipts.c.receipt).where(receipts.c.command_id == receipt.command_id)
        with self._database.begin() as connection:
            connection.execute(insert_once(receipts, self._database), row)
            connection.execute(done)
            kept = connection.execute(query).scalar_one()
        return msgspec.json.decode(kept, type=Receipt)

    def mark_writing(self, command_id: str, plan: Mapping[str, Any]) -> None:
        """Note, before the first write of a command, what is about to be written."""
        row = {"command_id": command_id, "plan": msgspec.json.encode(plan)}
        put = upsert(writings, self._database, ["command_id"], ["plan"])
        with self._database.begin() as connection:
            connection.execute(put, row)

    def writing(self, command_id: str) -> dict[str, Any] | None:
        """Give the plan of a command whose write began and has no receipt yet."""
        query = sa.select(writings.c.plan).where(writings.c.command_id == command_id)
        with self._database.connect() as connection:
            found = connection.execute(query).scalar()
        return None if found is None else cast("dict[str, Any]", msgspec.json.decode(found))
