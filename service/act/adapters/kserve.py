"""KServe: the traffic percentage of an InferenceService.

How. Serverless (`mode: serverless`): `canaryTrafficPercent` splits between the latest ready
revision and the one rolled out before; 0 is the rollback. There is one level of history, so the
good version must be that revision. Standard (`mode: standard`, KServe 0.20 or later): `spec.canary`
is a list that is written whole, as it was read, with the bad entry at 0; dropping the entry would
remove its pods, and evidence with them.

A version is a Knative revision in serverless mode, which `status.components.predictor.traffic`
names, and a predictor's name in standard mode. KServe owns the Knative and Gateway objects below
and rewrites them, so only the InferenceService is written. Hosts by tag (`latest-`, `prev-`) still
reach the bad version, which the receipt says.

Refused here: raw mode before 0.20, which ignores the percentage in silence (the mode is a setting
and is compared with the object's annotation); a transformer or explainer, whose split would differ.

References
----------
KServe: serving.kserve.io/v1beta1 InferenceService; issues 1669, 2130, 4074.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask
from service.act.adapters.cluster import MERGE_PATCH, path_to
from service.act.adapters.clustered import MARKS, Clustered, described, request_of
from service.act.adapters.owners import owner_of
from service.act.adapters.targets import whole_weights, words_of_shares
from service.act.plans import Current, Plan, Refusal, Settled, compare

_TAGS = "hosts by tag (latest-, prev-) still reach the bad version where tag routing is on"
_COLD = "pods of the old revision may start from zero: the first requests wait for the model"
_MODES = {"serverless": ("Serverless", "Knative"), "standard": ("RawDeployment", "Standard")}


@plugin("kserve")
@dataclass(kw_only=True)
class KServe(Clustered):
    """One InferenceService.

    Parameters
    ----------
    versions : dict
        Version -> Knative revision (serverless) or predictor's name (standard).
    mode : str
        `serverless` or `standard`.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    mode: Literal["serverless", "standard"] = "serverless"

    can: ClassVar[frozenset[Action]] = frozenset({"rollback", "shift", "promote"})

    def __post_init__(self) -> None:
        """Know the two modes, no others."""
        super().__post_init__()
        if self.mode not in _MODES:
            raise ValueError(f"mode: found {self.mode!r}, expected serverless or standard")

    @property
    def path(self) -> str:
        """The InferenceService's."""
        group = "serving.kserve.io/v1beta1"
        return path_to(group, self.namespace, "inferenceservices", self.name)

    async def current(self, ask: Ask) -> Current:
        """Read spec and status."""
        found = await self._cluster.get(self.path)
        percent = self.mode == "serverless"
        field = ("spec", "predictor", "canaryTrafficPercent") if percent else ("spec", "canary")
        owner = owner_of(found, field, ask.now_ms, self.writers)
        read = self._read_serverless if self.mode == "serverless" else self._read_standard
        shares, ready, kept = read(found)
        raw = {
            "resource_version": found["metadata"]["resourceVersion"],
            "fault": self._fault(found),
            "confirmed": _is_ready(found),
            **kept,
        }
        return Current(shares=shares, ready=ready, owner=owner.name, raw=described(owner, raw))

    def _fault(self, found: Mapping[str, Any]) -> str:
        """Say why this adapter cannot move this object's traffic; empty: it can."""
        notes = found["metadata"].get("annotations") or {}
        said = notes.get("serving.kserve.io/deploymentMode") or notes.get(
            "serving.kserve.io/deployment-mode"
        )
        if said and said not in _MODES[self.mode]:
            return f"its deployment mode is {said}, and the settings say {self.mode}"
        parts = [name for name in ("transformer", "explainer") if found["spec"].get(name)]
        return f"it has a {parts[0]}, whose split would differ" if parts else ""

    def _version_of(self, name: object) -> str:
        return next((v for v, known in self.versions.items() if known == name), f"unknown:{name}")

    def _read_serverless(
        self, found: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, bool], dict[str, Any]]:
        predictor = found.get("status", {}).get("components", {}).get("predictor", {})
        shares: dict[str, float] = {}
        for entry in predictor.get("traffic") or []:
            version = self._version_of(entry.get("revisionName"))
            shares[version] = shares.get(version, 0.0) + float(entry.get("percent") or 0)
        # With all traffic at the latest, `previous` is the way back; else `rolled out` is.
        latest = predictor.get("latestReadyRevision")
        back = predictor.get("latestRolledoutRevision")
        back = predictor.get("previousRolledoutRevision") if back == latest else back
        created = predictor.get("latestCreatedRevision", latest)
        ready = {self._version_of(name): True for name in (latest, back) if name}
        shares.update({version: 0.0 for version in ready if version not in shares})
        stuck = created != latest
        kept = {"latest": self._version_of(latest), "back": self._version_of(back), "stuck": stuck}
        return shares, ready, kept

    def _read_standard(
        self, found: Mapping[str, Any]
    ) -> tuple[dict[str, float], dict[str, bool], dict[str, Any]]:
        spec, status = found["spec"], found.get("status", {})
        main = self._version_of(_named(spec.get("predictor") or {}, self.name))
        ready: dict[str, bool] = {main: _is_ready(found)}
        statuses = {one.get("name"): one for one in status.get("canaryStatuses") or []}
        shares = {main: 100.0}
        canaries = list(spec.get("canary") or [])
        for entry in canaries:
            name = _named(entry.get("predictor") or {}, "")
            version, percent = self._version_of(name), float(entry.get("trafficPercent") or 0)
            shares[version] = shares.get(version, 0.0) + percent
            shares[main] -= percent
            ready[version] = bool(statuses.get(name, {}).get("ready"))
        return shares, ready, {"main": main, "canary": canaries}

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        if fault := now.raw["fault"]:
            return Refusal("refused", "H13", "unfit", fault)
        weights = whole_weights(wanted)
        if isinstance(weights, Refusal):
            return weights
        spec = self._serverless(now, weights) if self.mode == "serverless" else None
        spec = self._standard(now, weights) if self.mode == "standard" else spec
        if not isinstance(spec, dict):
            return Refusal("refused", "H1", "no_target", spec or "nothing to write")
        lock = now.raw["resource_version"]
        marks = {name: getattr(command, field) for name, field in MARKS.items()}
        body = {"metadata": {"resourceVersion": lock, "annotations": marks}, "spec": spec}
        notes = [_TAGS, _COLD] if self.mode == "serverless" else [_TAGS]
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, body, MERGE_PATCH)],
            diff=f"InferenceService {self.name}: {words_of_shares(wanted)}",
            touches=[self.path],
            lock="resourceVersion",
            undo=[f"set the traffic back to {words_of_shares(now.shares or {})}"],
            notes=notes + ([now.raw["note"]] if now.raw["note"] else []),
        )

    def _serverless(self, now: Current, weights: Mapping[str, int]) -> dict[str, Any] | str:
        latest, back = now.raw["latest"], now.raw["back"]
        if now.raw["stuck"]:
            return "the latest revision is not ready, so KServe would not split by it"
        strangers = set(weights) - {latest, back}
        if strangers:
            text = f"KServe keeps one revision to go back to, {back}; {sorted(strangers)[0]} is not"
            return f"{text} among them"
        percent = weights.get(latest, 0)
        return {"predictor": {"canaryTrafficPercent": None if percent == 100 else percent}}

    def _standard(self, now: Current, weights: Mapping[str, int]) -> dict[str, Any] | str:
        canaries = []
        named = {now.raw["main"]}
        for entry in now.raw["canary"]:
            version = self._version_of(_named(entry.get("predictor") or {}, ""))
            named.add(version)
            canaries.append({**entry, "trafficPercent": weights.get(version, 0)})
        if strangers := set(weights) - named:
            return f"{sorted(strangers)[0]} is neither the predictor nor a canary of it"
        return {"canary": canaries}

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once the controller calls it ready."""
        seen = compare(now, plan)
        return "pending" if seen == "settled" and not now.raw["confirmed"] else seen


def _named(predictor: Mapping[str, Any], otherwise: str) -> str:
    name = predictor.get("name") or (predictor.get("model") or {}).get("name")
    return str(name or otherwise)


def _is_ready(found: Mapping[str, Any]) -> bool:
    status = found.get("status", {})
    if status.get("observedGeneration", 0) < found["metadata"].get("generation", 0):
        return False
    return any(
        one.get("type") == "Ready" and one.get("status") == "True"
        for one in status.get("conditions") or []
    )
