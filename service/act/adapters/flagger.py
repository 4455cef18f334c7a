"""Flagger: it cannot be told by a patch, so it asks us, and we answer yes.

How. A rollback is written as a mark on the Canary, for the record; what moves traffic is Flagger's
own check of its webhook `type: rollback`, which `POST /flagger/rollback` answers with 200 while
this command is being carried out, for this Canary only, and with 409 at any other time. Flagger
asks once per interval (10 s at least), while the analysis runs. It has settled when the phase is
`Failed` and the canary's weight 0.

A version is the image of the target Deployment (the canary) and of the primary. What was promoted
already cannot be undone by a hook: the target's old template has to be put back, which a person
does.

Refused here: a Canary that has no rollback webhook, one that is not being analysed, a rollback to
anything but the primary.

References
----------
Flagger 1.36: Canary, webhooks; issues 1588, 1898.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from schemas.commands import Action, Command
from schemas.plugins import plugin
from service.act.adapters.base import Ask, Pace
from service.act.adapters.cluster import JSON_PATCH, path_to
from service.act.adapters.clustered import Clustered, described, marking, request_of
from service.act.adapters.owners import Owner
from service.act.plans import Current, Plan, Refusal, Settled, compare

ASKS = frozenset({"Progressing", "Waiting", "WaitingPromotion"})
"""Phases in which Flagger calls the hook."""
_SERVING = frozenset({*ASKS, "Promoting", "Finalising"})


@plugin("flagger")
@dataclass(kw_only=True)
class Flagger(Clustered):
    """One Canary.

    Parameters
    ----------
    versions : dict
        Version -> image, as the pod template says it.
    container : str, optional
        Whose image counts; the first container's when left out.

    Raises
    ------
    ValueError
        On construction, naming the field.
    """

    container: str | None = None
    settle_s: float = 150.0

    can: ClassVar[frozenset[Action]] = frozenset({"rollback"})

    def _check_version(self, label: str, text: str) -> None:
        if not str(text).strip() or "*" in str(text):
            raise ValueError(f"{label}: found {text!r}, expected an image")

    @property
    def path(self) -> str:
        """The Canary's."""
        return path_to("flagger.app/v1beta1", self.namespace, "canaries", self.name)

    @property
    def pace(self) -> Pace:
        """Flagger asks once per interval."""
        return Pace(3 * self.call_s, self.settle_s, poll_s=2.0, recheck_s=self.recheck_s)

    async def current(self, ask: Ask) -> Current:
        """Read the Canary, its target and its primary."""
        found = await self._cluster.get(self.path)
        target = str(found["spec"]["targetRef"]["name"])
        at = path_to("apps/v1", self.namespace, "deployments")
        canary = await self._cluster.get(f"{at}/{target}")
        primary = await self._cluster.find(f"{at}/{target}-primary")
        return self.read(found, canary, primary or canary)

    def read(
        self, found: Mapping[str, Any], canary: Mapping[str, Any], primary: Mapping[str, Any]
    ) -> Current:
        """Turn what Flagger says into shares."""
        status = found.get("status", {})
        phase, weight = str(status.get("phase", "")), float(status.get("canaryWeight", 0))
        good, bad = self._version_of(primary), self._version_of(canary)
        serving = phase in _SERVING and good != bad
        shares = {good: 100.0 - weight, bad: weight} if serving else {good: 100.0}
        hooks = found["spec"].get("analysis", {}).get("webhooks") or []
        raw = {
            "phase": phase,
            "good": good,
            "bad": bad,
            "generation": found["metadata"].get("generation", 0),
            "annotations": sorted(found["metadata"].get("annotations") or {}),
            "hooked": any(hook.get("type") == "rollback" for hook in hooks),
        }
        available = primary.get("status", {}).get("availableReplicas", 0)
        # A canary that waits at weight 0 is not out: Flagger raises it at its next step.
        lingering = [bad] if serving and not weight else []
        return Current(
            shares=shares,
            ready={good: available > 0, bad: True},
            lingering=lingering,
            owner=f"Flagger ({phase})",
            raw=described(Owner(), raw),
        )

    def _version_of(self, deployment: Mapping[str, Any]) -> str:
        containers = deployment["spec"]["template"]["spec"]["containers"]
        chosen = [c for c in containers if self.container in (None, c.get("name"))]
        image = chosen[0].get("image", "") if chosen else ""
        return next((v for v, known in self.versions.items() if known == image), f"unknown:{image}")

    def _plan(self, now: Current, command: Command, wanted: dict[str, float]) -> Plan | Refusal:
        if command.to_version != now.raw["good"] or command.from_version != now.raw["bad"]:
            text = (
                f"Flagger goes back from {now.raw['bad']} to {now.raw['good']} only; after a "
                "promotion put the target's old pod template back"
            )
            return Refusal("refused", "H1", "no_target", text)
        if not now.raw["hooked"]:
            text = "this Canary has no webhook of type rollback, so Flagger would never ask"
            return Refusal("refused", "H13", "unfit", text)
        if now.raw["phase"] not in ASKS:
            text = f"Flagger does not ask in phase {now.raw['phase']}"
            return Refusal("refused", "H13", "unfit", text)
        found = {"metadata": {"annotations": dict.fromkeys(now.raw["annotations"], "")}}
        generation = now.raw["generation"]
        operations = [
            {"op": "test", "path": "/metadata/generation", "value": generation},
            *marking(found, command),
        ]
        return Plan(
            wanted=wanted,
            before=now.shares,
            requests=[request_of(self.path, operations, JSON_PATCH, generation=generation)],
            diff=f"Canary {self.name}: answer Flagger's rollback hook with yes",
            touches=[self.path],
            lock="advisory",
            undo=["change the target's pod template: a failed revision is not tried again"],
            notes=["Flagger scales the canary to 0 pods when it rolls back"],
        )

    def settled(self, now: Current, plan: Plan) -> Settled:
        """Compare, once Flagger says that the canary failed."""
        seen = compare(now, plan)
        if now.raw["phase"] in ASKS:
            return "pending"
        return "pending" if seen == "settled" and now.raw["phase"] != "Failed" else seen
