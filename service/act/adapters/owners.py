"""Who else writes an object, read off it: a change that its owner reverts is worse than none.

How. A controller that moves traffic by itself must do the rollback itself, so writing past it is
refused with the verb to use instead. What only repeats a state from a repository (Argo CD, Flux) is
told in the receipt: the live change holds until it puts its own state back. A writer nobody knows
that has just written the very field is refused by name, unless the settings list it.

Refused here: guessing from names. A resource in another cluster than its owner carries no sign.

References
----------
Kubernetes API concepts: owner references, managed fields. Argo Rollouts and Flagger: sources.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

RECENT_S = 30.0
"""A write of an unknown manager younger than this is somebody at work."""
ARGO_MARK = "argo-rollouts.argoproj.io/managed-by-rollouts"
_PEOPLE = (
    "kubectl", "helm", "rollbackd", "terraform", "pulumi", "k9s", "lens", "mozilla", "curl",
    "before-first-apply", "argocd", "kustomize-controller", "helm-controller", "node-fetch",
)  # fmt: skip
_VERBS = {
    "Canary": "Flagger owns it; give its Canary rollbackd's webhooks, see docs/adapters.md",
    "Rollout": "Argo Rollouts owns it; use the adapter argo_rollouts",
    "InferenceService": "KServe owns it; use the adapter kserve",
}
_MANAGERS = {
    "rollouts-controller": _VERBS["Rollout"],
    "argo-rollouts": _VERBS["Rollout"],
    "flagger": _VERBS["Canary"],
}


class Owner(NamedTuple):
    """Who else writes it."""

    name: str = ""
    refusal: str = ""
    """Why nothing may be written; empty: it may."""
    note: str = ""
    """What a person should know of a change that is made nevertheless."""


def owner_of(
    found: Mapping[str, Any], field: Sequence[str], now_ms: int, writers: Sequence[str] = ()
) -> Owner:
    """Find the owner of one field of an object.

    Parameters
    ----------
    field : sequence of str
        Path of the field that would be written, such as `("spec", "http")`.
    writers : sequence of str
        Managers that are known and fine, or what their names begin with.
    """
    metadata = found.get("metadata", {})
    notes = metadata.get("annotations") or {}
    for reference in metadata.get("ownerReferences") or []:
        if reference.get("controller"):
            kind = str(reference.get("kind"))
            text = _VERBS.get(kind, "it would put its own state back")
            name = f"{kind}/{reference.get('name')}"
            return Owner(name, f"{name} controls this object: {text}")
    if rollout := notes.get(ARGO_MARK):
        return Owner(f"Rollout/{rollout}", _VERBS["Rollout"])
    if "iter8.tools/weight" in notes:
        return Owner("iter8", "iter8 manages this object's weights")
    for manager, age_s in writers_of(found, field, now_ms):
        if manager.startswith(tuple(writers)):
            continue
        for known, verb in _MANAGERS.items():
            if manager.startswith(known):
                return Owner(manager, verb)
        if age_s < RECENT_S and not manager.lower().startswith(_PEOPLE):
            text = f"{manager} wrote the same field less than {RECENT_S:g} s ago"
            return Owner(manager, f"{text}; if that is fine, list it in the adapter's writers")
    return _repeater_of(metadata)


def _repeater_of(metadata: Mapping[str, Any]) -> Owner:
    labels, notes = metadata.get("labels") or {}, metadata.get("annotations") or {}
    tracked = notes.get("argocd.argoproj.io/tracking-id")
    managers = {str(entry.get("manager")) for entry in metadata.get("managedFields") or []}
    if tracked or any(manager.startswith("argocd") for manager in managers):
        name = f"Argo CD ({str(tracked).partition(':')[0]})" if tracked else "Argo CD"
        return Owner(name, "", f"{name} {_PUTS_BACK}")
    for label in ("kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"):
        if label in labels:
            name = f"Flux ({labels[label]})"
            return Owner(name, "", f"{name} {_PUTS_BACK}")
    return Owner()


_PUTS_BACK = (
    "manages this object and may put its own state back: exempt the field there, and make the "
    "same change in its repository"
)


def writers_of(
    found: Mapping[str, Any], field: Sequence[str], now_ms: int
) -> Iterator[tuple[str, float]]:
    """Yield who wrote a field and how many seconds ago, from the managed fields."""
    for entry in found.get("metadata", {}).get("managedFields") or []:
        node: Any = entry.get("fieldsV1") or {}
        for part in field:
            node = node.get(f"f:{part}")
            if not node:  # absent, or owned as a whole
                break
        if node is None:
            continue
        try:
            at_ms = datetime.fromisoformat(str(entry.get("time"))).timestamp() * 1000
        except ValueError:
            at_ms = float(now_ms)
        yield str(entry.get("manager", "unknown")), (now_ms - at_ms) / 1000


def rollout_that_routes(
    rollouts: Sequence[Mapping[str, Any]] | None, kind: str, namespace: str, name: str
) -> str:
    """Name the Argo Rollout that moves a route, since it leaves no mark there; empty: none.

    Parameters
    ----------
    kind : str
        `VirtualService`, `HTTPRoute` or `Service`.
    """
    for rollout in rollouts or []:
        strategy = rollout.get("spec", {}).get("strategy", {})
        own = rollout.get("metadata", {}).get("namespace", namespace)
        for found, where in _routes_of(strategy, kind, own):
            if found == name and where == namespace:
                return f"Rollout/{rollout['metadata']['name']}"
    return ""


def _routes_of(strategy: Mapping[str, Any], kind: str, own: str) -> Iterator[tuple[str, str]]:
    canary = strategy.get("canary") or {}
    routing = canary.get("trafficRouting") or {}
    if kind == "VirtualService":
        istio = routing.get("istio") or {}
        for entry in (istio.get("virtualService"), *(istio.get("virtualServices") or [])):
            name, _, where = str((entry or {}).get("name", "")).partition(".")
            yield name, where or own
    elif kind == "HTTPRoute":
        plugin = (routing.get("plugins") or {}).get("argoproj-labs/gatewayAPI") or {}
        there = str(plugin.get("namespace") or own)
        yield str(plugin.get("httpRoute", "")), there
        for entry in plugin.get("httpRoutes") or []:
            yield str(entry.get("name", "")), str(entry.get("namespace") or there)
    else:
        blue = strategy.get("blueGreen") or {}
        for service in (
            canary.get("stableService"), canary.get("canaryService"),
            blue.get("activeService"), blue.get("previewService"),
        ):  # fmt: skip
            yield str(service or ""), own
