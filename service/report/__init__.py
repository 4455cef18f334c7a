"""The post-mortem of an incident: facts, plots and words, from the record alone. Pure."""
