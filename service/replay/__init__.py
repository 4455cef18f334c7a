"""Replay: a recording through policies, offline. Same core as live, same input, same bytes."""
