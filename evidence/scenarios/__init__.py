"""The fourteen scenarios, S1 to S14: declared worlds, judges and promises."""
