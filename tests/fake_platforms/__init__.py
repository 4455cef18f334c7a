"""Stateful fakes of platforms that cannot run here, named as such, with their real traps."""
