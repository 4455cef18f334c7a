"""Let Python look for garbage cycles seldom: a daemon that lives on batches makes none.

A window of events is tens of thousands of small objects that die together, by reference count.
Python's collector, set for scripts, walks them dozens of times before they do: measured, a fifth of
what `ingest` costs. Cycles are still collected, only less often.
"""

from __future__ import annotations

import gc

NEW_OBJECTS = 50_000
"""New objects between two looks at the youngest; Python's own is 700."""

YOUNG_LOOKS, MIDDLE_LOOKS = 20, 100
"""Looks at a generation between two looks at the next older one."""


def collect_seldom() -> None:
    """Set the collector for a long-lived process; what was made so far is looked at no more."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS, YOUNG_LOOKS, MIDDLE_LOOKS)
