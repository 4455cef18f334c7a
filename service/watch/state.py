"""All that `watch` remembers of one model, as plain data that survives in a checkpoint.

The state carries the positions it has absorbed, in the same value; what lies at or below them is
skipped. Detectors live beside it as objects while a worker owns the model (`Guards`), and are saved
into it as plain data.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from schemas.events import Rollout
from schemas.facts import Receipt
from schemas.verdicts import Verdict

LAYOUT = 2
"""Version of this layout; a state of another one is refused, never half understood."""

SHARE_BUCKET_MS = 1000
SHARE_BUCKETS = 120


class Plan(Struct):
    """Who serves, as last said or, without any rollout event, as seen."""

    stable: str
    canary: str | None = None
    weight: float | None = None
    rollout_id: str = ""
    at_ms: int = 0
    """When this plan began, event time."""
    inferred: bool = True
    source: str | None = None
    steps: list[tuple[int, float]] = []
    """The canary's weight over time: (from, weight), oldest first, of this rollout."""
    others: dict[str, list[tuple[int, float]]] = {}
    """Canaries besides that one -> their weights over time, oldest first, never empty."""
    warned: list[str] = []
    """Quarantined versions among these two that people were told of."""


class Version(Struct):
    """Counts of one version, exact, since it was first seen."""

    name: str
    last_ms: int = 0
    """Newest `served_at`."""
    predictions: int = 0
    outcomes: int = 0
    unlabelled: int = 0
    matured: int = 0
    flagged: int = 0
    """Final rows (matured or unlabelled) that were predicted positive."""
    flagged_labelled: int = 0
    unflagged: int = 0
    """Final rows that were predicted negative."""
    unflagged_labelled: int = 0
    stood_for: float = 0.0
    """Final rows for which labels stand: each for one, or for 1 / chance where it was sampled."""
    ages: dict[int, list[int]] = {}
    """Bucket of served time -> predictions, and labels within each age of `labels.AGES`."""
    in_plan: int = 0
    """Predictions served since the current plan began."""
    named: bool = False
    """A rollout event has named it; without one among declared roles it is `extra`."""
    verdict: Verdict | None = None
    """Last published."""
    guards: dict[str, dict[str, Any]] = {}
    """Saved detectors by guard name; filled when a checkpoint is taken."""
    slices: dict[str, list[str]] = {}
    """Segment -> values that its rows had, of those that have a place."""

    @property
    def coverage(self) -> float | None:
        """Share of outcomes among predictions whose label came or whose horizon passed."""
        known = self.outcomes + self.unlabelled
        return self.outcomes / known if known else None


class Tenure(Struct):
    """The time for which one version is stable, as the ledger keeps it."""

    version: str
    began_ms: int
    """Event time."""
    ended_ms: int = 0
    """0: it is stable still."""
    seen_ms: int = 0
    """Event time up to which `good_ms` is counted."""
    good_ms: int = 0
    """Event time for which it was judged and not found wanting."""
    failed: bool = False
    """It was rolled back."""
    restored: bool = False
    """It is stable because its successor was rolled back."""
    rates: dict[str, list[int]] = {}
    """Guard -> [bad, rows] of what later limits may be made of."""
    predecessor: str = ""
    reference: dict[str, list[int]] = {}
    """The predecessor's `rates`, frozen when this tenure began; empty when that one failed."""
    run_lengths: dict[str, int] = {}
    """Guard -> rows between two false alarms; filled once the version is long-lived."""


class Case(Struct):
    """An incident as far as `watch` has to remember it."""

    incident_id: str
    version: str
    stable: str | None
    rollout_id: str
    opened_ms: int
    kind: str = "breach"
    """`breach`, or `promotion`: the record of a canary's way up, which is no trouble."""
    breached: list[str] = []
    """Guards that breached; each is said once."""
    wanted: str = ""
    """The action that its breaches ask for: rollback, hold, alert, or nothing yet."""
    rung: str = ""
    """Of the policy's `response`, the word in force; empty: `wanted` itself."""
    rung_ms: int = 0
    """Event time since when."""
    refusals: list[str] = []
    """Rules that withheld the command; each is said once."""
    proposed: str | None = None
    """The command a person is asked to approve."""
    proposal: dict[str, Any] | None = None
    commands: list[str] = []
    hop: int = 0
    base: int = 0
    """Of a promotion: commands of its earlier steps."""
    weight: float | None = None
    """Of a promotion: the canary's share that is wanted, and that it had."""
    weight_was: float = 0.0
    proven: bool = False
    """Of a promotion: the step is still earned."""
    doubted: bool = False
    """Of a promotion: that traffic does not show it was said."""
    again: bool = False
    """The last command did not take: the next hop is wanted."""
    action: str = ""
    """Of the last command."""
    receipt: Receipt | None = None
    seen: int = 0
    """Predictions served after the receipt."""
    seen_bad: int = 0
    late_seen: int = 0
    """The same from five seconds after the receipt on: what was in flight is over."""
    late_seen_bad: int = 0
    closed: str = ""
    """verified, paged, superseded, rejected; empty while something may still happen."""
    closed_ms: int = 0
    """Event time of that."""
    text: str = ""


class Model(Struct):
    """One model."""

    name: str
    layout: int = LAYOUT
    positions: dict[str, int] = {}
    """`topic/partition/kind` -> highest offset absorbed."""
    streams: dict[str, str] = {}
    """`topic/partition` -> stream epoch."""
    counts: dict[str, dict[str, int]] = {}
    """`topic partition` -> running totals as ingest says them."""
    ordinal: int = 0
    """Rows fed to guards so far: the position a guard reports."""
    now_ms: int = 0
    """Event time."""
    last_row_ms: int = 0
    """Event time at which rows of any kind last came."""
    judged_ms: int = 0
    """Log time of the last full judgement."""
    plan: Plan | None = None
    versions: dict[str, Version] = {}
    cases: dict[str, Case] = {}
    """By incident."""
    pending: list[Rollout] = []
    """Rollout events whose time the observations have not reached, oldest first."""
    dirty: bool = False
    """Rows came in since the last judgement."""
    shares: dict[int, dict[str, int]] = {}
    """Bucket of served time -> version -> predictions, of the last two minutes."""
    metrics: dict[str, tuple[float, int]] = {}
    """Polled signals: guard -> (value, event time)."""
    forgotten: int = 0
    """Retired versions whose counts were dropped, so that the state stays small."""
    horizon_ms: int = 0
    """The policy's; `Version.ages` is made for it."""
    slices: dict[str, list[str]] = {}
    """Segment -> values that are watched apart, in the order of their first rows."""
    beyond: dict[str, int] = {}
    """Guard -> served rows of values that found no place."""
    last_rollback_ms: int = 0
    """Wall time of the last automatic rollback, for the cool-down."""
    rollbacks: list[int] = []
    """Wall times of automatic rollbacks, oldest first: the budget."""
    tripped: bool = False
    """A budget was exceeded, and not all of its rollbacks are over."""
    quarantine: dict[str, tuple[int, str]] = {}
    """Versions that were rolled back: when (event time), and by which incident."""
    ledger: list[Tenure] = []
    """Who was stable, oldest first; the last one is now."""

    def silent_ms(self, version: Version) -> int:
        """How long a version has been silent, event time.

        It is silent when another version of the model serves and it does not, or when nothing at
        all comes. Labels that still come after the last prediction are no silence: they are what a
        verdict waits for.
        """
        newest_ms = max((other.last_ms for other in self.versions.values()), default=0)
        return max(newest_ms - version.last_ms, self.now_ms - self.last_row_ms)

    def version(self, name: str) -> Version:
        """The version's counts; made when it is new."""
        found = self.versions.get(name)
        if found is None:
            found = self.versions[name] = Version(name)
        return found


class Head(Struct):
    """What must be read of a state before the rest can be."""

    name: str
    layout: int


class Partition(Struct):
    """What is known of the source partitions, for all models of one keyed partition."""

    watermarks: dict[int, int] = {}
    """Source partition -> event time up to which it has come."""
    swept_ms: int = 0
    unwatched: int = 0
    """Messages of models for which there was no room."""

    @property
    def now_ms(self) -> int:
        """Event time: what every source partition that ever spoke has reached."""
        return min(self.watermarks.values(), default=0)


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Model)
_heads = msgspec.msgpack.Decoder(Head)
_partitions = msgspec.msgpack.Decoder(Partition)


def dump(model: Model | Partition) -> bytes:
    """Encode for a checkpoint (msgpack)."""
    return _encoder.encode(model)


def load(data: bytes) -> Model:
    """Decode a checkpoint.

    Raises
    ------
    ValueError
        When it is of another layout or damaged.
    """
    head = _heads.decode(data)
    if head.layout != LAYOUT:
        raise ValueError(
            f"the stored state of {head.name!r} has layout {head.layout} where this release reads "
            f"{LAYOUT}; run the release that wrote it, or delete the rows of stage 'watch' from "
            "the tables checkpoints and cursors: evidence then begins anew"
        )
    return _decoder.decode(data)


def load_partition(data: bytes) -> Partition:
    """Decode what is known of the source partitions."""
    return _partitions.decode(data)
