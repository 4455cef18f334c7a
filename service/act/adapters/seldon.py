"""Seldon Core 2: the candidates of an Experiment.

How. A share is a candidate's weight over their sum. A rollback leaves the good candidate alone in
the list: a candidate at weight 0 has kept its traffic (issue 5181), so none is ever written with 0.
A mirror to a version that leaves goes in the same patch. It has settled when the condition Ready is
true for the generation that was written.

What may still reach the bad version: clients that send an old `x-seldon-route`. Only the share of
predictions proves the rest.

Refused here: deleting the Experiment. A model that left the list is not known to the Experiment any
more, so it is brought back by a person.

References
----------
Seldon Core 2: mlops.seldon.io/v1alpha1 Experiment; issues 4067, 5181.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask
from service.act.adapters.cluster import MERGE_PATCH, path_to
from service.act.adapters.clustered import MARKS, Clustered, described, request_of
from service.act.adapters.owners import owner_of
from service.act.adapters.targets import shares_of, whole_weights, words_of_shares
from service.act.plans import Current, Plan, Refusal, Settled, compare

_ROUTE = "clients that send an old x-seldon-route header may stay with the version that left"


@plugin("seldon")
@dataclass(kw_only=True)
class Seldon(Clustered):
    """One Experiment.

    Parameters
    ----------
    versions : dict
        Version -> name of the model (or pipeline) in the Experiment.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    @property
    def path(self) -> str:
        """The Experiment's."""
        return path_to("mlops.seldon.io/v1alpha1", self.namespace, "experiments", self.name)

    async def current(self, ask: Ask) -> Current:
        """Read the candidates and the condition."""
        found = await self._cluster.get(self.path)
        owner = owner_of(found, ("spec", "candidates"), ask.now_ms, self.writers)
        spec = found["spec"]
        weights: dict[str, float] = {}
        for candidate in spec.get("candidates") or []:
            version = self._version_of(candidate.get("name"))
            weights[version] = weights.get(version, 0.0) + float(candidate.get("weight") or 0)
        mirror = spec.get("mirror") or {}
        raw = {
            "resource_version": found["metadata"]["resourceVersion"],
            "candidates": [dict(one) for one in spec.get("candidates") or []],
            "default": spec.get("default"),
            "mirror": dict(mirror),
            "confirmed": _is_ready(found),
        }
        return Current(
            shares=shares_of(weights),
            ready=dict.fromkeys(weights, True),
            lingering=[self._version_of(mirror["name"])] if mirror.get("name") else [],
            owner=owner.name,
            raw=described(owner, raw),
        )

    def _version_of(self, name: object) -> str:
        return next((v for v, known in self.versions.items() if known == name), f"unknown:{name}")

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        weights = whole_weights(wanted)
        if isinstance(weights, Refusal):
            return weights
        candidates = [
            {"name": self.versions[version], "weight": weight}
            for version, weight in sorted(weights.items())
        ]
        spec: dict[str, Any] = {"candidates": candidates}
        mirror = now.raw["mirror"]
        if mirror and not weights.get(self._version_of(mirror.get("name"))):
            spec["mirror"] = None
        default = now.raw["default"]
        if default and default not in [one["name"] for one in candidates]:
            spec["default"] = self.versions[command.to_version]
        lock = now.raw["resource_version"]
        marks = {name: getattr(command, field) for name, field in MARKS.items()}
        body = {"metadata": {"resourceVersion": lock, "annotations": marks}, "spec": spec}
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, body, MERGE_PATCH)],
            diff=f"Experiment {self.name}: candidates {words_of_shares(wanted)}",
            touches=[self.path],
            lock="resourceVersion",
            undo=[f"set spec.candidates back to {now.raw['candidates']}"],
            notes=[_ROUTE, *([now.raw["note"]] if now.raw["note"] else [])],
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once the scheduler calls it ready."""
        seen = compare(now, plan)
        return "pending" if seen == "settled" and not now.raw["confirmed"] else seen


def _is_ready(found: Mapping[str, Any]) -> bool:
    status, generation = found.get("status", {}), found["metadata"].get("generation", 0)
    if status.get("observedGeneration", generation) < generation:
        return False
    return any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in status.get("conditions") or []
    )
