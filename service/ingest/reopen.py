"""Open a partition's state on disk and decide how to go on with it.

A state that RocksDB finds damaged is as good as none: it is emptied and built again from the log.
One that another process holds is not: two processes must not say the same partition.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from schemas.policies import Policy
from service.ingest.expire import due_parked
from service.ingest.models import Models
from service.ingest.rebuild import Committed, begin, choose
from service.ingest.remember import Store
from service.ingest.state import OUTCOMES, PREDICTIONS, Partition

log = structlog.get_logger(__name__)

TOPICS = (PREDICTIONS, OUTCOMES)


class StateFault(RuntimeError):
    """The state on disk cannot be used; the text says what to do."""


class Where(NamedTuple):
    """A partition as the engine describes it at assignment, by topic."""

    partition: int
    streams: dict[str, str]
    first: dict[str, int]
    next: dict[str, int]


def reopen(root: Path, where: Where, committed: Mapping[str, Committed],
           policies: Sequence[Policy]) -> tuple[Partition, Store]:  # fmt: skip
    """Open what is there, or begin again.

    Raises
    ------
    StateFault
        When another process holds it, or the folder cannot be written.
    """
    path = _path(root, where)
    try:
        try:
            return _open(path, where, committed, policies)
        except Exception as fault:
            if "lock" in str(fault).lower():
                raise
            log.error("state_of_ingest_damaged", path=str(path), fault=str(fault))
            shutil.rmtree(path, ignore_errors=True)
            return _open(path, where, committed, policies)
    except Exception as fault:
        raise StateFault(
            f"state of ingest at {path} cannot be opened: {fault}; stop the other process that "
            "uses it, or make room and let us write there"
        ) from fault


def _open(path: Path, where: Where, committed: Mapping[str, Committed],
          policies: Sequence[Policy]) -> tuple[Partition, Store]:  # fmt: skip
    part = Partition(where.partition, where.streams, Models(policies), {}, dict(where.next))
    store = Store(path)
    try:
        meta = store.meta()
        opening = choose(where.streams, meta, committed)
        if opening.resume and meta is not None:
            store.load(part, meta)
            part.due_parked = due_parked(part, part.intent.due_s)
            return part, store
        store.close()
        store = Store.anew(path)
    except BaseException:
        store.close()
        raise
    part.by = secrets.token_hex(4)
    begin(part, opening.note, committed, where.first)
    return part, store


def _path(root: Path, where: Where) -> Path:
    """Folder of this partition of these streams; those of earlier streams are removed."""
    name = "-".join(re.sub(r"[^A-Za-z0-9_]", "_", where.streams[topic])[:60] for topic in TOPICS)
    for old in root.glob(f"*/{where.partition}"):
        if old.parent.name != name:
            shutil.rmtree(old, ignore_errors=True)
    return root / name / str(where.partition)
