"""`rollbackd demo`: real people, two trained models, a real router, a bad canary, one minute."""
