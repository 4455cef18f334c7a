"""What a model's page draws: verdicts over time as columns, and the moments of its incidents.

Columns rather than verdicts: a page draws a thousand points of a few numbers each, and the whole
verdicts would be megabytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Literal

from fastapi import APIRouter, Depends, Query
from starlette.responses import Response

from schemas.verdicts import GuardVerdict, Verdict
from service.report.forms import WRITERS, told
from service.web.auth import need
from service.web.site import Site, Stores, answer, no

HOUR_MS = 3600 * 1000
MOST_POINTS = 600
"""Of one version; more are thinned evenly."""
MARKED = frozenset({"opened", "command", "receipt", "verified", "paged"})
COLUMNS = ("estimate", "lower", "upper", "stable_estimate", "evidence", "threshold", "limit")


def drawing(site: Site, stores: Stores) -> APIRouter:
    """Make the route that pages draw from."""
    router = APIRouter(dependencies=[Depends(need(site.settings, "read"))])

    @router.get("/v1/history/{model:path}")
    async def history(
        model: str, hours: float = Query(1.0, gt=0, le=24 * 14), to: int | None = None
    ) -> Response:
        """Verdicts of a model over time, and its incidents' moments; `to`: epoch ms, else now.

        Times are event time. Each version has columns of equal length: `at`, `share`, `coverage`,
        and for each guard its estimate, bounds, evidence and threshold; null where unknown.
        """
        last = site.clock.now_ms() if to is None else to
        first = last - round(hours * HOUR_MS)
        found = await asyncio.to_thread(stores.history.between, model, first, last)
        marks = await asyncio.to_thread(_marks, stores, model, first, last)
        names = dict.fromkeys(verdict.version for verdict in found)
        versions = [_columns([v for v in found if v.version == name]) for name in names]
        return answer({"model": model, "from": first, "to": last, "versions": versions,
                       "marks": marks})  # fmt: skip

    @router.get("/v1/incidents/{incident_id}/report")
    async def report(incident_id: str, form: Literal["html", "md", "json"] = "html") -> Response:
        """The post-mortem of an incident as a file."""
        found = await asyncio.to_thread(told, stores.log, stores.history, incident_id)
        if found is None:
            raise no(404, "no incident, or more than one, has an id that begins like this")
        headers = {
            "content-type": _KINDS[form],
            "content-disposition": f'attachment; filename="incident-{found[0].incident_id}.{form}"',
        }
        return Response(WRITERS[form](*found), headers=headers)

    return router


_KINDS = {"html": "text/html; charset=utf-8", "md": "text/markdown; charset=utf-8",
          "json": "application/json"}  # fmt: skip


def _marks(stores: Stores, model: str, first: int, last: int) -> list[dict[str, Any]]:
    marks = []
    for listed in stores.log.incidents(20, model):
        incident = stores.log.incident(listed.incident_id)
        for entry in incident.entries if incident is not None else []:
            if entry.kind in MARKED and first <= entry.at <= last:
                marks.append({"at": entry.at, "kind": entry.kind, "text": entry.text,
                              "incident_id": entry.incident_id})  # fmt: skip
    return sorted(marks, key=lambda mark: mark["at"])


def _columns(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """One version's verdicts, oldest first, as columns."""
    step = -(-len(verdicts) // MOST_POINTS)
    # Counted from the end: the newest is always there.
    kept = list(verdicts[::-1][::step])[::-1]
    names = dict.fromkeys(guard.name for verdict in kept for guard in verdict.guards)
    return {
        "version": kept[-1].version, "role": kept[-1].role,
        "at": [verdict.decided_at for verdict in kept],
        "verdict": [verdict.verdict for verdict in kept],
        "share": [verdict.share for verdict in kept],
        "coverage": [verdict.coverage for verdict in kept],
        "guards": [_guard(name, kept) for name in names],
    }  # fmt: skip


def _guard(name: str, verdicts: Sequence[Verdict]) -> dict[str, Any]:
    line: list[GuardVerdict | None] = [
        next((guard for guard in verdict.guards if guard.name == name), None)
        for verdict in verdicts
    ]
    signal = next(guard.signal for guard in line if guard is not None)
    return {"name": name, "signal": signal} | {
        column: [None if guard is None else getattr(guard, column) for guard in line]
        for column in COLUMNS
    }
