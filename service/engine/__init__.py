"""The way in and out: one port, a local engine and a Kafka engine."""
