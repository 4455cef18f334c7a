"""Fixtures of the service's tests."""

from tests.service.stores import sqlite_store, store

__all__ = ["sqlite_store", "store"]
