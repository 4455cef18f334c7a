"""Adapters: one file for one platform, found because it exists (see `base.py`)."""
