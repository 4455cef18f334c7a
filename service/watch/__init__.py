"""detect · decide · verify: observations and rollouts become verdicts, breaches and commands."""
