"""Every adapter against what its platform does wrong."""
