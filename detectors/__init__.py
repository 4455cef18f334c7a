"""What is noticed: pure, seeded, restorable judges of one stream of losses each."""
