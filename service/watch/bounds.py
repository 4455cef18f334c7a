"""How much `watch` remembers: versions of a model, models of a partition. Bounded, and loud.

Names of versions and models come from producers; a pipeline that names a version after each build,
or a producer that puts an id where the name belongs, must not fill the memory of the owner.

Retired versions are forgotten, those silent for longest first. Live ones, those that an open case
speaks of, and their counts are never touched. A model beyond the bound is not watched at all: of
those that are watched none is given up for a name that may be a typing error.
"""

from __future__ import annotations

import structlog

from service.watch.state import Model, Partition

MOST_VERSIONS = 64
MOST_MODELS = 10_000
"""Per partition."""

SAY_EVERY = 1000

log = structlog.get_logger()


def forget_versions(model: Model) -> None:
    """Drop the counts of retired versions beyond the bound."""
    excess = len(model.versions) - MOST_VERSIONS
    if excess <= 0:
        return
    kept = {case.version for case in model.cases.values() if not case.closed}
    kept |= {case.stable for case in model.cases.values() if not case.closed and case.stable}
    if model.plan is not None:
        kept |= {model.plan.stable, model.plan.canary or ""}
    retired = sorted((v.last_ms, name) for name, v in model.versions.items() if name not in kept)
    for _, name in retired[:excess]:
        del model.versions[name]
        model.forgotten += 1
    log.warning("versions_forgotten", model=model.name, forgotten=model.forgotten,
                most=MOST_VERSIONS)  # fmt: skip


def has_room(partition: Partition, models: int, name: str) -> bool:
    """Whether one more model can be watched; when not it is counted and said."""
    if models < MOST_MODELS:
        return True
    if partition.unwatched % SAY_EVERY == 0:
        log.error("model_not_watched", model=name, most=MOST_MODELS,
                  reason="this partition watches as many models as it may; look for a producer "
                         "that puts something else where the model's name belongs")  # fmt: skip
    partition.unwatched += 1
    return False
