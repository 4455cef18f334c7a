"""Flagger's webhooks: yes only in the one case where yes is meant."""

from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from schemas.facts import Receipt
from service.act.plans import Plan
from service.clock import SetClock
from service.record.ledger import entry_of_breach, entry_of_command
from service.storage.database import open_database
from service.storage.receipts import ReceiptStore
from service.web.flagger import CANARY
from service.web.site import Stores
from tests.builders import NOW, a_breach, a_command, a_hold, a_receipt
from tests.service.web.seeds import (
    OPEN,
    TOKENS,
    a_site,
    a_version,
    a_view,
    served,
    store_views,
    the_stores,
)

HOOK = {
    "name": "fraud", "namespace": "shop", "phase": "Progressing", "checksum": "7dcc7c6c6",
    "metadata": {"model": "credit-risk", "token": "viewer-token-0123456789"},
}  # fmt: skip


class Bed:
    """A site in front of stores that hold a rollback under way."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = open_database(f"sqlite:///{home / 'web.db'}")
        self.receipts = ReceiptStore(self.database)
        self.stores: Stores = the_stores(self.database)._replace(receipts=self.receipts)
        self.clock = SetClock(NOW + 2000)
        self.command = a_command()

    def order(self) -> None:
        breach = a_breach()
        self.stores.log.add([entry_of_breach(breach, None, NOW)])
        self.stores.log.add([entry_of_command(self.command, NOW)])

    def begin(self, namespace: str = "shop", name: str = "fraud") -> None:
        plan = Plan(wanted={"v41": 100.0}, touches=[CANARY.format(namespace, name)])
        mark = {"plan": {"touches": plan.touches}, "handle": ""}
        self.receipts.mark_writing(self.command.command_id, mark)

    def end(self) -> None:
        receipt: Receipt = a_receipt(command_id=self.command.command_id)
        self.receipts.remember(receipt)

    async def ask(self, path: str, settings: object = OPEN, **changes: object) -> int:
        async with (
            a_site(self.home, self.database, settings, self.clock) as site,  # type: ignore[arg-type]
            served(site, self.stores) as url,
            httpx2.AsyncClient(trust_env=False) as client,
        ):
            answer = await client.post(f"{url}/flagger/{path}", json={**HOOK, **changes})
            return int(answer.status_code)


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()


async def test_yes_while_act_carries_out_a_rollback_of_this_canary(bed: Bed) -> None:
    """If this breaks, Flagger goes on with a canary whose rollback was ordered."""
    bed.order()
    bed.begin()

    assert 200 == await bed.ask("rollback")


@pytest.mark.parametrize("lacks", ["order", "begin", "receipt", "expiry", "name", "namespace"])
async def test_no_in_every_other_case(bed: Bed, lacks: str) -> None:
    """If this breaks, a canary is rolled back that nobody wanted back: its yes cannot be undone."""
    if lacks != "order":
        bed.order()
    if lacks != "begin":
        bed.begin()
    if lacks == "receipt":
        bed.end()
    if lacks == "expiry":
        bed.clock.move(301)
    other = {lacks: "other"} if lacks in ("name", "namespace") else {}

    assert 409 == await bed.ask("rollback", **other)


@pytest.mark.parametrize(
    ("verdict", "age_s", "held", "status"),
    [
        ("pass", 1, False, 200),
        ("inconclusive", 1, False, 409),
        ("unknown", 1, False, 409),
        ("breach", 1, False, 409),
        ("pass", 61, False, 409),
        ("pass", 1, True, 409),
    ],
)
async def test_a_canary_goes_on_with_a_fresh_pass_only(
    bed: Bed, verdict: str, age_s: int, held: bool, status: int
) -> None:
    """If this breaks, Flagger promotes what nobody has judged, or what a person stopped."""
    now = bed.clock.now_ms()
    versions = [a_version("v41", "stable"), a_version("v42", "canary", verdict=verdict)]
    view = a_view("credit-risk", versions, now, updated_at=now - age_s * 1000)
    store_views(bed.stores, [view])
    if held:
        bed.stores.holds.set(a_hold(at=NOW))

    assert status == await bed.ask("confirm-promotion")
    assert 409 == await bed.ask("confirm-promotion", metadata={"model": "nobody"})


async def test_a_token_stands_in_the_metadata(bed: Bed) -> None:
    """If this breaks, whoever reaches the port rolls canaries back, or Flagger never can."""
    bed.order()
    bed.begin()
    wrong = {"model": "credit-risk", "token": "viewer-token-xxxxxxxxxx"}

    assert 200 == await bed.ask("rollback", TOKENS)
    assert 401 == await bed.ask("rollback", TOKENS, metadata=wrong)
    assert 401 == await bed.ask("rollback", TOKENS, metadata={"model": "credit-risk"})
    producer = {**wrong, "token": "producer-token-0123456789"}
    assert 401 == await bed.ask("rollback", TOKENS, metadata=producer)


async def test_what_is_no_hook_is_refused(bed: Bed) -> None:
    """If this breaks, an odd body is answered with a status that Flagger takes for yes."""
    assert 400 == await bed.ask("rollback", name="")
    assert 400 == await bed.ask("confirm-promotion", metadata={"model": 3})
