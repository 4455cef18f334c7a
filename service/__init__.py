"""What is done: roles, engines, storage and the one place that wires them."""
