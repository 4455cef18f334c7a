"""All scenarios in their order."""

from __future__ import annotations

from evidence.scenarios.base import Scenario
from evidence.scenarios.benign import S3
from evidence.scenarios.boundary import S1, S2
from evidence.scenarios.common_mode import S4
from evidence.scenarios.cost import S14
from evidence.scenarios.day_one import S5
from evidence.scenarios.faults import S12
from evidence.scenarios.labels import S8
from evidence.scenarios.late_change import S6, S7
from evidence.scenarios.promotion import S11
from evidence.scenarios.real import S13
from evidence.scenarios.values import S9, S10

SCENARIOS: tuple[Scenario, ...] = (S1, S2, S3, S4, S5, S6, S7, S8, S9, S10, S11, S12, S13, S14)
