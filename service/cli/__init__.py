"""The command line: `rollbackd`. Results to standard output, logs to standard error.

Exit codes: 0 done, 1 failed (one clear sentence), 2 bad usage or settings.
"""

from __future__ import annotations

import sys

import sqlalchemy as sa

from service.app import ListenFault
from service.cli import alerts, daemon, incidents, orders, plan, replay, show
from service.cli.base import Failure, app, err
from service.config import ConfigFaults
from service.engine.base import EngineFault
from service.signing import SigningFault
from service.storage.database import StorageFault
from service.telemetry import redact

__all__ = ["alerts", "app", "daemon", "incidents", "main", "orders", "plan", "replay", "show"]


def main() -> None:
    """Run a command and turn what goes wrong into one sentence and an exit code."""
    try:
        app()
    except ConfigFaults as faults:
        for line in faults.lines:
            err.print(redact(line), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except (Failure, EngineFault, StorageFault, ListenFault, SigningFault, sa.exc.SQLAlchemyError,
            OSError) as fault:  # fmt: skip
        text = str(fault).splitlines()[0] if str(fault) else type(fault).__name__
        err.print(redact(text), style="red", markup=False, highlight=False, soft_wrap=True)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
