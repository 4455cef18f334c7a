"""Take observations into a model's state: exact counts, recent shares, and what guards are fed.

Rows are counted once: repeats were dropped by position in `tables.py`. A rollout event takes effect
between the rows before and after its time, however the messages were packed.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from functools import partial

import numpy as np

from schemas.events import Rollout
from schemas.observations import Observations
from schemas.plugins import Registry
from schemas.policies import Policy
from schemas.times import to_ms
from service.watch import labels, ledger, verify
from service.watch.bounds import forget_versions
from service.watch.detect import Guard, guards_for, wanted_tables
from service.watch.plan import follow, infer, live, role_of
from service.watch.rows import feed
from service.watch.slices import meet, slices_of
from service.watch.state import SHARE_BUCKET_MS, SHARE_BUCKETS, Model
from service.watch.tables import Table, tables_of
from service.watch.votes import QUIET_MS

Guards = MutableMapping[str, dict[str, Guard]]
"""Version -> guard name -> guard, of the live versions of one model."""


def absorb(
    model: Model, guards: Guards, message: Observations, policy: Policy | None, registry: Registry
) -> bool:
    """Take in one message of a model whose `now_ms` was moved on; True when a guard fired."""
    _counts(model, message)
    _metrics(model, message)
    positive = policy.positive if policy is not None else None
    horizon_ms = policy.horizon.ms if policy is not None else 0
    if model.horizon_ms != horizon_ms:
        model.horizon_ms = horizon_ms
        for version in model.versions.values():
            version.ages = {}
    tables = tables_of(model, message, positive, horizon_ms)
    # Rows say themselves when they were; without any the watermark is all that moves.
    fired = not tables and hush(model, guards, message.newest)
    for event in due(model):
        at_ms = to_ms(event.at)
        before = [table.take(table.when_ms < at_ms) for table in tables]
        tables = [table.take(table.when_ms >= at_ms) for table in tables]
        fired |= _take(model, guards, before, message, policy, registry)
        replan(model, guards, event, policy, registry)
    return _take(model, guards, tables, message, policy, registry) or fired


def due(model: Model) -> list[Rollout]:
    """Take out the rollout events whose time has come."""
    ready = [event for event in model.pending if to_ms(event.at) <= model.now_ms]
    model.pending = [event for event in model.pending if to_ms(event.at) > model.now_ms]
    return ready


def replan(
    model: Model, guards: Guards, event: Rollout, policy: Policy | None, registry: Registry
) -> bool:
    """Let a rollout event take effect; True when it changed who serves what."""
    if not follow(model, event):
        return False
    equip(model, guards, policy, registry)
    forget_versions(model)
    return True


def equip(model: Model, guards: Guards, policy: Policy | None, registry: Registry) -> None:
    """Give each live version the guards of its role; a version that stays keeps its evidence."""
    plan = model.plan
    judged = live(model, policy)
    for name in [name for name in guards if name not in judged]:
        del guards[name]
    for name in judged:
        if policy is None:
            guards.setdefault(name, {})
            continue
        stable = plan.stable if plan is not None else ""
        role = role_of(model, name)
        slices = partial(slices_of, model=model, version=name)
        wanted = guards_for(policy, role, registry, stable, slices)
        # A reference of rows says nothing of units, and a re-arming test takes no votes.
        if role == "stable" and policy.votes != "unit":
            wanted |= ledger.guards_after(policy, model, registry)
            wanted = ledger.rearming(policy, model, name, wanted, registry)
        had = guards.get(name, {})
        guards[name] = {label: _kept(had.get(label), guard) for label, guard in wanted.items()}


def _kept(had: Guard | None, wanted: Guard) -> Guard:
    """The guard that was there, unless another kind of it is wanted now."""
    if had is None or type(had.detector) is not type(wanted.detector):
        return wanted
    return had


def _take(
    model: Model, guards: Guards, tables: list[Table], message: Observations,
    policy: Policy | None, registry: Registry,
) -> bool:  # fmt: skip
    fired = False
    for table in tables:
        if not len(table):
            continue
        model.dirty = True
        model.last_row_ms = model.now_ms
        if table.sort == "served":
            _served(model, guards, table, policy, registry)
        _count(model, table)
        if policy is not None:
            if set(live(model, policy)) != set(guards):
                equip(model, guards, policy, registry)  # a version that no plan names has come
            ledger.count(model, table, policy)
        base = model.ordinal
        model.ordinal += len(table)
        if policy is not None:
            if table.segments and meet(model, table, policy):
                equip(model, guards, policy, registry)
            fired |= _feed(model, guards, table, base, message, policy)
    forget_versions(model)
    return fired


def _served(
    model: Model, guards: Guards, table: Table, policy: Policy | None, registry: Registry
) -> None:
    """Meet new versions, count shares, and follow what traffic does after a receipt."""
    present, first = np.unique(table.version, return_index=True)
    for index in present[np.argsort(first)]:
        name = table.versions[int(index)]
        rows = table.version == index
        first_ms = int(table.served_ms[rows][0])
        if name not in model.versions:
            model.version(name)
        if (model.plan is None or model.plan.inferred) and infer(model, name, first_ms):
            for version in model.versions.values():
                version.in_plan = 0
            equip(model, guards, policy, registry)
        _shares(model, name, table.served_ms[rows])
    for case in model.cases.values():
        if not case.closed:
            verify.follow(case, table)


def _shares(model: Model, name: str, served_ms: np.ndarray) -> None:
    buckets, counts = np.unique(served_ms // SHARE_BUCKET_MS, return_counts=True)
    for bucket, count in zip(buckets.tolist(), counts.tolist(), strict=True):
        held = model.shares.setdefault(bucket, {})
        held[name] = held.get(name, 0) + count
    if len(model.shares) > SHARE_BUCKETS:
        for bucket in sorted(model.shares)[:-SHARE_BUCKETS]:
            del model.shares[bucket]


def _count(model: Model, table: Table) -> None:
    since_ms = model.plan.at_ms if model.plan is not None else 0
    for index in np.unique(table.version).tolist():
        rows = table.version == index
        version = model.version(table.versions[index])
        labels.count(version, rows, table, model.horizon_ms)
        n = int(np.count_nonzero(rows))
        if table.sort == "served":
            version.predictions += n
            version.last_ms = max(version.last_ms, int(table.served_ms[rows].max()))
            version.in_plan += int(np.count_nonzero(rows & (table.served_ms >= since_ms)))
        elif table.sort == "labelled":
            version.outcomes += n
        else:
            labelled = int(np.count_nonzero(rows & table.columns.labelled))
            version.unlabelled += n - labelled
            version.matured += labelled


def _feed(
    model: Model, guards: Mapping[str, Mapping[str, Guard]], table: Table, base: int,
    message: Observations, policy: Policy,
) -> bool:  # fmt: skip
    fired = False
    for name, own in guards.items():
        for guard in own.values():
            if table.sort not in wanted_tables(guard):
                continue
            at = feed(guard, name, table, base, model)
            if at is not None:
                guard.fired, guard.latched = _name_of(at, table, message), True
                fired = True
    return fired


def hush(model: Model, guards: Mapping[str, Mapping[str, Guard]], newest: dict[str, int]) -> bool:
    """Let the watermark close votes of units, when no rows of the model come; True: one fired."""
    if model.now_ms - model.last_row_ms < QUIET_MS:
        return False
    fired = False
    for own in guards.values():
        for guard in own.values():
            cast = guard.votes.expire(model.now_ms) if guard.votes is not None else None
            if cast is None or not len(cast.closer):
                continue
            model.dirty = True
            reading = guard.detector.update(cast.rows)
            if reading.fired_at is not None and not guard.latched:
                guard.fired, guard.latched = _mover(newest), True
                fired = True
    return fired


def _name_of(at: int, table: Table, message: Observations) -> dict[str, int | str]:
    """The event that decided: the row that fired, or what let it mature."""
    if table.sort == "final" and message.newest:
        return _mover(message.newest) | {"partition": table.partition}
    topic, offset = table.topic[int(table.source[at])], int(table.offset[at])
    return {"topic": topic, "partition": table.partition, "offset": offset}


def _mover(newest: dict[str, int]) -> dict[str, int | str]:
    """The event that moved the watermark, as far as it is known."""
    if not newest:
        return {}
    topic = "predictions" if "predictions" in newest else next(iter(newest))
    return {"topic": topic, "partition": 0, "offset": newest[topic]}


def _counts(model: Model, message: Observations) -> None:
    if message.counts:
        model.counts[str(message.partition)] = dict(message.counts)


def _metrics(model: Model, message: Observations) -> None:
    for block in message.blocks:
        if block.kind == "metric":
            value = float(np.frombuffer(block.columns["value"], "<f8")[-1])
            observed = int(np.frombuffer(block.columns["observed_ms"], "<i8")[-1])
            model.metrics[block.topic] = (value, observed)
            model.dirty = True
