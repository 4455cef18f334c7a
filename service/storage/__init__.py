"""What is kept: checkpoints, incident log, deliveries, holds, receipts; SQLite or PostgreSQL."""
