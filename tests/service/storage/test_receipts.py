"""What `act` remembers holds on both databases, across restarts and races."""

from concurrent.futures import ThreadPoolExecutor

import sqlalchemy as sa

from service.storage.receipts import ReceiptStore
from tests.builders import a_receipt


def test_a_fence_only_grows_per_model(store: sa.Engine) -> None:
    """If this breaks, a worker that was replaced can still move traffic."""
    receipts = ReceiptStore(store)

    raised = [receipts.raise_fence("a", fence) for fence in (3, 3, 2, 5, 4)]

    assert [True, True, False, True, False] == raised
    assert (5, 0) == (ReceiptStore(store).fence("a"), receipts.fence("b"))


def test_racing_fences_leave_the_highest(store: sa.Engine) -> None:
    """If this breaks, two workers that start together can put an old fence back."""
    receipts = ReceiptStore(store)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda fence: receipts.raise_fence("a", fence), range(1, 25)))

    assert 24 == receipts.fence("a")


def test_the_first_receipt_of_a_command_stays(store: sa.Engine) -> None:
    """If this breaks, a redelivered command gets another answer than the one people saw."""
    receipts = ReceiptStore(store)
    first = a_receipt(detail={"effect": "full", "text": "v41 \x00 was given all traffic"})

    kept = [receipts.remember(first), receipts.remember(a_receipt(status="already_there"))]

    assert [first, first] == kept
    assert first == ReceiptStore(store).receipt(first.command_id)
    assert None is receipts.receipt("another")


def test_a_writing_mark_lasts_until_the_receipt(store: sa.Engine) -> None:
    """If this breaks, a command is sent a second time blindly after a crash."""
    receipts = ReceiptStore(store)
    receipt = a_receipt()
    receipts.mark_writing(receipt.command_id, {"plan": {"wanted": {"v41": 100.0}}, "handle": ""})
    receipts.mark_writing(receipt.command_id, {"plan": {}, "handle": "/jobs/1"})

    assert {"plan": {}, "handle": "/jobs/1"} == ReceiptStore(store).writing(receipt.command_id)
    receipts.remember(receipt)
    assert None is receipts.writing(receipt.command_id)
