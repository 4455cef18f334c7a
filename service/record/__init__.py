"""Breaches, commands, receipts and progress become the incident log."""
