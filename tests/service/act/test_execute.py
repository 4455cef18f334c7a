"""Time, retries, conflicts and doubt, against a platform that plays every fault by a script."""

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from schemas.commands import Action, Command
from service.act.adapters.base import Adapter, Applied, Ask, Current, Pace, PlatformFault
from service.act.admit import Refuse
from service.act.plans import Plan, Refusal, differs, fault_of_expected, wanted_shares
from tests.builders import NOW, a_command
from tests.service.act.executing import Bed

BEFORE = {"v41": 90.0, "v42": 10.0}


class FakePlatform(Adapter):
    """A platform in memory that fails as it is told; it has what the real ones here lack."""

    can: ClassVar[frozenset[Action]] = frozenset({"rollback"})

    def __init__(self) -> None:
        self.shares = dict(BEFORE)
        self.reads: list[PlatformFault | Current] = []
        """What the next reads answer, in place of the truth."""
        self.writes: list[object] = []
        """What the next writes do: a PlatformFault (not done), a pair (fault, done), an Applied."""
        self.follows: list[object] = []
        self.calls = 0
        self._pace = Pace(call_s=1.0, settle_s=10.0, poll_s=1.0)

    @property
    def pace(self) -> Pace:
        return self._pace

    async def current(self, ask: Ask) -> Current:
        answer = self.reads.pop(0) if self.reads else None
        if isinstance(answer, PlatformFault):
            raise answer
        return answer or Current(shares=dict(self.shares))

    def plan(self, now: Current, command: Command) -> Plan | Refusal:
        wanted = wanted_shares(command)
        if now.shares is not None and not differs(now, wanted):
            return Plan(wanted=wanted, before=now.shares)
        if refusal := fault_of_expected(now, command):
            return refusal
        requests = [{"put": "v41"}, {"put": "v42"}]
        return Plan(wanted=wanted, before=now.shares, requests=requests, diff="v41 100")

    async def apply(self, ask: Ask, plan: Plan) -> Applied:
        self.calls += 1
        answer = self.writes.pop(0) if self.writes else Applied()
        if isinstance(answer, PlatformFault):
            raise answer
        self.shares = dict(plan.wanted)
        if isinstance(answer, tuple):
            raise answer[0]
        assert isinstance(answer, Applied)
        return answer

    async def follow(self, ask: Ask, handle: str) -> Applied:
        answer = self.follows.pop(0) if self.follows else Applied(status="applied")
        if isinstance(answer, PlatformFault):
            raise answer
        assert isinstance(answer, Applied)
        return answer

    async def missing(self) -> list[str]:
        return []


@pytest.fixture
def bed(tmp_path: Path) -> Iterator[Bed]:
    made = Bed(tmp_path)
    yield made
    made.database.dispose()


@pytest.fixture
def platform() -> FakePlatform:
    return FakePlatform()


def transient(retry_after_s: float | None = None) -> PlatformFault:
    return PlatformFault("transient", "503", retry_after_s)


async def test_passing_faults_are_tried_again_with_growing_pauses(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, one 503 ends a rollback."""
    platform.writes = [transient(), transient(), transient(7.0), transient()]

    receipt = await bed.execute(platform, a_command())

    assert ("applied", 5, [1.0, 2.0, 7.0, 8.0]) == (receipt.status, receipt.attempts, bed.pauses)


async def test_the_jitter_is_full(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, many workers hammer a platform that comes back, at the same moment."""
    platform.reads = [transient()] * 3
    tools = bed.tools()._replace(chance=lambda: 0.25)
    from service.act.execute import Execution

    await Execution(tools, platform, a_command()).run()

    assert [0.25, 0.5, 1.0] == bed.pauses


async def test_retries_end_before_the_expiry_never_after(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, a command is carried out after it has expired."""
    platform.writes = [transient() for _ in range(50)]

    receipt = await bed.execute(platform, a_command())

    assert ("failed", "retries_used_up", "none") == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["effect"],
    )
    assert receipt.finished_at < a_command().expires_at
    assert BEFORE == platform.shares


async def test_a_pause_that_is_longer_than_the_command_lives_is_not_waited_for(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a Retry-After of an hour blocks every command behind it."""
    platform.writes = [transient(3600.0)]

    receipt = await bed.execute(platform, a_command())

    assert ("failed", []) == (receipt.status, bed.pauses)


@pytest.mark.parametrize("kind", ["permanent", "credentials"])
async def test_what_a_person_must_mend_is_not_tried_again(
    bed: Bed, platform: FakePlatform, kind: str
) -> None:
    """If this breaks, a wrong key is used until the account is locked."""
    platform.writes = [PlatformFault(kind, "403 no")]  # type: ignore[arg-type]

    receipt = await bed.execute(platform, a_command())

    assert ("failed", kind, "403 no", 1) == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["text"],
        platform.calls,
    )


async def test_a_conflict_is_planned_again_from_fresh_data(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, somebody else's write in between is lost, or ends the rollback."""
    conflict = PlatformFault("conflict", "409")
    platform.writes = [conflict, conflict]
    twice = await bed.execute(platform, a_command())
    platform.shares, platform.writes = dict(BEFORE), [conflict] * 3
    thrice = await bed.execute(platform, a_command(command_id="c2"))
    platform.writes, platform.shares = [conflict], dict(BEFORE)
    platform.reads = [Current(shares=BEFORE), Current(shares={"v43": 100.0})]
    moved = await bed.execute(platform, a_command(command_id="c3"))

    assert ("applied", 3, []) == (twice.status, twice.attempts, bed.pauses)
    assert ("failed", "contended") == (thrice.status, thrice.detail["reason"])
    assert ("superseded", 1) == (moved.status, moved.attempts)


async def test_nothing_is_written_while_the_platform_moves(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, two changes run into each other."""
    moving = Current(shares=BEFORE, transition=True)
    platform.reads = [moving, moving]
    waited = await bed.execute(platform, a_command())
    platform.shares, platform.reads = dict(BEFORE), [moving] * 1000
    stuck = await bed.execute(platform, a_command(command_id="c2"))
    platform.reads, platform.writes = [], [PlatformFault("busy", "updating", 3.0)]
    platform.shares = dict(BEFORE)
    busy = await bed.execute(
        platform, a_command(command_id="c3", expires_at=bed.clock.now_ms() + 60_000)
    )

    assert ("applied", 1) == (waited.status, waited.attempts)
    assert ("expired", "none", 0) == (stuck.status, stuck.detail["effect"], stuck.attempts)
    assert ("applied", 3.0) == (busy.status, bed.pauses[-1])


@pytest.mark.parametrize(
    ("after", "status", "effect"),
    [
        (BEFORE, "failed", "none"),
        ({"v41": 100.0}, "already_there", "full"),
        ({"v41": 95.0, "v42": 5.0}, "partial", "mixed"),
    ],
)
async def test_a_half_written_plan_is_looked_at_before_it_is_called_failed(
    bed: Bed, platform: FakePlatform, after: dict[str, float], status: str, effect: str
) -> None:
    """If this breaks, a receipt says `effect: none` while half the routers have moved."""
    platform.writes = [PlatformFault("permanent", "403", done=1)]
    platform.reads = [Current(shares=BEFORE), Current(shares=after)]

    receipt = await bed.execute(platform, a_command())

    assert (status, effect) == (receipt.status, receipt.detail["effect"])


async def test_a_part_that_does_not_follow_is_partial(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, 3 of 5 moved routers count as a rollback."""
    platform.reads = [Current(shares=BEFORE)]
    platform.reads += [Current(shares={"v41": 96.0, "v42": 4.0})] * 100
    mixed = await bed.execute(platform, a_command())
    platform.reads = [Current(shares=BEFORE)] + [Current(shares=BEFORE, transition=True)] * 100
    moving = await bed.execute(platform, a_command(command_id="c2"))

    assert ("partial", "mixed") == (mixed.status, mixed.detail["effect"])
    assert "v41 has 96 %" in mixed.detail["text"]
    assert ("failed", "unknown") == (moving.status, moving.detail["effect"])


async def test_a_slow_effect_is_waited_for_also_past_the_expiry(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a rollback that takes a minute is reported as failed."""
    late = a_command(expires_at=bed.clock.now_ms() + 2000)
    platform.reads = [Current(shares=BEFORE)] * 6

    receipt = await bed.execute(platform, late)

    assert ("applied", 1) == (receipt.status, platform.calls)
    assert receipt.finished_at > late.expires_at


async def test_a_controller_that_reverts_a_second_later_is_seen(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a rollback that lasted half a second counts as done."""
    platform._pace = Pace(1.0, 10.0, 1.0, recheck_s=1.0)
    platform.reads = [
        Current(shares=BEFORE),
        Current(shares={"v41": 100.0}),
        Current(shares=BEFORE),
    ]

    receipt = await bed.execute(platform, a_command())

    assert ("failed", "reverted", "none") == (
        receipt.status,
        receipt.detail["reason"],
        receipt.detail["effect"],
    )


async def test_an_unknown_outcome_is_read_before_anything_is_sent(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a timeout doubles a write (K9)."""
    unknown = PlatformFault("unknown", "reset after it was sent")
    platform.writes = [(unknown, "done")]
    done = await bed.execute(platform, a_command())
    calls, platform.shares, platform.writes = platform.calls, dict(BEFORE), [unknown]
    lost = await bed.execute(platform, a_command(command_id="c2"))

    assert ("already_there", "full", 1) == (done.status, done.detail["effect"], calls)
    assert ("applied", 2) == (lost.status, lost.attempts)


async def test_doubt_that_cannot_be_lifted_is_said(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, a receipt claims to know what nobody can know."""
    platform.writes = [PlatformFault("unknown", "reset after it was sent")]
    platform.reads = [Current(shares=BEFORE)] + [transient()] * 100
    dark = await bed.execute(platform, a_command())
    platform.writes = [PlatformFault("unknown", "reset after it was sent")]
    platform.reads = [Current(shares=None)] * 3
    blind = await bed.execute(platform, a_command(command_id="c2"))

    for receipt in (dark, blind):
        assert ("expired", "outcome_unknown", "unknown", 1) == (
            receipt.status,
            receipt.detail["reason"],
            receipt.detail["effect"],
            receipt.attempts,
        )


async def test_expiry_after_doubt_reports_what_is_seen(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, a half-done change is reported as `expired, nothing written`."""
    unknown = PlatformFault("unknown", "reset")
    platform.writes = [unknown]
    platform.reads = [Current(shares=BEFORE), Current(shares={"v41": 95.0, "v42": 5.0})]
    bed.refuse = lambda: Refuse("H5", "expired", "late", {}, "expired") if platform.calls else None

    receipt = await bed.execute(platform, a_command())

    assert ("partial", "mixed", 1) == (receipt.status, receipt.detail["effect"], platform.calls)


async def test_a_clock_set_back_does_not_lengthen_a_command(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a clock that steps back by a day lets an old command run (F14)."""

    def set_back() -> None:
        bed.clock._now_ms -= 86_400_000  # wall and monotonic are one here; wall alone:
        bed.clock.monotonic_s = lambda: NOW / 1000 + 1e6  # type: ignore[method-assign]

    platform.reads = [transient()]
    bed.on_pause = set_back

    receipt = await bed.execute(platform, a_command())

    assert ("expired", 0, BEFORE) == (receipt.status, receipt.attempts, platform.shares)


async def test_an_accepted_write_is_followed_and_its_place_is_kept(
    bed: Bed, platform: FakePlatform
) -> None:
    """If this breaks, a deployer that takes a minute is never heard out, also after a crash."""
    platform.writes = [Applied(handle="/jobs/7")]
    platform.follows = [Applied(handle="/jobs/7"), transient(), Applied(status="applied")]
    marks = []
    bed.on_pause = lambda: marks.append(bed.receipts.writing(a_command().command_id))
    receipt = await bed.execute(platform, a_command())

    again = FakePlatform()
    again.shares = {"v41": 100.0}
    resumed = await bed.execute(again, a_command(), mark=marks[0])

    assert ("applied", 1) == (receipt.status, receipt.attempts)
    assert marks[0] is not None
    assert "/jobs/7" == marks[0]["handle"]
    assert ("applied", 0, True) == (resumed.status, again.calls, resumed.detail["resumed"])


@pytest.mark.parametrize("status", ["superseded", "refused", "failed", "partial", "expired"])
async def test_the_platforms_own_no_is_passed_on(
    bed: Bed, platform: FakePlatform, status: str
) -> None:
    """If this breaks, a deployer that declines is reported as done."""
    platform.writes = [Applied(status=status, text="not today")]  # type: ignore[arg-type]

    receipt = await bed.execute(platform, a_command())

    assert (status, "not today") == (receipt.status, receipt.detail["text"])
    assert ("mixed" if status == "partial" else "none") == receipt.detail["effect"]


async def test_the_plan_is_marked_before_the_first_write(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, a killed process leaves no trace of what it had begun."""
    seen = []
    real = platform.apply

    async def apply(ask: Ask, plan: Plan) -> Applied:
        seen.append(bed.receipts.writing(ask.command.command_id))
        return await real(ask, plan)

    platform.apply = apply  # type: ignore[method-assign]
    await bed.execute(platform, a_command())

    assert {"v41": 100.0} == seen[0]["plan"]["wanted"]


async def test_a_call_that_hangs_meets_its_deadline(bed: Bed, platform: FakePlatform) -> None:
    """If this breaks, one platform that never answers stops the worker for good."""
    import asyncio

    platform._pace = Pace(call_s=0.05, settle_s=1.0, poll_s=1.0)
    hangs = [True, True]
    real = platform.current

    async def current(ask: Ask) -> Current:
        if hangs and hangs.pop():
            await asyncio.Event().wait()
        return await real(ask)

    platform.current = current  # type: ignore[method-assign]
    receipt = await bed.execute(platform, a_command())

    assert ("applied", 4) == (receipt.status, receipt.detail["reads"])
