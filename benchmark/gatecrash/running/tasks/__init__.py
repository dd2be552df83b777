"""What a task does, in whatever process it runs: implant, defend, evaluate.

Each takes JSON-able descriptions (names and options, resolved by the worker's own host) and tensors, and returns tensors and JSON. Nothing
here reads or writes the store, and only `evaluate` is ever given test data, roles and triggers.
"""
