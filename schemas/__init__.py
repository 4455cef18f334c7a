"""What is said: frozen messages, policies, ids and their wire form. Data, nothing else."""
