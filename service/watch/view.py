"""What readers may see of a model: the document of `status`, of the API and of the pages."""

from __future__ import annotations

from typing import Any

import msgspec

from service.watch.labels import coverage_by_age
from service.watch.plan import role_of
from service.watch.state import Model
from service.watch.weights import canaries_of, weight_of


def view_of(model: Model, lag_s: float, now_wall_ms: int) -> dict[str, Any]:
    """Write down one model; counts are exact as of the checkpoint that carries this."""
    plan = model.plan
    total = sum(version.in_plan for version in model.versions.values())
    versions = [
        {
            "version": version.name,
            "role": role_of(model, version.name),
            "predictions": version.predictions,
            "outcomes": version.outcomes,
            "unlabelled": version.unlabelled,
            "coverage": version.coverage,
            "coverage_by_age": coverage_by_age(version, model.horizon_ms, model.now_ms),
            "share": version.in_plan / total if total else None,
            "verdict": version.verdict.verdict if version.verdict else None,
            "reason": version.verdict.reason if version.verdict else None,
            "text": version.verdict.text if version.verdict else None,
            "last_served_at": version.last_ms or None,
        }
        for version in model.versions.values()
    ]
    return {
        "model": model.name,
        "stable": plan.stable if plan else None,
        "canary": plan.canary if plan else None,
        "weight": plan.weight if plan else None,
        "canaries": {name: weight_of(plan, name) for name in canaries_of(plan)} if plan else {},
        "quarantine": {name: since_ms for name, (since_ms, _) in model.quarantine.items()},
        "ledger": [
            {
                "version": tenure.version,
                "from": tenure.began_ms,
                "until": tenure.ended_ms or None,
                "good_s": tenure.good_ms // 1000,
                "failed": tenure.failed,
            }
            for tenure in model.ledger
        ],
        "rollout_id": plan.rollout_id if plan else None,
        "roles": "inferred" if plan is None or plan.inferred else "declared",
        "watermark": model.now_ms or None,
        "lag_s": round(lag_s, 3),
        "versions": versions,
        "verdicts": {
            version.name: msgspec.to_builtins(version.verdict)
            for version in model.versions.values()
            if version.verdict is not None
        },
        "counts": _totals(model),
        "versions_forgotten": model.forgotten,
        "slices_beyond": dict(model.beyond),
        "open_incidents": [case.incident_id for case in model.cases.values() if not case.closed],
        "updated_at": now_wall_ms,
    }


def _totals(model: Model) -> dict[str, int]:
    totals: dict[str, int] = {}
    for counts in model.counts.values():
        for name, count in counts.items():
            totals[name] = totals.get(name, 0) + count
    return totals
