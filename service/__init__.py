"""What is done: the roles, and the engine, the storage and the wiring they stand on.

A role is a folder, a process, and one side of a topic. Roles never import each other; the import
contracts in pyproject.toml hold the layers.
"""
