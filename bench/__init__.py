"""Figures of docs/performance.md, by `make bench`: one `name: value` a line."""
