"""The incident log becomes messages that people read."""
