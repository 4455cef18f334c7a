"""HTTP: events in, verdicts and incidents out, a page for people."""
